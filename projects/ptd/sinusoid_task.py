"""The task of predicting the amplitude and frequency of a sinusoid, also beyond the training frequencies.

After arXiv 2310.01698, section 3.4. In a config: `task.name = "projects.ptd.sinusoid_task"`.

    u(t) = a cos(s t + phase),    t = 0, Delta, ..., (L - 1) Delta

s is evenly spread, in [0, 80] radians per unit of time for training and validation and in [0, 100] for the test split.
a is uniform in [0.5, 1.5], the phase in [0, 2 pi). The labels are of order one: (a, s / 100).

Why 80: the normal part of HiPPO-LegS with 16 states has its fastest mode at 80.97, with decay rate 1/2. Its transfer
function therefore has a spike there, which HiPPO-LegS and its perturbation lack. An SSM sees the same frequencies if
its step size is INTERVAL. L steps are then 5.12 units of time, in which the resonance builds up to 92 %.
"""

import numpy as np
from jaxtyping import Float

from s5jax.data.task import Split, Task

__all__ = ["FREQUENCY_SCALE", "INTERVAL", "TEST_UP_TO", "TRAIN_UP_TO", "load", "sinusoids"]

INTERVAL = 0.02
"""Delta, time between samples; the Nyquist frequency is 157."""

LENGTH = 256
SIZES = {"train": 4096, "val": 512, "test": 1024}
TRAIN_UP_TO = 80.0
TEST_UP_TO = 100.0
AMPLITUDES = (0.5, 1.5)

FREQUENCY_SCALE = 100.0
"""Radians per unit of time that are 1 as a label."""

TOLERANCE = 0.05
"""An example is right if its amplitude is within 0.05 and its frequency within 5 radians per unit of time."""


def sinusoids(
    frequency: Float[np.ndarray, " N"], amplitude: Float[np.ndarray, " N"], phase: Float[np.ndarray, " N"]
) -> Float[np.ndarray, "N L 1"]:
    """Samples of sinusoids in the form of the task's inputs, float32.

    Args:
      frequency: radians per unit of time.
      amplitude: any.
      phase: radians.
    """
    t = INTERVAL * np.arange(LENGTH)
    u = amplitude[:, None] * np.cos(frequency[:, None] * t + phase[:, None])
    return u.astype(np.float32)[..., None]


def load() -> Task:
    """The task, the same every time."""
    random = np.random.RandomState(0)  # NumPy guarantees that this stream never changes
    splits = {}
    for name, size in SIZES.items():
        frequency = np.linspace(0, TEST_UP_TO if name == "test" else TRAIN_UP_TO, size)
        amplitude, phase = random.uniform(*AMPLITUDES, size), random.uniform(0, 2 * np.pi, size)
        labels = np.stack([amplitude, frequency / FREQUENCY_SCALE], axis=1)
        splits[name] = Split(sinusoids(frequency, amplitude, phase), labels.astype(np.float32))
    return Task(name="sinusoid", splits=splits, length=LENGTH, targets=2, tolerance=TOLERANCE)
