"""Labelled images as sequences of pixels, with a tenth of the training images for validation."""

import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from s5jax.data.prepare import Plan
from s5jax.data.splits import random_split
from s5jax.data.task import Split

__all__ = ["Read", "plan"]

Read = Callable[[str], tuple[UInt8[np.ndarray, "N L C"], UInt8[np.ndarray, " N"]]]
"""Returns pixels and labels of all images of "train" or "test"; a `functools.partial` of a module's function."""


def plan(read: Read, origin: str, sources: Sequence[pathlib.Path] = (), facts: dict[str, Any] | None = None) -> Plan:
    """Splits the training images 9 : 1 by torch's `random_split` with seed 42, as the published S4 and S5 code does."""
    jobs = {split: [functools.partial(_examples, read, split)] for split in ("train", "val", "test")}
    return Plan(jobs=jobs, origin=origin, sources=sources, facts=facts or {})


def _examples(read: Read, split: str) -> Split:
    images, labels = _read_once(read, "test" if split == "test" else "train")
    if split != "test":
        train = round(0.9 * len(labels))
        chosen = random_split(len(labels), [train, len(labels) - train], seed=42)[split == "val"]
        images, labels = images[chosen], labels[chosen]
    return Split(images, labels.astype(np.int32))


@functools.lru_cache(maxsize=1)
def _read_once(read: Read, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads the training images for both of their splits at once."""
    return read(split)
