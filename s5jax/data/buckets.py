"""Lengths that padded batches are cut to, so that short sequences cost less."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

__all__ = ["bucket_bounds", "fitting"]


def bucket_bounds(lengths: Int[np.ndarray, "N ..."], buckets: int, length: int, multiple: int = 64) -> list[int]:
    """Lengths that batches are cut to: quantiles of those of the examples, so that buckets are about equally full.

    Args:
      lengths: (N,), or (N, 2) of pairs, of which the longer one counts.
      buckets: how many bounds at most.
      length: L, the last bound.
      multiple: bounds are multiples of it, as long as they stay below L.

    Returns:
      The bounds, ascending.
    """
    quantiles = np.quantile(_longest(lengths), np.arange(1, buckets) / buckets, method="higher")
    bounds = {-(-int(quantile) // multiple) * multiple for quantile in quantiles}
    return [*sorted(bound for bound in bounds if bound < length), length]


def fitting(lengths: Int[np.ndarray, "N ..."], bounds: Sequence[int]) -> Int[np.ndarray, " N"]:
    """The number of the first bound that each example fits in."""
    return np.searchsorted(bounds, _longest(lengths))


def _longest(lengths: Int[np.ndarray, "N ..."]) -> Int[np.ndarray, " N"]:
    return lengths if lengths.ndim == 1 else lengths.max(1)
