"""Trees of ListOps against the grammar, and against the published programme's distribution in `tests/reference`."""

import functools
import itertools
import json

import numpy as np
import pytest
import scipy.signal
import scipy.stats
from listops_reference import REFERENCE, SAMPLE, rows_of, text_of, value_of

from s5jax.data.generators import trees

WORDS = ["[MIN", "[MAX", "[MED", "[SM"]

SIGNIFICANCE = 1e-3
"""The level of each test of the distribution, whose sample is fixed: a correct generator fails for one seed in a
thousand."""


@functools.cache
def sampled():
    return trees.sample(np.random.RandomState(1), 2500)


def test_small_trees_are_all_there():
    """Every tree of less than five symbols, once."""
    found = trees.sample(np.random.RandomState(0), 410, longer_than=0, shorter_than=5)
    pairs = [f"( ( ( {o} {a} ) {b} ) ] )" for o in WORDS for a, b in itertools.product(range(10), repeat=2)]
    expected = {source: value_of(source) for source in [*"0123456789", *pairs]}
    assert {text_of(tree): value for tree, value in found.items()} == expected


def distribution():
    return json.loads((REFERENCE / "listops_distribution.json").read_text())


def test_lengths_are_distributed_as_published():
    """Kolmogorov and Smirnov's test of two samples, looking at the published deciles only."""
    reference, n, m = distribution()["length"], len(sampled()), 3000
    lengths = np.array([len(tree) for tree in sampled()])
    assert 500 < lengths.min() < 510 and 1950 < lengths.max() < 2000
    bound = scipy.stats.kstwobign.isf(SIGNIFICANCE) * np.sqrt((n + m) / (n * m))
    shares = [(lengths <= decile).mean() for decile in reference["deciles"][1:-1]]
    np.testing.assert_allclose(shares, np.arange(1, 10) / 10, rtol=0, atol=bound)
    bound = scipy.stats.norm.isf(SIGNIFICANCE / 2) * reference["std"] * np.sqrt(1 / n + 1 / m)
    assert lengths.mean() == pytest.approx(reference["mean"], abs=bound)


def exact_lengths():
    """Probabilities of 0 to 1999 symbols, from the grammar: G(z) = 3/4 z + 1/4 z^2 mean_k G(z)^k, level by level."""
    G = np.eye(1, 2000, 1)[0]  # a digit
    for _ in range(9):
        powers = [G]
        while len(powers) < 10:
            powers.append(scipy.signal.fftconvolve(powers[-1], G)[:2000])
        G = np.concatenate([np.zeros(2), 0.25 * np.mean(powers[1:], axis=0)])[:2000]
        G[1] += 0.75
    return G


def test_lengths_are_distributed_as_the_grammar_says():
    kept = np.where(np.arange(2000) > 500, exact_lengths(), 0)
    assert kept.sum() == pytest.approx(distribution()["accept_rate"], rel=0.05)  # the reference's own error is 1.8 %
    counts = np.bincount([len(tree) for tree in sampled()], minlength=2000)
    distance = np.abs(np.cumsum(counts) / counts.sum() - np.cumsum(kept) / kept.sum()).max()
    assert distance < scipy.stats.kstwobign.isf(SIGNIFICANCE) / np.sqrt(counts.sum())
    grown = 30_000
    accepted = len(trees.shapes(np.random.RandomState(2), grown)[0])
    assert scipy.stats.binomtest(accepted, grown, kept.sum()).pvalue > SIGNIFICANCE


def homogeneous(ours, published):
    """Whether two rows of counts are of one distribution, by the chi-square test."""
    return scipy.stats.chi2_contingency([ours, published]).pvalue > SIGNIFICANCE


def test_targets_and_symbols_are_distributed_as_published():
    reference = distribution()
    targets = np.bincount(list(sampled().values()), minlength=10)
    assert homogeneous(targets, 3000 * np.array(reference["target_freq"]))
    symbols = np.bincount(np.frombuffer(b"".join(sampled()), np.uint8), minlength=15)
    per_tree = symbols[10:14].sum() / len(sampled())
    published = [reference["operator_freq"][operator] for operator in trees.SYMBOLS[10:14]]
    assert homogeneous(symbols[10:14], 3000 * per_tree * np.array(published))
    assert scipy.stats.chisquare(symbols[:10]).pvalue > SIGNIFICANCE  # digits are uniform
    words = np.array([[source.split().count(word) for word in trees.SYMBOLS] for source, _ in rows_of(SAMPLE)])
    share = symbols[:10].sum() / symbols.sum()  # of digits among symbols; trees differ in it by little
    ratios = words[:, :10].sum(1) / words.sum(1)
    assert ratios.mean() == pytest.approx(share, abs=4 * ratios.std() / np.sqrt(len(ratios)))


def test_as_many_trees_are_accepted_as_published():
    grown, rate = 30_000, distribution()["accept_rate"]
    accepted = len(trees.shapes(np.random.RandomState(2), grown)[0]) / grown
    error = np.sqrt(rate * (1 - rate) * (1 / grown + rate / 3000))
    assert accepted == pytest.approx(rate, abs=scipy.stats.norm.isf(SIGNIFICANCE / 2) * error)
