"""TFDS directories, written here in TFDS's own format, without TensorFlow.

Needs tensorflow-datasets, importlib_resources and array_record; skipped without them, except for a stand-in.
"""

import sys
import types

import numpy as np
import pytest
from data_helpers import contents, load, prepare

from s5jax.data import store
from s5jax.data.task import DataError
from s5jax.data.tasks import smnist, text

RNG = np.random.default_rng(0)


def examples_of(name, sizes):
    """Examples of each split as TFDS returns them, in an order of its own."""
    made = {}
    for split, size in sizes.items():
        rows = []
        for i in RNG.permutation(size):
            label = int(i % (2 if "imdb" in name else 10))
            if "imdb" in name:
                rows.append({"text": f"{('bad', 'good')[label]} film {i} ☃".encode() * 9, "label": label})
            else:
                side, channels = (32, 3) if name == "cifar10" else (28, 1)
                pixels = np.random.default_rng(i).integers(0, 256, (side, side, channels), np.uint8)
                number = {"id": f"{split}_{i:05d}".encode()} if name == "cifar10" else {}
                rows.append({"image": pixels, "label": label} | number)
        made[split] = rows
    return made


@pytest.fixture
def stand_in(monkeypatch):
    """A module tensorflow_datasets that has some data sets."""
    sizes = {"train": 50, "test": 20}
    data = {name: examples_of(name, sizes) for name in ("cifar10", "mnist", "imdb_reviews/plain_text")}

    def data_source(name, *, split, data_dir, download):
        if not download and data_dir.name == "tensorflow_datasets":
            return data[name][split]
        raise AssertionError("data set\nnot found")

    module = types.ModuleType("tensorflow_datasets")
    module.data_source = data_source
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", module)
    return data


def test_cifar_has_its_official_order(tmp_path, stand_in):
    tfds_dir = tmp_path / "tensorflow_datasets"
    (line, *_) = prepare("scifar", tmp_path, tfds_dir=tfds_dir)
    assert line == f"scifar: CIFAR-10 from {tfds_dir}/cifar10"
    folder = tmp_path / "official/cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for split, name, size in (("train", "data_batch_{}", 10), ("test", "test_batch", 20)):
        rows = sorted(stand_in["cifar10"][split], key=lambda row: row["id"])
        for i in range(0, len(rows), size):
            records = [bytes([row["label"]]) + row["image"].transpose(2, 0, 1).tobytes() for row in rows[i : i + size]]
            (folder / f"{name.format(i // size + 1)}.bin").write_bytes(b"".join(records))
    prepare("scifar", tmp_path / "official")
    ours, official = contents(tmp_path), contents(tmp_path / "official")
    assert [ours[name] for name in ours if name.endswith("npy")] == [
        official[name] for name in official if name.endswith("npy")
    ]
    assert store.fingerprint(tmp_path, "scifar") == store.fingerprint(tmp_path / "official", "scifar")


def test_mnist_has_the_order_of_tfds(tmp_path, stand_in):
    prepare("smnist", tmp_path, tfds_dir=tmp_path / "tensorflow_datasets")
    task = load(smnist, tmp_path, smnist.Options())
    assert {n: len(s) for n, s in task.splits.items()} == {"train": 45, "val": 5, "test": 20}
    for row, pixels, label in zip(stand_in["mnist"]["test"], *task.splits["test"].arrays.values(), strict=True):
        assert pixels.ravel().tolist() == row["image"].ravel().tolist() and label == row["label"]


def test_reviews_have_the_order_of_tfds(tmp_path, stand_in):
    prepare("text", tmp_path, tfds_dir=tmp_path / "tensorflow_datasets")
    stored = store.read(text.FORMAT, tmp_path)
    characters = stored.facts["characters"]
    assert "☃" in characters
    split = stored.splits["test"]
    for row, tokens, label, length in zip(
        stand_in["imdb_reviews/plain_text"]["test"], split.inputs, split.labels, split.lengths, strict=True
    ):
        words = "".join(characters[token - 3] if token > 2 else "?" for token in tokens[: length - 1])
        expected = "".join(c if c in characters else "?" for c in row["text"].decode())
        assert words == expected and label == row["label"]


def test_what_cannot_be_read(tmp_path, stand_in, monkeypatch):
    message = r"nowhere: mnist cannot be read \(data set\); tfds\.builder\('mnist', .*array_record"
    with pytest.raises(DataError, match=message):
        prepare("smnist", tmp_path, tfds_dir=tmp_path / "nowhere")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    message = r"--tfds_dir needs TensorFlow Datasets .*; install it with `pip install tensorflow-datasets"
    with pytest.raises(DataError, match=message):
        prepare("image", tmp_path, tfds_dir=tmp_path)
