"""Sequential CIFAR-10: colour images read pixel by pixel, row by row. L = 1024, three channels, ten classes.

Channels are normalised by (0.4914, 0.4822, 0.4465) and (0.247, 0.243, 0.261), as published in the S4 code.
"""

import functools

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from s5jax.data.readers import cifar10
from s5jax.data.store import Stored
from s5jax.data.task import Task

FORMAT = cifar10.make_format("scifar", 3, "cd724614ef913937935c694d60b6f0e8a2bf61fbb7791459bb64a2ea249ced05")
plan = functools.partial(cifar10.plan, FORMAT)
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)


def load(stored: Stored) -> Task:
    return FORMAT.task(stored.splits, preprocess=_normalize)


def _normalize(rgb: Shaped[Array, "*N 3"]) -> Float[Array, "*N 3"]:
    broadcast = (1,) * (rgb.ndim - 1) + (3,)
    mean, std = (jnp.array(x, jnp.float32).reshape(broadcast) for x in (MEAN, STD))
    return (rgb.astype("float32") / 255 - mean) / std
