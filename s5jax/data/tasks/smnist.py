"""Sequential MNIST: handwritten digits read pixel by pixel, row by row, or permuted. L = 784, one channel, ten classes.

Grey levels 0..255 become 0..1, without further normalisation, as published. The permutation is that of the published
code: bit reversal, cut to 784 positions.
"""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from s5jax.data.readers import idx
from s5jax.data.store import Stored
from s5jax.data.task import Task

FORMAT = idx.make_format(
    "smnist",
    "mnist",
    address="https://storage.googleapis.com/cvdf-datasets/mnist/ (once http://yann.lecun.com/exdb/mnist/)",
    url="https://storage.googleapis.com/cvdf-datasets/mnist",
    sums=(  # tensorflow_datasets 4.9.10, url_checksums/mnist.txt
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
    tfds="mnist",
    classes={"test": (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)},
    sha256="ee1abebcd269f946958806d452bbe375f409d11bc2425313a7001af1a4a1b63f",
)
plan = functools.partial(idx.plan, FORMAT, ("mnist", "MNIST/raw"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    permuted: bool = False
    """Pixels in bit-reversed order: psMNIST."""


def load(stored: Stored, options: Options) -> Task:
    return FORMAT.task(stored.splits, preprocess=_permute if options.permuted else scale)


def scale(grey: Shaped[Array, "..."]) -> Float[Array, "..."]:
    """Grey levels 0..255 to 0..1."""
    return grey.astype("float32") / 255


def _permute(grey: Shaped[Array, "*N 784 1"]) -> Float[Array, "*N 784 1"]:
    """Scaled pixels in the order of the binary digits of their places, read backwards: 0, 512, 256, 768, ..."""
    backwards = [int(f"{i:010b}"[::-1], 2) for i in range(1024)]
    return jnp.take(scale(grey), np.array([i for i in backwards if i < 784]), axis=-2)
