"""Labelled images as sequences of pixels, with a tenth of the training images for validation."""

import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8

from s5jax.data.prepare import Plan
from s5jax.data.splits import random_split
from s5jax.data.store import Arrays

__all__ = ["Read", "plan"]

Read = Callable[[], tuple[UInt8[np.ndarray, "N L C"], UInt8[np.ndarray, " N"]]]
"""Returns pixels and labels; a `functools.partial` of a module's function."""


def plan(
    read: Mapping[str, Read], origin: str, sources: list[pathlib.Path], facts: dict[str, Any] | None = None
) -> Plan:
    """Splits the training images 9 : 1 by torch's `random_split` with seed 42, as the published S4 and S5 code does.

    Args:
      read: for "train" and "test" a function that returns all images.
      origin, sources, facts: of the plan.
    """
    return Plan(
        jobs={
            "train": [functools.partial(_examples, read["train"], 0)],
            "val": [functools.partial(_examples, read["train"], 1)],
            "test": [functools.partial(_examples, read["test"], None)],
        },
        origin=origin,
        sources=sources,
        facts=facts or {},
    )


def _examples(read: Read, part: int | None) -> Arrays:
    """All images, or one part of the split 9 : 1."""
    images, labels = _read_once(read)
    if part is not None:
        train = round(0.9 * len(labels))
        chosen = random_split(len(labels), [train, len(labels) - train], seed=42)[part]
        images, labels = images[chosen], labels[chosen]
    return Arrays(images, labels.astype(np.int32))


@functools.lru_cache(maxsize=1)
def _read_once(read: Read) -> tuple[np.ndarray, np.ndarray]:
    """Reads the training images for both of their splits at once."""
    return read()
