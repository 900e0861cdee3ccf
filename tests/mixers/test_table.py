"""The table in docs/mixers.md against what the mixers declare."""

import dataclasses
import pathlib

import pytest

from s5jax import mixers

ROOT = pathlib.Path(__file__).parents[2]
NAMES = sorted(path.stem for path in (ROOT / "s5jax/mixers").glob("[!_]*.py"))


def rows():
    lines = [line for line in (ROOT / "docs/mixers.md").read_text().splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0].strip("`"): row[3:] for row in cells}


def test_every_mixer_has_a_row():
    assert sorted(rows()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_row_says_what_the_mixer_declares(name):
    mixer = mixers.find(name)
    options = mixer.Options()
    state, rate, reset, two = rows()[name]
    causal = mixers.ability(mixer, "CAUSAL", options)
    assert state.startswith("none") == (not causal) == (not hasattr(mixer, "step"))
    assert rate == mixers.ability(mixer, "RATE", options)
    assert (reset == "yes") == mixers.ability(mixer, "RESET", options)
    assert mixers.ability(mixer, "MASK", options)
    fields = {field.name for field in dataclasses.fields(options)}
    assert two.startswith("yes") == bool(fields & {"bidirectional", "causal"})
