"""Image of the Long Range Arena: grey CIFAR-10 read pixel by pixel, row by row (arXiv 2011.04006, section 2.2.4).

L = 1024, one channel, ten classes. Grey levels x in 0..255 become (x - 122.6) / 61, as published.
"""

import functools

from jaxtyping import Array, Float, Shaped

from s5jax.data.readers import cifar10
from s5jax.data.store import Stored
from s5jax.data.task import Task

FORMAT = cifar10.make_format("image", 1, "e3bb16e75e498e56f469aec11bddbc625552433188bbed5b0900e8090ead1e8b")
plan = functools.partial(cifar10.plan, FORMAT)


def load(stored: Stored) -> Task:
    return FORMAT.task(stored.splits, preprocess=_normalize)


def _normalize(grey: Shaped[Array, "..."]) -> Float[Array, "..."]:
    return (grey.astype("float32") / 255 - 122.6 / 255) / (61 / 255)
