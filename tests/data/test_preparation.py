"""From official files, written here in their layouts, to stores; and what may be wrong on the way."""

import dataclasses
import errno
import fcntl
import functools
import gzip
import hashlib
import io
import json
import os
import pathlib
import pickle
import struct
import tarfile
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from s5jax.data import (
    characters,
    cifar10,
    idx,
    image,
    official,
    preparation,
    retrieval,
    scifar,
    sfashion,
    smnist,
    store,
    text,
)
from s5jax.data.preparation import Plan, Request
from s5jax.data.store import Arrays, Format
from s5jax.data.summary import Summary, unexpected
from s5jax.data.task import DataError

RNG = np.random.default_rng(0)


def prepare(name, folder, **fields):
    force = fields.pop("force", False)
    lines = []
    request = Request(data_dir=folder, **{"subset": True, **fields})
    preparation.prepare(name, request, force=force, say=lines.append, quiet=True)
    return lines


def loaded(module, folder, *options):
    return module.load(store.read(module.FORMAT, folder), *options)


# CIFAR-10


def write_cifar(folder, sizes=(20,) * 5 + (10,), python=False):
    """Returns the pixels (N, 3, 1024) and labels of the training files, and of the test file."""
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    where = folder / ("cifar-10-batches-py" if python else "cifar-10-batches-bin")
    where.mkdir()
    batches = []
    for name, n in zip(names, sizes, strict=True):
        pixels, labels = RNG.integers(0, 256, (n, 3072), np.uint8), RNG.integers(0, 10, n, np.uint8)
        if python:
            batch = {b"data": pixels, b"labels": labels.tolist(), b"batch_label": name.encode()}
            (where / name).write_bytes(pickle.dumps(batch, protocol=2))
        else:
            (where / f"{name}.bin").write_bytes(np.concatenate([labels[:, None], pixels], 1).tobytes())
        batches.append((pixels.reshape(n, 3, 1024), labels))
    train = tuple(np.concatenate(x) for x in zip(*batches[:5], strict=True))
    return train, batches[5]


@pytest.mark.parametrize("python", [False, True])
def test_cifar(tmp_path, python):
    (pixels, labels), (test_pixels, test_labels) = write_cifar(tmp_path, python=python)
    prepare("image", tmp_path)
    prepare("scifar", tmp_path)
    colour, grey = loaded(scifar, tmp_path), loaded(image, tmp_path)
    assert {n: len(s) for n, s in colour.splits.items()} == {"train": 90, "val": 10, "test": 10}
    np.testing.assert_array_equal(colour.splits["test"].inputs, test_pixels.transpose(0, 2, 1))
    np.testing.assert_array_equal(colour.splits["test"].labels, test_labels)
    # Every training image is in one of two splits, with its label.
    parts = [colour.splits["train"], colour.splits["val"]]
    found = {x.tobytes(): y for s in parts for x, y in zip(np.asarray(s.inputs), s.labels, strict=True)}
    assert found == {x.T.tobytes(): y for x, y in zip(pixels, labels, strict=True)}
    # ITU-R 601-2: within the rounding of fixed point of the real-valued formula, and exactly Pillow's.
    r, g, b = np.moveaxis(np.asarray(colour.splits["test"].inputs, np.float64), -1, 0)
    luma = grey.splits["test"].inputs[..., 0]
    assert np.abs(luma - (0.299 * r + 0.587 * g + 0.114 * b)).max() <= 0.51
    pillow = pytest.importorskip("PIL.Image")
    rows = [pillow.fromarray(x.reshape(32, 32, 3)).convert("L") for x in np.asarray(colour.splits["test"].inputs)]
    np.testing.assert_array_equal(luma, np.stack([np.asarray(row).ravel() for row in rows]))
    # Normalised as published.
    scaled = np.asarray(grey.prepare(jnp.array([[[0], [255]]], jnp.uint8)), np.float64).ravel()
    np.testing.assert_allclose(scaled, [-122.6 / 61, (255 - 122.6) / 61], rtol=1e-6)
    white = np.asarray(colour.prepare(jnp.full((1, 1, 3), 255, jnp.uint8)), np.float64).ravel()
    expected = [(1 - m) / s for m, s in zip((0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261), strict=True)]
    np.testing.assert_allclose(white, expected, rtol=1e-6)


def test_statistics_of_values(tmp_path):
    write_cifar(tmp_path)
    prepare("scifar", tmp_path)
    stored = store.read(scifar.FORMAT, tmp_path)
    pixels = np.asarray(stored.splits["train"].inputs, np.float64)
    statistics = stored.facts["statistics"]["train"]
    np.testing.assert_allclose(statistics["mean"], pixels.mean((0, 1)), rtol=1e-12)
    np.testing.assert_allclose(statistics["std"], pixels.std((0, 1)), rtol=1e-9)


class Malicious:
    def __reduce__(self):
        return os.system, ("touch executed",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data_batch_2.bin", bytes(3072), r"data_batch_2\.bin has 3072 bytes, no multiple of 3073"),
        ("test_batch.bin", b"", r"test_batch\.bin has 0 bytes"),
        ("test_batch.bin", b"\x0b" + bytes(3072), r"test_batch\.bin: image 0 has the label 11, not one of 0\.\.9"),
        (
            "test_batch.bin",
            None,
            r"test_batch\.bin is missing; not all official files of task image .*cs\.toronto\.edu",
        ),
    ],
)
def test_broken_cifar(tmp_path, name, content, message):
    write_cifar(tmp_path)
    file = tmp_path / "cifar-10-batches-bin" / name
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(DataError, match=message):
        prepare("image", tmp_path)
    assert not (tmp_path / "prepared/image").exists()


def test_pickles_are_read_but_not_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_cifar(tmp_path, python=True)
    batch = tmp_path / "cifar-10-batches-py/data_batch_3"
    whole = batch.read_bytes()
    for content, message in [
        (pickle.dumps(Malicious()), r"data_batch_3: the pickle asks for posix\.system, which is not executed"),
        (whole[:5000], "data_batch_3 is no batch of CIFAR-10's Python version"),
        (pickle.dumps({b"labels": [1]}), "data_batch_3 is no batch of CIFAR-10's Python version"),
    ]:
        batch.write_bytes(content)
        with pytest.raises(DataError, match=message):
            prepare("image", tmp_path)
    assert not (tmp_path / "executed").exists()


# MNIST


def idx_bytes(array):
    return struct.pack(f">BBBB{array.ndim}i", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_mnist(folder, packed):
    folder.mkdir()
    pack, suffix = (gzip.compress, ".gz") if packed else (bytes, "")
    test = RNG.integers(0, 256, (10, 28, 28), np.uint8), RNG.integers(0, 10, 10, np.uint8)
    train = RNG.integers(0, 256, (30, 28, 28), np.uint8), RNG.integers(0, 10, 30, np.uint8)
    for part, (images, labels) in (("train", train), ("t10k", test)):
        (folder / f"{part}-images-idx3-ubyte{suffix}").write_bytes(pack(idx_bytes(images)))
        (folder / f"{part}-labels-idx1-ubyte{suffix}").write_bytes(pack(idx_bytes(labels)))
    return test


@pytest.mark.parametrize(("module", "folder", "packed"), [(smnist, "mnist", False), (sfashion, "fashion-mnist", True)])
def test_mnist_and_fashion(tmp_path, module, folder, packed):
    images, labels = write_mnist(tmp_path / folder, packed)
    prepare(module.FORMAT.name, tmp_path)
    options = (smnist.Options(),) if module is smnist else ()
    task = loaded(module, tmp_path, *options)
    assert {n: len(s) for n, s in task.splits.items()} == {"train": 27, "val": 3, "test": 10}
    np.testing.assert_array_equal(task.splits["test"].inputs, images.reshape(10, 784, 1))
    np.testing.assert_array_equal(task.splits["test"].labels, labels)
    np.testing.assert_allclose(task.prepare(jnp.array([[[255], [51]]], jnp.uint8)), [[[1], [0.2]]], rtol=1e-6)


def test_permuted_mnist_is_bit_reversed(tmp_path):
    images, _ = write_mnist(tmp_path / "mnist", False)
    prepare("smnist", tmp_path)
    task = loaded(smnist, tmp_path, smnist.Options(permuted=True))
    pixels = np.asarray(task.prepare(jnp.asarray(task.splits["test"].inputs)))[..., 0]
    # The order of a decimation-in-time FFT of 1,024 points, without the points beyond 783.
    order = np.array([0])
    while len(order) < 1024:
        order = np.concatenate([2 * order, 2 * order + 1])
    order = order[order < 784]
    assert order[:4].tolist() == [0, 512, 256, 768] and sorted(order) == list(range(784))
    np.testing.assert_allclose(pixels, images.reshape(10, 784)[:, order] / np.float32(255), rtol=1e-6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx_bytes(np.zeros((30, 28, 28), np.uint8))[:-9], r"says it holds \(30, 28, 28\), but 23511 bytes follow"),
        (b"\x1f\x8b" + bytes(30), r"is no IDX file of bytes: it begins with 1f8b0000"),
        (b"", "is no IDX file of bytes"),
        (idx_bytes(np.zeros((30, 28, 27), np.uint8)), "not N images of 28 x 28, N labels"),
        (idx_bytes(np.zeros((29, 28, 28), np.uint8)), "not N images of 28 x 28, N labels"),
    ],
)
def test_broken_mnist(tmp_path, content, message):
    write_mnist(tmp_path / "mnist", False)
    (tmp_path / "mnist/train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(DataError, match=message):
        prepare("smnist", tmp_path)


def test_mnist_with_wrong_labels_or_cut_off_gzip(tmp_path):
    write_mnist(tmp_path / "fashion-mnist", True)
    labels = tmp_path / "fashion-mnist/t10k-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(idx_bytes(np.full(10, 10, np.uint8))))
    with pytest.raises(DataError, match=r"example 0 has the label 10"):
        prepare("sfashion", tmp_path)
    labels.write_bytes(labels.read_bytes()[:-12])
    with pytest.raises(DataError, match=r"cannot be unpacked .* is the download complete"):
        prepare("sfashion", tmp_path)


# Text and Retrieval


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
    honest, published = loaded(text, tmp_path, text.Options()), loaded(text, tmp_path, text.Options(val_split=0.0))
    assert len(honest.splits["train"]) == 36 and len(honest.splits["val"]) == 4
    assert published.splits["val"] is published.splits["test"] and len(published.splits["train"]) == 40
    with pytest.raises(DataError, match=r"val_split 0.01 of 40 reviews leaves one part without any"):
        loaded(text, tmp_path, text.Options(val_split=0.01))
    with pytest.raises(ValueError, match=r"val_split must lie in"):
        text.Options(val_split=1.0)


def test_broken_text(tmp_path):
    write_reviews(tmp_path)
    review = tmp_path / "aclImdb/train/pos/3_9.txt"
    review.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"3_9\.txt is no UTF-8 text"):
        prepare("text", tmp_path)
    for file in (tmp_path / "aclImdb/test/pos").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"test/pos has no \*\.txt; not all official files"):
        prepare("text", tmp_path)


def write_pairs(folder, lines=None):
    where = folder / "lra_release/tsv_data"
    where.mkdir(parents=True)
    rows = lines or [f'{i % 2}.0\tA{i}\tB{i}\t"quoted" {i}\t{"long " * 1000}{i}' for i in range(9)]
    for name in ("train", "eval", "test"):
        (where / f"new_aan_pairs.{name}.tsv").write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return rows


@pytest.mark.parametrize("piece", [7, 6000, 2**25])
def test_retrieval(tmp_path, monkeypatch, piece):
    """The same whatever the pieces, even where most of them have no line."""
    monkeypatch.setattr(retrieval, "PIECE", piece)
    rows = write_pairs(tmp_path)
    if piece == 7:  # thousands of pieces of long texts would take long
        rows = write_pairs(tmp_path / "short", [row.replace("long ", "") for row in rows])
        tmp_path /= "short"
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
        ("1.0\ta\tb\tonly one text", r"train\.tsv, line at byte 0 has 4 columns, not the 5 columns label, id1"),
        ("2.0\ta\tb\tx\ty", r"train\.tsv, line at byte 0: label '2.0' is none of 0, 1, 0.0, 1.0"),
        ("", r"line at byte 0 has 1 columns"),
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
    with pytest.raises(DataError, match=r"eval\.tsv, line at byte \d+ has \d columns.* cut off or damaged"):
        prepare("retrieval", tmp_path)
    file.unlink()
    with pytest.raises(DataError, match=r"eval\.tsv is missing; not all official files"):
        prepare("retrieval", tmp_path)


# Finding and unpacking


def test_nothing_there_is_told_what_to_get_and_where_to_put_it(tmp_path):
    for name in ("image", "text", "retrieval", "smnist"):
        with pytest.raises(DataError) as error:
            prepare(name, tmp_path)
        format = preparation.find(name).FORMAT
        assert format.address in str(error.value) and f"{tmp_path}/{format.files}" in str(error.value)
        assert str(error.value).count("\n") == 0
    with pytest.raises(DataError, match=r"no task 'imagenet' to prepare; there are .*image, listops"):
        prepare("imagenet", tmp_path)


def test_folders_that_are_none(tmp_path):
    with pytest.raises(DataError, match=r"no official files of task image in .*/nowhere: get them from"):
        prepare("image", tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    prepare("listops", tmp_path / "made/here", sizes={"train": 3, "val": 1, "test": 1})
    assert len(store.read(preparation.find("listops").FORMAT, tmp_path / "made/here").splits["train"]) == 3
    (tmp_path / "data.tar").write_bytes(b"")
    with pytest.raises(DataError, match=r"data\.tar is a file, not a folder: unpack it if it is an archive"):
        prepare("image", tmp_path / "data.tar")
    with zipfile.ZipFile(tmp_path / "aclImdb", "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(DataError, match=r"aclImdb is an archive, not a folder: unpack it"):
        prepare("text", tmp_path)


def test_an_archive_beside_is_unpacked(tmp_path):
    write_cifar(tmp_path)
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "cifar-10-batches-bin", "cifar-10-batches-bin")
    os.rename(tmp_path / "cifar-10-batches-bin", tmp_path / "moved")
    prepare("image", tmp_path)
    for file in (tmp_path / "moved").iterdir():
        assert (tmp_path / "cifar-10-batches-bin" / file.name).read_bytes() == file.read_bytes()
    assert not list(tmp_path.glob(".unpacking*"))


def visible(folder):
    return {path.name for path in folder.iterdir() if not path.name.endswith(".lock")}


def evil_tar(path, name):
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("good"))
        if name == "link":
            member = tarfile.TarInfo("link")
            member.type, member.linkname = tarfile.SYMTYPE, "../../etc"
            tar.addfile(member)
        else:
            member = tarfile.TarInfo(name)
            member.size = 3
            tar.addfile(member, io.BytesIO(b"bad"))


@pytest.mark.parametrize("name", ["../outside", "a/../../outside", "/outside", "link"])
def test_members_that_point_outside_are_refused(tmp_path, name):
    folder = tmp_path / "data"
    folder.mkdir()
    evil_tar(folder / "cifar-10-binary.tar.gz", name)
    with pytest.raises(DataError, match=r"is refused, a member points outside: .* Nothing was unpacked"):
        prepare("image", folder)
    with zipfile.ZipFile(folder / "evil.zip", "w") as archive:
        archive.writestr("../outside", "bad")
    with pytest.raises(DataError, match=r"is refused, a member points outside"):
        official.unpack(folder / "evil.zip", folder)
    assert not (tmp_path / "outside").exists() and not (folder / "outside").exists()
    assert visible(folder) == {"cifar-10-binary.tar.gz", "evil.zip", "prepared"}


def test_damaged_archives_and_what_is_there_already(tmp_path):
    archive = tmp_path / "aclImdb_v1.tar.gz"
    archive.write_bytes(gzip.compress(RNG.bytes(5000))[:3000])
    with pytest.raises(DataError, match=r"cannot be unpacked .* is the download complete"):
        prepare("text", tmp_path)
    evil_tar(archive, "b")
    (tmp_path / "good").write_text("mine")
    with pytest.raises(DataError, match=r"holds good, which is in .* already: move one of them away"):
        official.unpack(archive, tmp_path)
    assert (tmp_path / "good").read_text() == "mine" and not (tmp_path / "b").exists()


def test_an_archive_with_a_bit_flipped_is_refused(tmp_path):
    """Where the contents would still make sense: only the sum at the end of the file tells."""
    write_cifar(tmp_path)
    archive = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=0) as tar:
        tar.add(tmp_path / "cifar-10-batches-bin", "cifar-10-batches-bin")
    os.rename(tmp_path / "cifar-10-batches-bin", tmp_path / "moved")
    whole = bytearray(archive.read_bytes())
    whole[len(whole) // 2] ^= 16
    archive.write_bytes(whole)
    with pytest.raises(DataError, match=r"cannot be unpacked \(CRC check failed .* is the download complete"):
        prepare("image", tmp_path)
    assert visible(tmp_path) == {"moved", "cifar-10-binary.tar.gz", "prepared"}


def test_an_archive_of_something_else_is_not_passed_over(tmp_path):
    """A generator must not step in without a word."""
    with tarfile.open(tmp_path / "lra_release.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("something/else"))
    with pytest.raises(
        DataError, match=r"lra_release\.gz was unpacked, but holds none of lra_release/lra_release/listops"
    ):
        prepare("listops", tmp_path)


def test_other_data_in_the_official_layout_are_told(tmp_path):
    write_reviews(tmp_path)
    request = Request(data_dir=tmp_path)
    _, wrong = preparation.check("text", request, quiet=True)
    assert [line.split(" examples")[0] for line in wrong[:2]] == ["train has 40", "test has 40"]
    assert "different characters, the official ones 131: these are other data" in wrong[2]
    # As many as there should be, but not the same of each class.
    few = dataclasses.replace(text.FORMAT, sizes={"test": 40}, classes={"test": (19, 21)}, characters=None)
    summary = Summary(few)
    summary.add(Arrays(np.zeros((40, 4096), np.uint8), np.arange(40) % 2, np.ones(40, np.int32)))
    (line,) = unexpected(few, {"test": summary}, {})
    assert line == "test has [20, 20] examples of each class, the official files [19, 21]: these are other data"


def test_more_characters_than_a_model_takes(tmp_path):
    row = "1.0\ta\tb\t" + "".join(map(chr, range(0x4E00, 0x4E00 + 96))) + "\ty"
    write_pairs(tmp_path, [row])
    with pytest.raises(DataError, match="retrieval: the training texts have 97 different characters, more than the 95"):
        prepare("retrieval", tmp_path)
    assert characters.vocabulary([""] * 1500 + ["abca"], 10) == ["a", "b", "c"]


def test_lines_of_pieces_are_each_read_once(tmp_path):
    file = tmp_path / "lines"
    file.write_bytes(b"one\ntwo\n\nfour\nlast")
    whole = [(0, b"one\n"), (4, b"two\n"), (8, b"\n"), (9, b"four\n"), (14, b"last")]
    for piece in range(1, 20):
        assert [x for start in range(0, 18, piece) for x in official.lines(file, start, start + piece)] == whole


# The driver, on a task of its own


FORMAT = Format(
    name="toy", sizes={"train": 6, "test": 2}, length=3, num_classes=2, dtype="uint8", num_tokens=9, padded=True,
    files="toy.txt", address="nowhere",
)  # fmt: skip


def piece(seed, size, log=None):
    if log is not None:
        with open(log, "a") as stream:
            stream.write(f"{seed}\n")
    tokens = np.random.RandomState(seed).randint(0, 9, (size, 3)).astype(np.uint8)
    return Arrays(tokens, np.arange(size) % 2, np.full(size, 3))


class Toy:
    """Stands for a module of s5jax.data."""

    FORMAT = FORMAT

    def __init__(self, pieces=None, **fields):
        default = {
            "train": [functools.partial(piece, s, 2) for s in range(3)],
            "test": [functools.partial(piece, 9, 2)],
        }
        self.made = Plan(pieces=pieces or default, origin="made here", **fields)

    def plan(self, request):
        return self.made


@pytest.fixture
def toy(monkeypatch):
    def install(*args, **fields):
        monkeypatch.setattr(preparation, "find", lambda name: Toy(*args, **fields))

    install()
    return install


def contents(folder):
    files = sorted((folder / "prepared").rglob("*"))
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files if p.is_file()}


def test_pieces_are_put_together_in_order(tmp_path, toy):
    prepare("toy", tmp_path, subset=False)
    stored = store.read(FORMAT, tmp_path)
    expected = np.concatenate([piece(seed, 2).inputs for seed in range(3)])
    np.testing.assert_array_equal(stored.splits["train"].inputs, expected)
    assert stored.splits["train"].inputs.dtype == np.uint8 and isinstance(stored.splits["train"].inputs, np.memmap)
    manifest = json.loads((tmp_path / "prepared/toy/manifest.json").read_text())
    assert manifest["splits"]["train"]["classes"] == [3, 3] and manifest["origin"] == "made here"
    assert {p.name for p in (tmp_path / "prepared").iterdir()} == {"toy", ".toy.lock"}


def test_a_second_call_does_nothing_and_another_wish_is_refused(tmp_path, toy):
    prepare("toy", tmp_path)
    before = contents(tmp_path)
    (line,) = prepare("toy", tmp_path)
    assert "there already (made here): nothing to do" in line
    with pytest.raises(DataError, match=r"is there already, prepared with subset True: --force replaces it"):
        prepare("toy", tmp_path, subset=False)
    assert contents(tmp_path) == before
    toy({"train": [functools.partial(piece, 5, 6)], "test": [functools.partial(piece, 9, 2)]})
    prepare("toy", tmp_path, force=True)
    np.testing.assert_array_equal(store.read(FORMAT, tmp_path).splits["train"].inputs, piece(5, 6).inputs)


def interrupted(seed, size, switch, log):
    if seed == 2 and not pathlib.Path(switch).exists():
        raise KeyboardInterrupt
    return piece(seed, size, log)


def test_an_interrupted_preparation_goes_on(tmp_path, toy):
    """The pieces that are done are not done again, unless something else is asked for; the result is the same."""
    switch, log = tmp_path / "switch", tmp_path / "log"
    pieces = {
        "train": [functools.partial(interrupted, s, 2, str(switch), str(log)) for s in range(3)],
        "test": [functools.partial(piece, 9, 2, str(log))],
    }
    toy(pieces)
    with pytest.raises(KeyboardInterrupt):
        prepare("toy", tmp_path)
    assert log.read_text().split() == ["0", "1"] and not (tmp_path / "prepared/toy").exists()
    switch.write_text("")
    lines = prepare("toy", tmp_path)
    assert "  going on after 2 of 4 pieces" in lines and log.read_text().split() == ["0", "1", "2", "9"]
    resumed = {name: digest for name, digest in contents(tmp_path).items() if name.endswith(".npy")}
    toy()
    prepare("toy", tmp_path, force=True)
    assert {name: digest for name, digest in contents(tmp_path).items() if name.endswith(".npy")} == resumed


def test_pieces_of_another_plan_are_not_used(tmp_path, toy):
    source = tmp_path / "source"
    source.write_text("old")
    broken = functools.partial(interrupted, 2, 2, str(tmp_path / "never"), None)
    toy({"train": [functools.partial(piece, 0, 4), broken], "test": [functools.partial(piece, 9, 2)]}, sources=[source])
    with pytest.raises(KeyboardInterrupt):
        prepare("toy", tmp_path)
    good = {
        "train": [functools.partial(piece, 7, 4), functools.partial(piece, 2, 2)],
        "test": [functools.partial(piece, 9, 2)],
    }
    toy(good, sources=[source])
    assert not any("going on" in line for line in prepare("toy", tmp_path))
    np.testing.assert_array_equal(store.read(FORMAT, tmp_path).splits["train"].inputs[:4], piece(7, 4).inputs)
    manifest = store.read_manifest(tmp_path, "toy")
    assert manifest["sources"] == {"source": hashlib.sha256(b"old").hexdigest()}


@pytest.mark.slow
def test_the_store_is_the_same_with_several_processes(tmp_path, toy):
    pieces = {"train": [functools.partial(piece, s, 2) for s in range(8)], "test": [functools.partial(piece, 9, 2)]}
    toy(pieces)
    digests = []
    for workers in (1, 2):
        request = Request(data_dir=tmp_path, subset=True)
        preparation.prepare("toy", request, workers=workers, force=True, say=lambda _: None, quiet=True)
        digests.append(contents(tmp_path))
    assert digests[0] == digests[1]


def test_a_full_disk_leaves_what_was_there(tmp_path, toy, monkeypatch):
    """The old store stays whole, and a repetition goes on where there is space again."""
    prepare("toy", tmp_path)
    before = contents(tmp_path)
    good, calls = np.savez, []

    def full(stream, **arrays):
        calls.append(stream)
        stream.write(b"half a file")
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        stream.seek(0)
        good(stream, **arrays)

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(DataError, match=r"no space left in .* for task toy: make some, and run the same command again"):
        prepare("toy", tmp_path, force=True)
    assert {k: v for k, v in contents(tmp_path).items() if "/.toy." not in k} == {
        k: v for k, v in before.items() if "/.toy." not in k
    }
    assert not list((tmp_path / "prepared").rglob("*.tmp"))
    monkeypatch.setattr(np, "savez", good)
    assert "  going on after 2 of 4 pieces" in prepare("toy", tmp_path, force=True)
    store.read(FORMAT, tmp_path)


def test_a_store_survives_a_crash_while_it_is_replaced(tmp_path, toy, monkeypatch):
    """Between the moves of the old store and of the new one, and after both."""
    prepare("toy", tmp_path)
    before = contents(tmp_path / "prepared/toy/..")
    good, moves = os.rename, []

    def crash(source, target):
        moves.append(target)
        if len(moves) == 2:
            raise KeyboardInterrupt
        good(source, target)

    monkeypatch.setattr(os, "rename", crash)
    with pytest.raises(KeyboardInterrupt):
        prepare("toy", tmp_path, force=True)
    monkeypatch.setattr(os, "rename", good)
    assert not (tmp_path / "prepared/toy").exists()
    toy({"train": [functools.partial(piece, 5, 6)], "test": [functools.partial(piece, 9, 2)]}, sources=[])
    (line,) = prepare("toy", tmp_path)
    assert "there already" in line
    after = contents(tmp_path / "prepared/toy/..")
    assert {k: v for k, v in after.items() if "/toy/" in k} == {k: v for k, v in before.items() if "/toy/" in k}
    prepare("toy", tmp_path, force=True)
    assert visible(tmp_path / "prepared") == {"toy"}


def test_a_damaged_piece_is_made_anew(tmp_path, toy):
    switch = tmp_path / "switch"
    toy({"train": [functools.partial(interrupted, s, 2, str(switch), None) for s in range(3)]})
    with pytest.raises(KeyboardInterrupt):
        prepare("toy", tmp_path)
    switch.write_text("")
    done = tmp_path / "prepared/.toy.partial/train.1.npz"
    done.write_bytes(done.read_bytes()[:100])
    with pytest.raises(DataError, match=r"train\.1\.npz was damaged, and is removed: run the same command again"):
        prepare("toy", tmp_path)
    prepare("toy", tmp_path)
    assert len(store.read(FORMAT, tmp_path).splits["train"]) == 6


def test_a_folder_that_is_no_store_is_left_alone(tmp_path, toy):
    notes = tmp_path / "prepared/toy/notes"
    notes.parent.mkdir(parents=True)
    notes.write_text("mine")
    with pytest.raises(DataError, match="prepared/toy is no store of this program: move it away"):
        prepare("toy", tmp_path, force=True)
    assert notes.read_text() == "mine"


def test_a_split_needs_examples(tmp_path, toy):
    toy({"train": [functools.partial(piece, 0, 2)], "test": [functools.partial(piece, 0, 0)]})
    with pytest.raises(DataError, match="toy: the split test would have no examples"):
        prepare("toy", tmp_path)
    assert visible(tmp_path / "prepared") == {".toy.partial"}


def test_two_at_once(tmp_path, toy):
    (tmp_path / "prepared").mkdir()
    with open(tmp_path / "prepared/.toy.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DataError, match=r"another process is preparing .*/prepared/toy: wait for it"):
            prepare("toy", tmp_path)


def test_a_folder_that_cannot_be_written_to(tmp_path, toy, monkeypatch):
    def refused(*_):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path))

    monkeypatch.setattr(os, "rename", refused)
    with pytest.raises(DataError, match=f"{tmp_path}: Permission denied"):
        prepare("toy", tmp_path)


def test_numbers_of_examples_are_checked_unless_a_subset_is_asked_for(tmp_path, toy):
    toy({"train": [functools.partial(piece, 0, 5)], "test": [functools.partial(piece, 9, 2)]})
    with pytest.raises(
        DataError, match=r"toy: train has 5 examples, the official files 6: files are missing or cut off"
    ):
        prepare("toy", tmp_path, subset=False)
    assert not (tmp_path / "prepared/toy").exists()
    prepare("toy", tmp_path)
    assert len(store.read(FORMAT, tmp_path).splits["train"]) == 5


def bad(field, value):
    return piece(0, 2)._replace(**{field: value})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("labels", np.array([0, 2]), r"toy, train, piece 0: label 2 of example 1 is outside 0\.\.1"),
        ("inputs", np.full((2, 3), 9, np.uint8), r"token 9 of example 0 is outside 0\.\.8"),
        ("inputs", np.zeros((2, 3), np.int64), r"inputs are int64 \(2, 3\), not uint8 \(2, 3\)"),
        ("inputs", np.zeros((2, 4), np.uint8), r"inputs are uint8 \(2, 4\), not uint8 \(2, 3\)"),
        ("lengths", np.array([3, 0]), r"length 0 of example 1 is outside 1\.\.3"),
        ("lengths", None, "lengths are missing"),
    ],
)
def test_pieces_that_are_not_of_the_format(tmp_path, toy, field, value, message):
    toy({"train": [functools.partial(bad, field, value)]})
    with pytest.raises(DataError, match=message):
        prepare("toy", tmp_path)


def test_examples_that_occur_twice(tmp_path, toy):
    toy({"train": [functools.partial(piece, 0, 6)], "test": [functools.partial(piece, 0, 2)]}, distinct=True)
    with pytest.raises(DataError, match=r"toy: 2 examples occur twice: choose another --seed"):
        prepare("toy", tmp_path)


def test_wishes_that_only_a_generator_can_meet(tmp_path, toy):
    for fields in ({"seed": 3}, {"sizes": {"train": 1}}, {"generate": True}):
        with pytest.raises(
            DataError, match=r"--generate, --seed and --sizes are for generated data, but here are made here"
        ):
            prepare("toy", tmp_path, **fields)


def test_check_of_a_store(tmp_path, toy):
    prepare("toy", tmp_path, subset=False)
    request = Request(data_dir=tmp_path)
    found, wrong = preparation.check("toy", request, quiet=True)
    assert wrong == [] and found[1] == "train: 6 examples, 3 of each class, lengths 3 to 3, mean 3.0"
    before = contents(tmp_path)
    file = tmp_path / "prepared/toy/test.inputs.npy"
    whole = bytearray(file.read_bytes())
    whole[-1] = (whole[-1] + 1) % 9
    file.write_bytes(whole)
    _, wrong = preparation.check("toy", request, quiet=True)
    assert wrong == [f"{file} was changed since it was written: prepare the task again with --force"]
    file.write_bytes(whole[:-2])
    with pytest.raises(DataError, match=r"test\.inputs\.npy cannot be read .* --force"):
        preparation.check("toy", request, quiet=True)
    assert contents(tmp_path).keys() == before.keys()


def test_check_of_official_files_and_of_nothing(tmp_path, toy, monkeypatch):
    write_cifar(tmp_path)
    monkeypatch.undo()
    found, wrong = preparation.check("image", Request(data_dir=tmp_path), quiet=True)
    assert "no store in" in found[0] and found[1].startswith("train: 90 examples")
    assert len(wrong) == 3 and wrong[0].startswith("train has 90 examples, the official files 45,000")
    assert preparation.check("image", Request(data_dir=tmp_path, subset=True), quiet=True)[1] == []
    assert not (tmp_path / "prepared").exists()
    with pytest.raises(DataError, match=r"nothing to check: neither a store nor official files of listops"):
        preparation.check("listops", Request(data_dir=tmp_path), quiet=True)


def test_stores_that_are_not_there_or_damaged(tmp_path, toy):
    with pytest.raises(DataError, match=r"toy has not been prepared in .*: run `python scripts/prepare_data\.py toy"):
        store.read(FORMAT, tmp_path)
    prepare("toy", tmp_path)
    manifest = tmp_path / "prepared/toy/manifest.json"
    for content, message in [
        ("{", "manifest.json is damaged"),
        (json.dumps({"version": 0}), "is of version 0, not 1"),
        ("{}", "manifest.json is damaged"),
    ]:
        manifest.write_text(content)
        with pytest.raises(DataError, match=f"{message}.* --force"):
            store.read(FORMAT, tmp_path)


def test_tasks_that_are_prepared():
    assert set(preparation.tasks()) == {
        "listops", "text", "retrieval", "image", "pathfinder", "pathx", "scifar", "smnist", "sfashion",
        "speech_commands", "sc10", "spoken_digits",
    }  # fmt: skip
    assert cifar10.SIZES["train"] + cifar10.SIZES["val"] == 50_000 and idx.SIZES["train"] == 54_000
