"""Sequential CIFAR-10, 1,024 colour pixels, with as many steps of uniform noise behind them. The class is read from the
outputs during the noise.

In a config: `task.name = "projects.hope.noisy_cifar"`. The data are those of the task `scifar`, under whose name they
are prepared. Pixels are normalised as there. The published task draws the noise anew in each epoch, this one does not.
"""

from projects.hope import padded
from s5jax.data.store import Stored
from s5jax.data.task import Task
from s5jax.data.tasks import scifar

FORMAT = scifar.FORMAT


def load(stored: Stored) -> Task:
    clean = scifar.load(stored)
    return padded.make("noisy_cifar", clean, clean.length)
