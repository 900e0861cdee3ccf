"""Image of the Long Range Arena: grey CIFAR-10 read pixel by pixel, row by row (arXiv 2011.04006, section 2.2.4).

L = 1024, one channel, ten classes. Grey levels x in 0..255 become (x - 122.6) / 61, as published.
"""

from jaxtyping import Array, Float, Shaped

from s5jax.data.prepare import Plan, Request
from s5jax.data.readers import cifar10
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
    downloads=cifar10.DOWNLOADS,
    tfds=cifar10.TFDS,
    classes={"test": (1_000,) * 10},
    sha256={
        "train": "77e63cbb1f73a5699f2b77dee7c6655a69afb552153a38af3c46bab50cf21d57",
        "val": "84824dad9072888ccdbdb7f56f5445b3e5f6b6843d0813c77fabd86f3fd587f4",
        "test": "2fc821e7a83a864580971f77dc0d966c4b90442894565a8344622493b9cc1afb",
    },
)


def plan(request: Request) -> Plan:
    """Grey images; see `cifar10.plan`."""
    return cifar10.plan(request, FORMAT)


def load(stored: Stored) -> Task:
    """The task from its store."""
    return Task(name="image", splits=stored.splits, length=1024, num_classes=10, preprocess=_normalize)


def _normalize(grey: Shaped[Array, "..."]) -> Float[Array, "..."]:
    return (grey.astype("float32") / 255 - 122.6 / 255) / (61 / 255)
