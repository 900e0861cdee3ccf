"""Texts as tokens: what is cut where, vocabularies, and texts that cannot be used."""

import hashlib

import numpy as np
import pytest

from s5jax.data import language
from s5jax.data.task import DataError
from s5jax.data.tasks import text_file


def load(path, **options):
    return text_file.load(text_file.Options(path=str(path), **options))


def flat(split, field):
    """All tokens of a split, without the padding."""
    lengths = split.lengths if split.lengths is not None else [split.inputs.shape[1]] * len(split)
    return [token for row, length in zip(getattr(split, field), lengths, strict=True) for token in row[:length]]


def test_bytes_are_cut_into_parts_and_sequences(tmp_path):
    text = bytes(np.random.default_rng(0).integers(0, 256, 1000, np.uint8))
    (tmp_path / "a").write_bytes(text)
    task = load(tmp_path / "a", context=32, val_share=0.1, test_share=0.2)
    parts = {"train": text[:700], "val": text[700:800], "test": text[800:]}
    for name, part in parts.items():
        split = task.splits[name]
        assert split.inputs.shape[1] == 32 and split.inputs.dtype == np.uint8
        assert bytes(flat(split, "inputs")) == part[:-1] and bytes(flat(split, "labels")) == part[1:]
    assert (task.num_tokens, task.length, task.per_step, task.judge) == (256, 32, True, ("loss", "min"))
    assert task.facts["sha256"] == hashlib.sha256(hashlib.sha256(text).digest()).hexdigest()


def test_a_whole_number_of_sequences_is_not_padded(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 65)
    task = load(tmp_path / "a", context=8, val_path=str(tmp_path / "a"), test_path=str(tmp_path / "a"))
    assert task.splits["train"].inputs.shape == (8, 8) and task.splits["train"].lengths is None


def test_characters_are_numbered_by_how_often_they_occur(tmp_path):
    (tmp_path / "train").write_text("aabébéb" * 3)
    (tmp_path / "other").write_text("abéz" * 3)
    files = {"val_path": str(tmp_path / "other"), "test_path": str(tmp_path / "other")}
    task = load(tmp_path / "train", tokens="characters", context=4, **files)
    assert task.facts["vocabulary"] == language.UNKNOWN + "baé"  # a and é are as frequent: the lesser code point first
    assert flat(task.splits["train"], "inputs")[:7] == [2, 2, 1, 3, 1, 3, 1]
    assert flat(task.splits["val"], "labels")[:3] == [1, 3, 0]
    assert language.decode(language.encode("bébé", task.facts), task.facts) == "bébé"
    with pytest.raises(DataError, match="the character 'z' is not in the vocabulary"):
        language.encode("az", task.facts)


def test_bytes_are_read_and_written_as_utf_8(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 1000)
    facts = load(tmp_path / "a", context=8).facts
    assert language.decode(language.encode("é", facts), facts) == "é"
    assert language.decode(np.array([0xFF, 65]), facts) == "\ufffdA"


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (None, {}, "cannot be read: No such file"),
        (b"", {}, "has 0 bytes, not more than the context"),
        (b"x" * 100, {"context": 64}, r"the part for test has 5 bytes, not more than the context of 64"),
        (b"\xff" * 100, {"tokens": "characters"}, "is not UTF-8"),
    ],
)
def test_a_text_that_cannot_be_used(tmp_path, text, options, message):
    if text is not None:
        (tmp_path / "a").write_bytes(text)
    with pytest.raises(DataError, match=message):
        load(tmp_path / "a", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context": 0}, "context must be at least 1"),
        ({"val_share": 0.0}, "val_share must lie between 0 and 1"),
        ({"val_share": 0.5, "test_share": 0.5}, "leave nothing to train on"),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        text_file.Options(path="a", **options)


def test_a_text_must_be_named():
    with pytest.raises(DataError, match="path=FILE"):
        text_file.load(text_file.Options())
