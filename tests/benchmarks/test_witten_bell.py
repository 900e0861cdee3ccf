"""The n-gram model that language models are compared with, against its recursion written out."""

from collections import Counter, defaultdict

import numpy as np

from benchmarks.witten_bell import bits


def test_against_the_recursion():
    rng = np.random.default_rng(0)
    train, test = (bytes(rng.choice([0, 97, 98, 255], n, p=[0.1, 0.5, 0.3, 0.1]).astype(np.uint8)) for n in (400, 90))
    test = test[:-1] + b"z"  # never seen
    follows = defaultdict(Counter)
    for i, x in enumerate(train):
        for k in range(min(i, 3) + 1):
            follows[train[i - k : i]][x] += 1

    def p(x, h, k):
        below = 1 / 256 if k == 0 else p(x, h[1:], k - 1)
        counts = follows.get(h)
        return below if counts is None else (counts[x] + len(counts) * below) / (counts.total() + len(counts))

    for order in range(4):
        contexts = [test[max(0, i - order) : i] for i in range(len(test))]
        expected = -np.mean([np.log2(p(x, h, len(h))) for x, h in zip(test, contexts, strict=True)])
        found = bits(np.frombuffer(train, np.uint8), np.frombuffer(test, np.uint8), 3)[order]
        np.testing.assert_allclose(found, expected, rtol=1e-12)
