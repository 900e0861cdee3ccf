"""Sequential Fashion-MNIST (arXiv 1708.07747): pictures of clothes read pixel by pixel. L = 784, ten classes.

Grey levels 0..255 become 0..1, as in sequential MNIST.
"""

from jaxtyping import Array, Float, Shaped

from s5jax.data.prepare import Plan, Request
from s5jax.data.readers import idx
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
    downloads=idx.downloads(  # sums: tensorflow_datasets 4.9.10, url_checksums/fashion_mnist.txt
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        "fashion-mnist",
        (
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
    ),
    tfds="fashion_mnist",
    classes={"test": (1_000,) * 10},
    sha256={
        "train": "09bc04b8a320eb0fe0c5ca8a0de8ff3431ebd5ed115a3f9f469bd4b189d88073",
        "val": "a92e9b7f0cc985283d002c471dc32e8a98c34b1e8f156f1fa7af3756d9cbfa9e",
        "test": "ce205b2729af455674e7835996ca224208e4516886a441a6a997fd22135387de",
    },
)


def plan(request: Request) -> Plan:
    """Reads IDX files or a TFDS directory; see `idx.plan`."""
    return idx.plan(request, FORMAT, ("fashion-mnist", "FashionMNIST/raw"))


def load(stored: Stored) -> Task:
    """The task from its store."""
    return Task(name="sfashion", splits=stored.splits, length=784, num_classes=10, preprocess=_scale)


def _scale(grey: Shaped[Array, "..."]) -> Float[Array, "..."]:
    return grey.astype("float32") / 255
