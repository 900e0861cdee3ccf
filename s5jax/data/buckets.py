"""Lengths to cut padded batches to, so that short sequences cost less."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int


def bucket_bounds(lengths: Int[np.ndarray, "N ..."], buckets: int, length: int, multiple: int = 64) -> list[int]:
    """Lengths to cut batches to, ascending: quantiles of the examples' lengths, so that buckets are equally full.

    Args:
      lengths: (N,), or (N, 2) of pairs, where the longer document counts.
      buckets: largest number of bounds.
      length: L, the last bound.
      multiple: the other bounds are multiples of it.
    """
    quantiles = np.quantile(_longest(lengths), np.arange(1, buckets) / buckets, method="higher")
    bounds = {-(-int(quantile) // multiple) * multiple for quantile in quantiles}
    return [*sorted(bound for bound in bounds if bound < length), length]


def fitting(lengths: Int[np.ndarray, "N ..."], bounds: Sequence[int]) -> Int[np.ndarray, " N"]:
    """The index of the first bound that is at least the length of each example."""
    return np.searchsorted(bounds, _longest(lengths))


def _longest(lengths: Int[np.ndarray, "N ..."]) -> Int[np.ndarray, " N"]:
    return lengths if lengths.ndim == 1 else lengths.max(1)
