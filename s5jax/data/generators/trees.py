"""Generates the trees of ListOps (arXiv 1804.06028) from the grammar of Long Range Arena (arXiv 2011.04006).

A node at depth 1 to 9 is an operator with probability 1/4, otherwise a digit; at depth 10 it is a digit. Digits,
operators and the number of an operator's arguments, 2 to 10, are uniform. MED is the median, the mean of the middle two
rounded down; SM is the sum modulo 10. A tree is kept if 500 < symbols < 2000, where closing brackets count: one in
twelve.

Many trees grow at once, level by level: the nodes of a level are arrays in which siblings stand together, in the order
of their parents. A tree is a string of bytes, each an index into `SYMBOLS`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

OPERATORS = ("[MIN", "[MAX", "[MED", "[SM")

SYMBOLS = (*"0123456789", *OPERATORS, "]")
"""As in the official files."""

MIN = 10  # index of the first operator
CLOSE = 14  # index of the closing bracket
DEPTH = 10
ARGUMENTS = 10
OPERATOR_PROBABILITY = 0.25

LONGER_THAN, SHORTER_THAN = 500, 2000
"""Bounds on the number of symbols of the trees that are kept, excluded."""

BATCH = 2048
"""Number of trees that grow at once. The trees from a random state depend on it."""


class _Level(NamedTuple):
    """Nodes of one depth."""

    arguments: Int[np.ndarray, " _nodes"]  # 0: a digit
    symbols: Int[np.ndarray, " _nodes"]
    values: Int[np.ndarray, " _nodes"]
    sizes: Int[np.ndarray, " _nodes"]  # symbols of the whole subtree


def sample(
    random: np.random.RandomState, count: int, *, longer_than: int = LONGER_THAN, shorter_than: int = SHORTER_THAN
) -> dict[bytes, int]:
    """Draws different trees from the grammar.

    Args:
      random: source of random numbers, which advances.
      count: number of trees; a smaller count gives the first of the same trees. The function does not return if there
        are fewer different trees.
      longer_than, shorter_than: bounds on the number of symbols, excluded.

    Returns:
      The value of each tree, in the order in which the trees were drawn.
    """
    found: dict[bytes, int] = {}
    while len(found) < count:
        levels = _fill(random, shapes(random, BATCH, longer_than=longer_than, shorter_than=shorter_than))
        written, ends = _write(levels).tobytes(), np.cumsum(levels[0].sizes).tolist()
        for start, end, value in zip([0, *ends], ends, levels[0].values.tolist(), strict=False):
            found.setdefault(written[start:end], value)
    return dict(list(found.items())[:count])


def shapes(
    random: np.random.RandomState, count: int, *, longer_than: int = LONGER_THAN, shorter_than: int = SHORTER_THAN
) -> list[Int[np.ndarray, " _nodes"]]:
    """Draws trees without their symbols.

    Args:
      random: source of random numbers, which advances.
      count: number of trees that grow; those within the bounds are returned.
      longer_than, shorter_than: bounds on the number of symbols, excluded.

    Returns:
      For each depth the number of arguments of each node.
    """
    tree = np.arange(count)  # the tree that each node belongs to
    length = np.ones(count, np.int64)  # symbols, if all nodes below were digits: a lower bound
    levels = []
    for depth in range(1, DEPTH + 1):
        arguments = np.zeros(len(tree), np.int64)
        if depth < DEPTH:
            operator = random.random_sample(len(tree)) < OPERATOR_PROBABILITY
            arguments[operator] = random.randint(2, ARGUMENTS + 1, operator.sum(), dtype=np.int64)
        levels.append((tree, arguments))
        length += np.bincount(tree, arguments + (arguments > 0), count).astype(np.int64)
        tree = np.repeat(tree, arguments)
        tree = tree[length[tree] < shorter_than]  # stop trees that are too long
    kept = (length > longer_than) & (length < shorter_than)
    return [arguments[kept[tree]] for tree, arguments in levels]


def is_complete(tree: bytes) -> bool:
    """Whether symbols are exactly one tree."""
    symbols = np.frombuffer(tree, np.uint8)
    opened = np.cumsum(np.where(symbols == CLOSE, -1, symbols >= MIN))  # operators without their closing bracket
    return len(tree) > 0 and bool((opened[:-1] > 0).all() and opened[-1] == 0)


def _fill(random: np.random.RandomState, levels: Sequence[Int[np.ndarray, " _nodes"]]) -> list[_Level]:
    """Draws symbols and computes values and sizes, from the bottom up."""
    filled: list[_Level] = []
    for arguments in reversed(levels):
        operator = arguments > 0
        symbols = random.randint(0, 10, len(arguments), dtype=np.int64)
        symbols[operator] = random.randint(MIN, CLOSE, operator.sum(), dtype=np.int64)
        values, sizes = symbols.copy(), np.ones_like(symbols)
        if operator.any():
            below, counts = filled[-1], arguments[operator]
            values[operator] = _apply(symbols[operator], counts, below.values)
            sizes[operator] = 2 + np.add.reduceat(below.sizes, np.cumsum(counts) - counts)
        filled.append(_Level(arguments, symbols, values, sizes))
    return filled[::-1]


def _apply(
    operators: Int[np.ndarray, " N"], counts: Int[np.ndarray, " N"], values: Int[np.ndarray, " arguments"]
) -> Int[np.ndarray, " N"]:
    """Values of operators; the values of their arguments follow each other."""
    table = np.full((len(operators), ARGUMENTS), 10, np.uint8)  # tens are sorted last, and change no sum modulo 10
    table[np.arange(ARGUMENTS) < counts[:, None]] = values
    table.sort(axis=1)
    row = np.arange(len(operators))
    median = (table[row, (counts - 1) // 2] + table[row, counts // 2]) // 2
    return np.choose(operators - MIN, [table[:, 0], table[row, counts - 1], median, table.sum(1) % 10]).astype(np.int64)


def _write(levels: Sequence[_Level]) -> UInt8[np.ndarray, " symbols"]:
    """Symbols of all trees in a row. A node starts after its parent's symbol and its earlier siblings."""
    start = np.cumsum(levels[0].sizes) - levels[0].sizes
    written = np.empty(levels[0].sizes.sum(), np.uint8)
    for level, below in zip(levels, [*levels[1:], None], strict=True):
        written[start] = level.symbols
        operator = level.arguments > 0
        written[start[operator] + level.sizes[operator] - 1] = CLOSE
        if below is not None:
            counts = level.arguments[operator]
            before = np.cumsum(below.sizes) - below.sizes  # within the level
            first = np.cumsum(counts) - counts
            start = np.repeat(start[operator] + 1 - before[first], counts) + before
    return written
