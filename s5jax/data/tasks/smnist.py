"""Sequential MNIST: handwritten digits read pixel by pixel, row by row, or permuted. L = 784, one channel, ten classes.

Grey levels 0..255 become 0..1, without further normalisation, as published. The permutation is that of the published
code: bit reversal, cut to 784 positions.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from s5jax.data.prepare import Plan, Request
from s5jax.data.readers import idx
from s5jax.data.store import Format, Stored
from s5jax.data.task import Task

FORMAT = Format(
    name="smnist",
    sizes=idx.SIZES,
    length=784,
    num_classes=10,
    dtype="uint8",
    files="mnist/{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]",
    address="https://storage.googleapis.com/cvdf-datasets/mnist/ (once http://yann.lecun.com/exdb/mnist/)",
    downloads=idx.downloads(  # sums: tensorflow_datasets 4.9.10, url_checksums/mnist.txt
        "https://storage.googleapis.com/cvdf-datasets/mnist",
        "mnist",
        (
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    ),
    tfds="mnist",
    classes={"test": (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)},
    sha256={
        "train": "fc0af925af0a2177f9c85edee32e8669876829a5feec5519e1283db49d7d2de9",
        "val": "04a26957c0d6d4f2cd7171b0d6542f7680d48b6bb2d8ae951d7840141765aabd",
        "test": "49c2c931c3e785b7170762e8bf475c9a7b36476ece553d2783bea24c2bff2156",
    },
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    permuted: bool = False
    """Pixels in bit-reversed order: psMNIST."""


def plan(request: Request) -> Plan:
    """Reads IDX files or a TFDS directory; see `idx.plan`."""
    return idx.plan(request, FORMAT, ("mnist", "MNIST/raw"))


def load(stored: Stored, options: Options) -> Task:
    """The task from its store."""
    order = bit_reversal(784) if options.permuted else None

    def preprocess(grey: Shaped[Array, "*N L 1"]) -> Float[Array, "*N L 1"]:
        scaled = grey.astype("float32") / 255
        return scaled if order is None else jnp.take(scaled, order, axis=-2)

    return Task(name="smnist", splits=stored.splits, length=784, num_classes=10, preprocess=preprocess)


def bit_reversal(length: int) -> Int[np.ndarray, " L"]:
    """0..length - 1 in the order of their binary digits read backwards, with as many digits as length - 1 has."""
    digits = (length - 1).bit_length()
    reversed_ = [int(f"{i:0{digits}b}"[::-1], 2) for i in range(2**digits)]
    return np.array([i for i in reversed_ if i < length])
