"""The seeded split of torch, without torch: the same examples in the same parts as in published runs."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

__all__ = ["random_split"]


def random_split(n: int, sizes: Sequence[int], seed: int) -> list[Int[np.ndarray, " size"]]:
    """What `torch.utils.data.random_split(range(n), sizes, torch.Generator().manual_seed(seed))` gives.

    Its permutation is a Fisher-Yates shuffle over the 32-bit outputs of MT19937 (torch.randperm on the CPU).

    Args:
      n: number of examples.
      sizes: of the parts, n together.
      seed: 0..2^32 - 1.

    Returns:
      The indices in each part, in torch's order, int64.
    """
    if sum(sizes) != n:
        raise ValueError(f"parts of {list(sizes)} examples are not {n} examples together")
    outputs = np.random.RandomState(seed).randint(0, 2**32, n, dtype=np.uint64).tolist()
    order = list(range(n))
    for i in range(n - 1):
        j = i + outputs[i] % (n - i)
        order[i], order[j] = order[j], order[i]
    return np.split(np.array(order, np.int64), np.cumsum(sizes)[:-1])
