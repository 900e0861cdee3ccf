"""Which variants of a test run every day."""

import itertools

import pytest


def variants(everyday, /, **axes):
    """`pytest.mark.parametrize` over all combinations of the axes' values, slow but for those in `everyday`.

    Args:
        everyday: Combinations, as tuples in the order of the axes; of one axis, values.
        axes: Values of each argument of the test.
    """
    product = list(itertools.product(*axes.values()))
    everyday = [(value,) for value in everyday] if len(axes) == 1 else list(everyday)
    assert everyday and all(combination in product for combination in everyday), everyday
    return pytest.mark.parametrize(
        list(axes), [pytest.param(*c, marks=() if c in everyday else pytest.mark.slow) for c in product]
    )
