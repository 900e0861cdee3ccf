"""Seeded splits against lists recorded from torch: `tests/reference/random_split.json`."""

import hashlib
import json
import pathlib

import numpy as np
import pytest

from s5jax.data.random_split import random_split

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
