"""Sequential Fashion-MNIST (arXiv 1708.07747): pictures of clothes read pixel by pixel. L = 784, ten classes.

Grey levels 0..255 become 0..1, as in sequential MNIST.
"""

from jaxtyping import Array, Float, Shaped

from s5jax.data import idx
from s5jax.data.preparation import Plan, Request
from s5jax.data.store import Format, Stored
from s5jax.data.task import Task

FORMAT = Format(
    name="sfashion",
    sizes=idx.SIZES,
    length=784,
    num_classes=10,
    dtype="uint8",
    files="fashion-mnist/{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]",
    address="https://github.com/zalandoresearch/fashion-mnist",
)


def plan(request: Request) -> Plan:
    return idx.plan(request, FORMAT, ("fashion-mnist", "FashionMNIST/raw", "."))


def load(stored: Stored) -> Task:
    return Task(name="sfashion", splits=stored.splits, length=784, num_classes=10, preprocess=_scale)


def _scale(grey: Shaped[Array, "..."]) -> Float[Array, "..."]:
    return grey.astype("float32") / 255
