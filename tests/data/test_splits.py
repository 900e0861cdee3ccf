"""Seeded splits; torch's against lists recorded from torch in `tests/reference/random_split.json`."""

import hashlib
import json
import pathlib

import numpy as np
import pytest
import scipy.stats

from s5jax.data.splits import random_split, stratified_split

REFERENCE = pathlib.Path(__file__).parent.parent / "reference" / "random_split.json"
RECORDED = json.loads(REFERENCE.read_text())["splits"]


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda case: f"{case['n']}-{case['seed']}")
def test_splits_are_those_of_torch(recorded):
    parts = random_split(recorded["n"], recorded["parts"], recorded["seed"])
    assert [len(part) for part in parts] == recorded["parts"]
    assert [part[:8].tolist() for part in parts] == recorded["first8"]
    assert [hashlib.sha256(part.astype("<i8").tobytes()).hexdigest() for part in parts] == recorded["sha256"]


@pytest.mark.parametrize(("n", "sizes"), [(0, [0, 0]), (1, [1]), (1, [0, 1]), (7, [3, 0, 4])])
def test_small_and_empty_parts(n, sizes):
    parts = random_split(n, sizes, 42)
    assert [len(part) for part in parts] == sizes
    assert np.sort(np.concatenate(parts)).tolist() == list(range(n))


def test_parts_that_do_not_add_up_are_refused():
    with pytest.raises(ValueError, match=r"parts of \[3, 4\] examples are not 8"):
        random_split(8, [3, 4], 0)
    with pytest.raises(ValueError, match=r"parts of \[3, 4\] examples are not 8"):
        stratified_split(np.zeros(8, int), [3, 4], 0)


def test_a_stratified_split_has_each_class_in_proportion():
    """Classes of very different sizes, in any order; each within two examples of its share."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(5), (3, 40, 400, 1000, 57)))
    sizes = [1050, 225, 225]
    parts = stratified_split(labels, sizes, seed=3)
    assert [len(part) for part in parts] == sizes
    assert np.sort(np.concatenate(parts)).tolist() == list(range(1500))
    assert all((np.diff(part) > 0).all() for part in parts)
    for part, size in zip(parts, sizes, strict=True):
        share = np.bincount(labels) * size / 1500
        assert np.abs(np.bincount(labels[part], minlength=5) - share).max() < 2
    again, other = stratified_split(labels, sizes, seed=3), stratified_split(labels, sizes, seed=4)
    np.testing.assert_array_equal(again[1], parts[1])
    assert len(np.intersect1d(other[1], parts[1])) < 100


def test_members_of_a_class_are_drawn_at_random():
    """Each of 20 examples is in a part of a quarter equally often: a chi-square test at 0.1 %."""
    counts = np.zeros(20)
    for seed in range(500):
        counts[stratified_split(np.repeat([0, 1], 10), [15, 5], seed)[1]] += 1
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
