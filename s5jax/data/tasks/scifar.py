"""Sequential CIFAR-10: colour images read pixel by pixel, row by row. L = 1024, three channels, ten classes.

Channels are normalised by (0.4914, 0.4822, 0.4465) and (0.247, 0.243, 0.261), as published in the S4 code.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from s5jax.data.prepare import Plan, Request
from s5jax.data.readers import cifar10
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
    downloads=cifar10.DOWNLOADS,
    tfds=cifar10.TFDS,
    classes={"test": (1_000,) * 10},
    sha256={
        "train": "970f5472426784756d58b067d14d4566dd70c837574b921bf2fced442e7a51ca",
        "val": "69b221835fbb77e029b77c15bd3fdb9f56f5deb110ec388425250521358dd704",
        "test": "35624d5c1236f24d36291145d273db2efa5f75597055400543a61110482f989a",
    },
)
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.247, 0.243, 0.261)


def plan(request: Request) -> Plan:
    """Colour images; see `cifar10.plan`."""
    return cifar10.plan(request, FORMAT)


def load(stored: Stored) -> Task:
    """The task from its store."""
    return Task(name="scifar", splits=stored.splits, length=1024, num_classes=10, channels=3, preprocess=_normalize)


def _normalize(rgb: Shaped[Array, "*N 3"]) -> Float[Array, "*N 3"]:
    broadcast = (1,) * (rgb.ndim - 1) + (3,)
    mean, std = (jnp.array(x, jnp.float32).reshape(broadcast) for x in (MEAN, STD))
    return (rgb.astype("float32") / 255 - mean) / std
