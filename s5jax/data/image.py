"""Image of the Long Range Arena: grey CIFAR-10 read pixel by pixel, row by row (arXiv 2011.04006, section 2.2.4).

L = 1024, one channel, ten classes. Grey levels x in 0..255 become (x - 122.6) / 61, as published.
"""

from jaxtyping import Array, Float, Shaped

from s5jax.data import cifar10
from s5jax.data.preparation import Plan, Request
from s5jax.data.store import Format, Stored
from s5jax.data.task import Task

FORMAT = Format(
    name="image",
    sizes=cifar10.SIZES,
    length=1024,
    num_classes=10,
    dtype="uint8",
    files=cifar10.FILES,
    address=cifar10.ADDRESS,
)


def plan(request: Request) -> Plan:
    return cifar10.plan(request, FORMAT)


def load(stored: Stored) -> Task:
    return Task(name="image", splits=stored.splits, length=1024, num_classes=10, preprocess=_normalize)


def _normalize(grey: Shaped[Array, "..."]) -> Float[Array, "..."]:
    return (grey.astype("float32") / 255 - 122.6 / 255) / (61 / 255)
