"""enwik8, text8 and WikiText-103 from small files in the layouts of the official ones."""

import zipfile

import numpy as np
import pytest

from s5jax.data import language
from s5jax.data.task import DataError
from s5jax.data.tasks import enwik8, text8, wikitext103

TEXT = "the quick brown fox jumps over the lazy dog " * 50


def tokens(split):
    lengths = split.lengths if split.lengths is not None else [split.inputs.shape[1]] * len(split)
    return np.concatenate([row[:length] for row, length in zip(split.inputs, lengths, strict=True)])


@pytest.mark.parametrize("task", [enwik8, text8])
@pytest.mark.parametrize("layout", ["file", "folder", "archive", "archive-in-folder"])
def test_layouts_and_splits(tmp_path, task, layout):
    name = task.__name__.rpartition(".")[2]
    path = tmp_path if "folder" in layout else tmp_path / (f"{name}.zip" if layout == "archive" else name)
    if "archive" in layout:
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            archive.writestr(name, TEXT)
    else:
        (tmp_path / name).write_text(TEXT)
    loaded = task.load(task.Options(path=str(path), context=16, any_file=True))
    n = len(TEXT)
    expected = {
        "train": TEXT[: n * 90 // 100],
        "val": TEXT[n * 90 // 100 : n * 95 // 100],
        "test": TEXT[n * 95 // 100 :],
    }
    for split, part in expected.items():
        found = tokens(loaded.splits[split])
        shown = bytes(found.tolist()).decode() if task is enwik8 else "".join(text8.VOCABULARY[i] for i in found)
        assert shown == part[:-1]
    assert loaded.num_tokens == (256 if task is enwik8 else 28)


@pytest.mark.parametrize("task", [enwik8, text8])
def test_another_file_is_refused(tmp_path, task):
    name = task.__name__.rpartition(".")[2]
    with pytest.raises(DataError, match=f"holds neither {name} nor {name}.zip: get the archive from http"):
        task.load(task.Options(path=str(tmp_path / name)))
    (tmp_path / name).write_text(TEXT)
    with pytest.raises(DataError, match=f"is not the official {name}: 2,200 bytes, whose (SHA256|MD5) differs"):
        task.load(task.Options(path=str(tmp_path / name)))


def test_text8_has_27_characters(tmp_path):
    (tmp_path / "text8").write_text(TEXT + "!")
    with pytest.raises(DataError, match="other characters than a to z and space"):
        text8.load(text8.Options(path=str(tmp_path), any_file=True))


@pytest.mark.parametrize("archived", [False, True])
def test_words(tmp_path, archived):
    texts = {
        "train": " \n = A title = \n \n the cat <unk> the dog \n",
        "valid": " the bird \n",
        "test": " the dog the dog \n",
    }
    if archived:
        with zipfile.ZipFile(tmp_path / "wikitext-103-v1.zip", "w") as archive:
            for part, text in texts.items():
                archive.writestr(f"wikitext-103/wiki.{part}.tokens", text)
    else:
        for part, text in texts.items():
            (tmp_path / f"wiki.{part}.tokens").write_text(text)
    options = wikitext103.Options(path=str(tmp_path), context=2, any_file=True)
    for _ in range(2):  # the second time from tokens.npz
        task = wikitext103.load(options)
        words = task.facts["vocabulary"]
        assert words[:4] == ["<eos>", "=", "the", "<unk>"] and len(words) == task.num_tokens == 8
        train = [words[i] for i in tokens(task.splits["train"])]
        assert train == ["<eos>", "=", "A", "title", "=", "<eos>", "<eos>", "the", "cat", "<unk>", "the", "dog"]
        assert [words[i] for i in tokens(task.splits["val"])] == ["the", "<unk>"]
        assert (tmp_path / "tokens.npz").is_file()
        assert language.decode(language.encode(" the  cat\n", task.facts), task.facts) == " the cat"
    if not archived:
        (tmp_path / "wiki.valid.tokens").write_text(" a cat <unk> \n")
        val = wikitext103.load(options).splits["val"]
        assert [words[i] for i in tokens(val)] == ["<unk>", "cat", "<unk>"]
