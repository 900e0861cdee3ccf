"""Pairs of documents in their official layout."""

import pytest
from data_helpers import prepare

from s5jax.data import store
from s5jax.data.task import DataError
from s5jax.data.tasks import retrieval


def write_pairs(folder, lines=None, place="lra_release/tsv_data"):
    where = folder / place
    where.mkdir(parents=True, exist_ok=True)
    rows = lines or [f'{i % 2}.0\tA{i}\tB{i}\t"quoted" {i}\t{"long " * 1000}{i}' for i in range(9)]
    for name in ("train", "eval", "test"):
        (where / f"new_aan_pairs.{name}.tsv").write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return rows


@pytest.mark.parametrize("size", [4, 1000])
def test_retrieval(tmp_path, monkeypatch, size):
    monkeypatch.setattr(retrieval, "PAIRS_PER_PART", size)
    rows = write_pairs(tmp_path)
    prepare("retrieval", tmp_path)
    stored = store.read(retrieval.FORMAT, tmp_path)
    task, characters = retrieval.load(stored), stored.facts["characters"]
    assert task.pairs and len(task.splits["val"]) == 9
    for tokens, label, lengths, row in zip(
        *(getattr(task.splits["val"], f) for f in ("inputs", "labels", "lengths")), rows, strict=True
    ):
        fields = row.split("\t")
        assert label == float(fields[0])
        for document, length, words in zip(tokens, lengths, fields[3:], strict=True):
            assert length == min(len(words), 3999) + 1 and document[length - 1] == 2
            assert "".join(characters[t - 3] for t in document[: length - 1]) == words[:3999]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1.0\ta\tb\tonly one text", r"train\.tsv, line 1: 4 columns instead of label, id1"),
        ("2.0\ta\tb\tx\ty", r"train\.tsv, line 1: label '2.0' is not one of 0, 1, 0.0, 1.0"),
        ("", r"line 1: 1 columns"),
    ],
)
def test_broken_retrieval(tmp_path, row, message):
    write_pairs(tmp_path, [row])
    with pytest.raises(DataError, match=message):
        prepare("retrieval", tmp_path)
    assert not (tmp_path / "prepared/retrieval").exists()


def test_retrieval_with_a_file_missing_or_cut_off(tmp_path):
    write_pairs(tmp_path)
    file = tmp_path / "lra_release/tsv_data/new_aan_pairs.eval.tsv"
    file.write_bytes(file.read_bytes()[:-5010])
    with pytest.raises(DataError, match=r"eval\.tsv, line 9: \d columns.* damaged or cut off"):
        prepare("retrieval", tmp_path)
    file.unlink()
    with pytest.raises(DataError, match=r"retrieval: .*/tsv_data lacks new_aan_pairs\.eval\.tsv; get them from"):
        prepare("retrieval", tmp_path)


def test_more_characters_than_a_model_takes(tmp_path):
    row = "1.0\ta\tb\t" + "".join(map(chr, range(0x4E00, 0x4E00 + 96))) + "\ty"
    write_pairs(tmp_path, [row])
    with pytest.raises(DataError, match="retrieval: 97 different characters in training, more than the 95"):
        prepare("retrieval", tmp_path)


@pytest.mark.parametrize("place", ["lra_release/lra_release/tsv_data", "tsv_data", "aan", "."])
def test_other_folders(tmp_path, place):
    write_pairs(tmp_path, ["1.0\ta\tb\tx\ty"], place)
    assert str(tmp_path / place) in prepare("retrieval", tmp_path)[0]
