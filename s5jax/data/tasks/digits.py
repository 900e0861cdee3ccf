"""Sequential digits: 1,797 real handwritten digits of 8 x 8 pixels, read pixel by pixel.

The "Optical Recognition of Handwritten Digits" data set of the UCI Machine Learning Repository (E. Alpaydin and
C. Kaynak, 1998, doi:10.24432/C50P49), its test part, licensed CC BY 4.0; taken from the copy in scikit-learn and stored
unchanged as `digits.npz` (images (1797, 64), 0..16; labels). Grey levels row by row, L = 64, one channel, ten classes.

The split is this project's own, a fixed shuffle: 1,257 / 180 / 360.
"""

import pathlib

import numpy as np
from jaxtyping import Array, Float, Shaped

from s5jax.data.task import Split, Task

SIZES = {"train": 1257, "val": 180, "test": 360}


def load() -> Task:
    """The task; nothing is downloaded."""
    with np.load(pathlib.Path(__file__).with_name("digits.npz")) as stored:
        images, labels = stored["images"], stored["labels"]
    order = np.random.RandomState(0).permutation(len(labels))  # NumPy guarantees that this stream never changes
    parts = np.split(order, np.cumsum(list(SIZES.values()))[:-1])
    splits = {name: Split(images[part][..., None], labels[part]) for name, part in zip(SIZES, parts, strict=True)}
    return Task(name="digits", splits=splits, length=64, num_classes=10, preprocess=_scale)


def _scale(grey: Shaped[Array, "..."]) -> Float[Array, "..."]:
    """Grey levels 0..16 to -1..1."""
    return grey.astype("float32") / 8 - 1
