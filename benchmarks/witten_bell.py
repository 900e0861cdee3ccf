"""Bits per byte of an interpolated Witten-Bell model of a text (Witten and Bell 1991; Chen and Goodman 1998, 2.5).

    python -m benchmarks.witten_bell data/reviews/train.txt data/reviews/test.txt

c are counts, h is the k bytes before x, h' the last k - 1 of them, and T(h) the number of different bytes after h:

    p(x | h) = (c(h x) + T(h) p(x | h')) / (c(h) + T(h));    without context, 1/256 stands for p(x | h').
"""

import argparse
import pathlib

import numpy as np
from jaxtyping import Float, UInt8


def bits(train: UInt8[np.ndarray, " N"], test: UInt8[np.ndarray, " M"], order: int) -> Float[np.ndarray, " orders"]:
    """Mean -log2 p of the test bytes, for contexts of up to 0, 1, ..., `order` bytes."""
    p = np.full(len(test), 1 / 256)
    means = []
    for k in range(order + 1):
        seen, counts = np.unique(_grams(train, k), return_counts=True)
        contexts, first = np.unique(seen >> 8, return_index=True)
        kinds = np.diff(np.append(first, len(seen)))
        totals = np.add.reduceat(counts, first)
        wanted = _grams(test, k)
        c, total, T = (
            _look_up(keys, values, queries)
            for keys, values, queries in (
                (seen, counts, wanted),
                (contexts, totals, wanted >> 8),
                (contexts, kinds, wanted >> 8),
            )
        )
        at = slice(k, None)  # the first bytes have no context of this length
        p[at] = np.where(total > 0, (c + T * p[at]) / np.maximum(total + T, 1), p[at])
        means.append(-np.log2(p).mean())
    return np.array(means)


def _grams(text: UInt8[np.ndarray, " N"], k: int) -> np.ndarray:
    """Each byte and the k bytes before it as one number, with the byte itself as the lowest digit."""
    grams = np.zeros(len(text) - k, np.int64)
    for i in range(k + 1):
        grams = grams << 8 | text[i : len(text) - k + i]
    return grams


def _look_up(keys: np.ndarray, values: np.ndarray, queries: np.ndarray) -> np.ndarray:
    at = np.minimum(np.searchsorted(keys, queries), len(keys) - 1)
    return np.where(keys[at] == queries, values[at], 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=pathlib.Path)
    parser.add_argument("test", type=pathlib.Path)
    parser.add_argument("--order", type=int, default=5, help="longest context in bytes (default: 5)")
    arguments = parser.parse_args()
    train, test = (np.frombuffer(path.read_bytes(), np.uint8) for path in (arguments.train, arguments.test))
    for k, mean in enumerate(bits(train, test, arguments.order)):
        print(f"contexts of up to {k} bytes: {mean:.3f} bits per byte")
