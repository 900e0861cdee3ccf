"""Seeded splits of examples into parts."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

__all__ = ["random_split", "stratified_split"]


def random_split(n: int, sizes: Sequence[int], seed: int) -> list[Int[np.ndarray, " size"]]:
    """Returns what `torch.utils.data.random_split(range(n), sizes, torch.Generator().manual_seed(seed))` returns.

    The published S4 and S5 code splits with it. Its permutation is a Fisher-Yates shuffle with the 32-bit outputs of
    MT19937 (torch.randperm on the CPU).

    Args:
      n: number of examples.
      sizes: number of examples in each part; they add up to n.
      seed: 0 to 2^32 - 1.

    Returns:
      The indices in each part, in torch's order, int64.

    Raises:
      ValueError: the sizes do not add up to n.
    """
    if sum(sizes) != n:
        raise ValueError(f"parts of {list(sizes)} examples are not {n} examples together")
    outputs = np.random.RandomState(seed).randint(0, 2**32, n, dtype=np.uint64).tolist()
    order = list(range(n))
    for i in range(n - 1):
        j = i + outputs[i] % (n - i)
        order[i], order[j] = order[j], order[i]
    return np.split(np.array(order, np.int64), np.cumsum(sizes)[:-1])


def stratified_split(labels: Int[np.ndarray, " N"], sizes: Sequence[int], seed: int) -> list[Int[np.ndarray, " size"]]:
    """Splits examples so that every class has nearly the same share in every part.

    Each class is shuffled and spread evenly over the interval [0, 1); the parts are what lies between two cuts. A class
    with n examples has n times the part's share of them in a part, give or take two.

    Args:
      labels: class of each example.
      sizes: number of examples in each part; they add up to N.
      seed: 0 to 2^32 - 1.

    Returns:
      The indices in each part, ascending, int64.

    Raises:
      ValueError: the sizes do not add up to N.
    """
    if sum(sizes) != len(labels):
        raise ValueError(f"parts of {list(sizes)} examples are not {len(labels)} examples together")
    random = np.random.RandomState(seed)  # NumPy guarantees that its stream never changes
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        place[members] = (np.arange(len(members)) + random.random_sample()) / len(members)
    parts = np.split(np.argsort(place, kind="stable"), np.cumsum(sizes)[:-1])
    return [np.sort(part) for part in parts]
