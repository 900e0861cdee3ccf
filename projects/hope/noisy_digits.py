"""The digits, 64 pixels, with uniform noise behind them. The class is read from the outputs during the noise.

In a config: `task.name = "projects.hope.noisy_digits"`. Pixels are scaled to -1..1 as in the task `digits`.
"""

import dataclasses

from projects.hope import padded
from s5jax.data.task import Task
from s5jax.data.tasks import digits
from s5jax.ssm.parameters import check_between


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    noise_steps: int = 192
    """Steps of noise behind the 64 pixels."""

    def __post_init__(self) -> None:
        check_between(self, 1, 2**16, "noise_steps")


def load(options: Options = Options()) -> Task:
    """The task; nothing is downloaded."""
    return padded.make("noisy_digits", digits.load(), options.noise_steps)
