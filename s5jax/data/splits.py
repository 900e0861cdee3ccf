"""Seeded splits of examples into parts."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int


def random_split(n: int, sizes: Sequence[int], seed: int) -> list[Int[np.ndarray, " size"]]:
    """Splits the indices of n examples at random into parts of these sizes, int64; `seed` is 0 to 2^32 - 1.

    They are those of `torch.utils.data.random_split(range(n), sizes, torch.Generator().manual_seed(seed))`, with which
    the published S4 and S5 code splits: a Fisher-Yates shuffle with the 32-bit outputs of MT19937 (torch.randperm on
    the CPU). Raises ValueError if the sizes do not add up to n.
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
    """Splits indices into parts of these sizes, int64 and ascending, in which every class has nearly the same share.

    Each class is shuffled and spread evenly over the interval [0, 1); the parts are what lies between two cuts. A part
    with a share s of all examples gets n s of a class's n examples, give or take two. Raises ValueError if the sizes do
    not add up to N.
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
