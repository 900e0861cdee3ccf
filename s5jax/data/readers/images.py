"""Labelled images as sequences of pixels, with a tenth of the training images for validation."""

import functools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from s5jax.data.prepare import Plan
from s5jax.data.splits import random_split
from s5jax.data.task import Split

Images = tuple[UInt8[np.ndarray, "N L C"], UInt8[np.ndarray, " N"]]
"""Pixels and labels."""

Read = Callable[[str], Images]
"""Returns all images of "train" or "test"."""


def plan(read: Read, origin: str, sources: Sequence[pathlib.Path] = (), facts: dict[str, Any] | None = None) -> Plan:
    """Splits the training images 9 : 1 by torch's `random_split` with seed 42, as the published S4 and S5 code does."""
    read = functools.cache(read)  # the training images for both of their splits
    parts = {split: _examples(read, split) for split in ("train", "val", "test")}
    return Plan(parts=parts, origin=origin, sources=sources, facts=facts or {})


def _examples(read: Read, split: str) -> Iterator[Split]:
    images, labels = read("test" if split == "test" else "train")
    if split != "test":
        train = round(0.9 * len(labels))
        chosen = random_split(len(labels), [train, len(labels) - train], seed=42)[split == "val"]
        images, labels = images[chosen], labels[chosen]
    yield Split(images, labels.astype(np.int32))
