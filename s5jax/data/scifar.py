"""Sequential CIFAR-10: colour images read pixel by pixel, row by row. L = 1024, three channels, ten classes.

Channels are normalised by (0.4914, 0.4822, 0.4465) and (0.247, 0.243, 0.261), as published in the S4 code.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from s5jax.data import cifar10
from s5jax.data.preparation import Plan, Request
from s5jax.data.store import Format, Stored
from s5jax.data.task import Task

FORMAT = Format(
    name="scifar",
    sizes=cifar10.SIZES,
    length=1024,
    num_classes=10,
    channels=3,
    dtype="uint8",
    files=cifar10.FILES,
    address=cifar10.ADDRESS,
)
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.247, 0.243, 0.261)


def plan(request: Request) -> Plan:
    return cifar10.plan(request, FORMAT)


def load(stored: Stored) -> Task:
    return Task(name="scifar", splits=stored.splits, length=1024, num_classes=10, channels=3, preprocess=_normalize)


def _normalize(rgb: Shaped[Array, "*N 3"]) -> Float[Array, "*N 3"]:
    broadcast = (1,) * (rgb.ndim - 1) + (3,)
    mean, std = (jnp.array(x, jnp.float32).reshape(broadcast) for x in (MEAN, STD))
    return (rgb.astype("float32") / 255 - mean) / std
