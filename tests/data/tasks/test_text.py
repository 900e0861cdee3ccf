"""IMDB reviews in their official layout."""

import pytest
from data_helpers import load, prepare

from s5jax.data import store
from s5jax.data.prepare import Request, check
from s5jax.data.task import DataError
from s5jax.data.tasks import text


def write_reviews(folder, count=20):
    reviews = {}
    for split in ("train", "test"):
        for label in ("neg", "pos"):
            where = folder / "aclImdb" / split / label
            where.mkdir(parents=True)
            for i in range(count):
                review = f"{label} " * 3 + "é" * (i % 3) + "x" * 5000 * (i == 7) + "<br />" + "☃" * (split == "test")
                (where / f"{i}_{2 if label == 'neg' else 9}.txt").write_text(review, encoding="utf-8")
                reviews[split, label, i] = review
    return reviews


def test_text(tmp_path):
    reviews = write_reviews(tmp_path)
    prepare("text", tmp_path)
    stored = store.read(text.FORMAT, tmp_path)
    characters = stored.facts["characters"]
    training = [review[:4095] for (split, _, _), review in reviews.items() if split == "train"]
    counts = {c: sum(r.count(c) for r in training) for c in set("".join(training))}
    assert characters[0] == "x" and set(characters) == {c for c, n in counts.items() if n >= 15}
    assert [counts[c] for c in characters] == sorted((counts[c] for c in characters), reverse=True)
    assert "☃" not in characters
    task = text.load(stored, text.Options(val_split=0.25))
    assert {n: len(s) for n, s in task.splits.items()} == {"train": 30, "val": 10, "test": 40}
    # Back to text: what is unknown is one token, then the end, then padding.
    split = task.splits["test"]
    spelled = {3 + i: c for i, c in enumerate(characters)} | {1: "?"}
    for tokens, label, length, name in zip(
        split.inputs, split.labels, split.lengths, sorted_names(reviews), strict=True
    ):
        review = reviews["test", *name][:4095]
        assert length == len(review) + 1 and tokens[length - 1] == 2 and not tokens[length:].any()
        assert "".join(spelled[t] for t in tokens[: length - 1]) == "".join(
            c if c in characters else "?" for c in review
        )
        assert label == (name[0] == "pos")


def sorted_names(reviews):
    """Names of the files as a sorted directory has them: 10_2.txt before 1_2.txt."""
    names = {(label, i) for _, label, i in reviews}
    return sorted(names, key=lambda n: (n[0], f"{n[1]}_{2 if n[0] == 'neg' else 9}.txt"))


def test_validation_of_text_is_apart_from_the_test_unless_published(tmp_path):
    write_reviews(tmp_path)
    prepare("text", tmp_path)
    honest, published = load(text, tmp_path, text.Options()), load(text, tmp_path, text.Options(val_split=0.0))
    assert len(honest.splits["train"]) == 36 and len(honest.splits["val"]) == 4
    assert published.splits["val"] is published.splits["test"] and len(published.splits["train"]) == 40
    with pytest.raises(DataError, match=r"val_split 0.01 of 40 reviews leaves a split empty"):
        load(text, tmp_path, text.Options(val_split=0.01))
    with pytest.raises(ValueError, match=r"val_split must lie in"):
        text.Options(val_split=1.0)


def test_broken_text(tmp_path):
    write_reviews(tmp_path)
    review = tmp_path / "aclImdb/train/pos/3_9.txt"
    review.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"3_9\.txt: not UTF-8 text"):
        prepare("text", tmp_path)
    for file in (tmp_path / "aclImdb/test/pos").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"text: .*/test/pos has no \*\.txt; get them from"):
        prepare("text", tmp_path)


def test_other_reviews_are_reported(tmp_path):
    write_reviews(tmp_path)
    _, wrong = check("text", Request(data_dir=tmp_path))
    assert [line.split(" examples")[0] for line in wrong[:2]] == ["train has 40", "test has 40"]
    assert "different characters, the official ones 131: these are other data" in wrong[2]
