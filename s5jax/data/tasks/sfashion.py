"""Sequential Fashion-MNIST (arXiv 1708.07747): pictures of clothes read pixel by pixel. L = 784, ten classes.

Grey levels 0..255 become 0..1, as in sequential MNIST.
"""

import functools

from s5jax.data.readers import idx
from s5jax.data.store import Stored
from s5jax.data.task import Task
from s5jax.data.tasks.smnist import scale

FORMAT = idx.make_format(
    "sfashion",
    "fashion-mnist",
    address="https://github.com/zalandoresearch/fashion-mnist",
    url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
    sums=(  # tensorflow_datasets 4.9.10, url_checksums/fashion_mnist.txt
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ),
    tfds="fashion_mnist",
    classes={"test": (1_000,) * 10},
    sha256="48eae10e70e989dc8c184d2f0926c4c6a865c94e8a71e625d2565235d84774ce",
)
plan = functools.partial(idx.plan, FORMAT, ("fashion-mnist", "FashionMNIST/raw"))


def load(stored: Stored) -> Task:
    return FORMAT.task(stored.splits, preprocess=scale)
