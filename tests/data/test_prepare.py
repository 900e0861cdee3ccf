"""Preparation of a task made here, and what may go wrong."""

import dataclasses
import errno
import functools
import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from data_helpers import contents, prepare

from s5jax.data import prepare as preparation
from s5jax.data import store
from s5jax.data.prepare import Plan, Request
from s5jax.data.store import Format
from s5jax.data.summary import Summary, unexpected
from s5jax.data.task import DataError, Split

FORMAT = Format(
    name="toy", sizes={"train": 6, "test": 2}, length=3, num_classes=2, dtype="uint8", num_tokens=9, padded=True,
    files="toy.txt", address="nowhere",
)  # fmt: skip


def some(seed, size):
    tokens = np.random.RandomState(seed).randint(0, 9, (size, 3)).astype(np.uint8)
    return Split(tokens, np.arange(size) % 2, np.full(size, 3))


def failing(error):
    raise error


class Toy:
    """Stands for a module of s5jax.data.tasks."""

    FORMAT = FORMAT

    def __init__(self, jobs=None, **fields):
        default = {"train": [functools.partial(some, s, 2) for s in range(3)], "test": [functools.partial(some, 9, 2)]}
        self.jobs, self.fields = jobs or default, fields

    def plan(self, request):
        parts = {split: (job() for job in jobs) for split, jobs in self.jobs.items()}
        return Plan(parts=parts, origin="made here", **self.fields)


@pytest.fixture
def toy(monkeypatch):
    def install(*args, **fields):
        monkeypatch.setattr(preparation, "find", lambda name: Toy(*args, **fields))

    install()
    return install


def test_examples_are_written_in_order(tmp_path, toy):
    source = tmp_path / "source"
    source.write_text("official")
    toy(sources=[source])
    prepare("toy", tmp_path, subset=False)
    stored = store.read(FORMAT, tmp_path)
    expected = np.concatenate([some(seed, 2).inputs for seed in range(3)])
    np.testing.assert_array_equal(stored.splits["train"].inputs, expected)
    assert stored.splits["train"].inputs.dtype == np.uint8 and isinstance(stored.splits["train"].inputs, np.memmap)
    manifest = json.loads((tmp_path / "prepared/toy/manifest.json").read_text())
    assert manifest["splits"]["train"]["classes"] == [3, 3] and manifest["origin"] == "made here"
    assert manifest["sources"] == {"source": hashlib.sha256(b"official").hexdigest()}
    assert [path.name for path in (tmp_path / "prepared").iterdir()] == ["toy"]
    # The files are those that NumPy writes.
    for split in ("train", "test"):
        for field, values in stored.splits[split].arrays.items():
            np.save(tmp_path / "again.npy", values)
            file = tmp_path / f"prepared/toy/{split}.{field}.npy"
            assert file.read_bytes() == (tmp_path / "again.npy").read_bytes()
            assert manifest["splits"][split]["sha256"][field] == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_second_call_does_nothing_and_another_request_is_refused(tmp_path, toy):
    prepare("toy", tmp_path)
    before = contents(tmp_path)
    (line,) = prepare("toy", tmp_path)
    assert "is there already (made here)" in line
    with pytest.raises(DataError, match=r"toy: there already, prepared with subset True; --force replaces it"):
        prepare("toy", tmp_path, subset=False)
    with pytest.raises(DataError, match=r"toy: there already, prepared with tfds None; --force replaces it"):
        prepare("toy", tmp_path, tfds_dir=tmp_path)
    assert contents(tmp_path) == before
    toy({"train": [functools.partial(some, 5, 6)], "test": [functools.partial(some, 9, 2)]})
    prepare("toy", tmp_path, force=True)
    np.testing.assert_array_equal(store.read(FORMAT, tmp_path).splits["train"].inputs, some(5, 6).inputs)
    assert [path.name for path in (tmp_path / "prepared").iterdir()] == ["toy"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), DataError("damaged"), SystemExit(143)])
def test_a_failure_leaves_what_was_there(tmp_path, toy, error):
    bad = {"train": [functools.partial(some, 5, 6)], "test": [functools.partial(failing, error)]}
    toy(bad)
    with pytest.raises(type(error)):
        prepare("toy", tmp_path)
    assert list((tmp_path / "prepared").iterdir()) == []
    toy()
    prepare("toy", tmp_path)
    before = contents(tmp_path)
    toy(bad)
    with pytest.raises(type(error)):
        prepare("toy", tmp_path, force=True)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EACCES])
def test_a_full_disk_leaves_what_was_there(tmp_path, toy, monkeypatch, code):
    prepare("toy", tmp_path)
    before = contents(tmp_path)

    def full(*_):
        raise OSError(code, os.strerror(code), str(tmp_path / "some file"))

    monkeypatch.setattr(preparation, "_append", full)
    with pytest.raises(OSError, match=f"{os.strerror(code)}: .*some file"):
        prepare("toy", tmp_path, force=True)
    assert contents(tmp_path) == before


def test_a_failed_move_puts_the_old_store_back(tmp_path, toy, monkeypatch):
    prepare("toy", tmp_path)
    before, good = contents(tmp_path), pathlib.Path.rename
    monkeypatch.setattr(
        pathlib.Path, "rename", lambda a, b: failing(KeyboardInterrupt()) if a.name == "store" else good(a, b)
    )
    with pytest.raises(KeyboardInterrupt):
        prepare("toy", tmp_path, force=True)
    assert contents(tmp_path) == before


def prepares_too(folder):
    """Returns test examples after it has prepared the same task, as another process may."""
    jobs = {"train": [functools.partial(some, 7, 6)], "test": [functools.partial(some, 9, 2)]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparation, "find", lambda name: Toy(jobs))
        prepare("toy", folder)
    return some(9, 2)


def test_of_two_at_once_the_last_one_counts(tmp_path, toy):
    toy({"train": [functools.partial(some, 5, 6)], "test": [functools.partial(prepares_too, tmp_path)]})
    prepare("toy", tmp_path)
    np.testing.assert_array_equal(store.read(FORMAT, tmp_path).splits["train"].inputs, some(5, 6).inputs)
    assert [path.name for path in (tmp_path / "prepared").iterdir()] == ["toy"]


def test_what_a_killed_preparation_leaves_is_deleted_and_an_old_store_comes_back(tmp_path, toy):
    prepare("toy", tmp_path)
    before = contents(tmp_path)
    left = tmp_path / "prepared/.toy-abc"
    (left / "store").mkdir(parents=True)
    (tmp_path / "prepared/toy").rename(left / "replaced")  # killed between the two moves
    assert any("is there already" in line for line in prepare("toy", tmp_path))
    assert contents(tmp_path) == before
    (left / "store").mkdir(parents=True)
    prepare("toy", tmp_path, force=True)
    assert contents(tmp_path).keys() == before.keys()


def test_what_a_running_preparation_has_made_is_left_alone(tmp_path, toy):
    left = tmp_path / "prepared/.toy-abc"
    (left / "store").mkdir(parents=True)
    with preparation._locked(left, wait=True) as alone:
        assert alone
        prepare("toy", tmp_path)
        assert (left / "store").exists()


@pytest.mark.parametrize("field", ["inputs", "labels", "lengths"])
@pytest.mark.parametrize("large", [False, True])
def test_a_change_of_what_is_read_is_noticed(tmp_path, toy, monkeypatch, large, field):
    monkeypatch.setattr(store, "is_large", lambda path: large)
    prepare("toy", tmp_path)
    store.read(FORMAT, tmp_path)
    file = tmp_path / f"prepared/toy/test.{field}.npy"
    whole = bytearray(file.read_bytes())
    whole[-1] ^= 1
    file.write_bytes(whole)
    with pytest.raises(DataError, match=rf"test\.{field}\.npy: changed since it was written; run .* --force"):
        store.read(FORMAT, tmp_path)
    store.read(FORMAT, tmp_path, verify=False)


def test_blocks_of_a_large_file_show_a_change_of_any_page(tmp_path):
    file = tmp_path / "large"
    file.write_bytes(bytes(40_000))
    before = store.sha256_of_blocks(file)
    for place in (0, 4096, 19_999, 39_999):
        file.write_bytes(bytes(place) + b"x" + bytes(39_999 - place))
        assert store.sha256_of_blocks(file) != before
    file.write_bytes(bytes(40_001))
    assert store.sha256_of_blocks(file) != before


@pytest.mark.slow
def test_a_killed_program_leaves_no_store(tmp_path):
    script = pathlib.Path(__file__).parents[2] / "scripts/prepare_data.py"
    options = ["--generate", "--sizes", "1000000", "10", "10", f"--data_dir={tmp_path}"]

    def files():
        return set((tmp_path / "prepared").rglob("*.npy"))

    for number in (signal.SIGKILL, signal.SIGTERM):
        before = files()
        with subprocess.Popen([sys.executable, script, "listops", *options]) as process:
            while files() == before:  # a million examples are far from written when the first of them are
                assert process.poll() is None
                time.sleep(0.01)
            process.send_signal(number)
        assert process.returncode == {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 128 + signal.SIGTERM}[number]
        assert not (tmp_path / "prepared/listops").exists()
    assert len(list((tmp_path / "prepared").iterdir())) == 1  # of the first


def test_a_folder_that_is_not_a_store_is_left_alone(tmp_path, toy):
    notes = tmp_path / "prepared/toy/notes"
    notes.parent.mkdir(parents=True)
    notes.write_text("mine")
    with pytest.raises(DataError, match="prepared/toy: not a store of s5jax; move it away"):
        prepare("toy", tmp_path, force=True)
    assert notes.read_text() == "mine"


def test_a_split_needs_examples(tmp_path, toy):
    toy({"train": [functools.partial(some, 0, 2)], "test": [functools.partial(some, 0, 0)]})
    with pytest.raises(DataError, match="toy: the split test would have no examples"):
        prepare("toy", tmp_path)
    assert list((tmp_path / "prepared").iterdir()) == []


def test_numbers_of_examples_are_checked_unless_a_subset_is_asked_for(tmp_path, toy):
    toy({"train": [functools.partial(some, 0, 5)], "test": [functools.partial(some, 9, 2)]})
    message = r"toy: train has 5 examples, the official files 6: files are missing or cut off"
    with pytest.raises(DataError, match=message):
        prepare("toy", tmp_path, subset=False)
    assert not (tmp_path / "prepared/toy").exists()
    prepare("toy", tmp_path)
    assert len(store.read(FORMAT, tmp_path).splits["train"]) == 5


def test_numbers_of_each_class_are_checked():
    few = dataclasses.replace(FORMAT, sizes={"test": 40}, classes={"test": (19, 21)})
    summary = Summary(few)
    summary.add(some(0, 40), "")
    (line,) = unexpected(few, {"test": summary}, {})
    assert line == "test has [20, 20] examples of each class, the official files [19, 21]: these are other data"


def bad(field, value):
    return dataclasses.replace(some(0, 2), **{field: value})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("labels", np.array([0, 2]), r"toy, train, part 0: label 2 of example 1 is outside 0\.\.1"),
        ("inputs", np.full((2, 3), 9, np.uint8), r"token 9 of example 0 is outside 0\.\.8"),
        ("inputs", np.zeros((2, 3), np.int64), r"inputs are int64 \(2, 3\), not uint8 \(2, 3\)"),
        ("inputs", np.zeros((2, 4), np.uint8), r"inputs are uint8 \(2, 4\), not uint8 \(2, 3\)"),
        ("lengths", np.array([3, 0]), r"length 0 of example 1 is outside 1\.\.3"),
        ("lengths", None, "lengths are missing"),
    ],
)
def test_examples_that_are_not_of_the_format(tmp_path, toy, field, value, message):
    toy({"train": [functools.partial(bad, field, value)]})
    with pytest.raises(DataError, match=message):
        prepare("toy", tmp_path)


def test_requests_that_do_not_fit_the_task(tmp_path, toy, monkeypatch):
    for fields, message in [
        ({"seed": 3}, "toy: --seed and --sizes are for generated examples; add --generate"),
        ({"sizes": {"train": 1}}, "toy: --seed and --sizes are for generated examples; add --generate"),
        ({"generate": True}, "toy: there is no generator; get the official files from nowhere"),
        ({"tfds_dir": tmp_path}, "toy: not read from TFDS; get the official files from nowhere"),
    ]:
        with pytest.raises(DataError, match=message):
            prepare("toy", tmp_path, **fields)
    monkeypatch.undo()
    for seed in (-1, 2**32):
        with pytest.raises(DataError, match=rf"--seed={seed}: must lie in 0\.\.4294967295"):
            prepare("listops", tmp_path, generate=True, seed=seed)
    with pytest.raises(DataError, match=r"unknown task 'imagenet'; tasks to prepare: image, listops"):
        prepare("imagenet", tmp_path)


def test_check_of_a_store(tmp_path, toy):
    prepare("toy", tmp_path, subset=False)
    request = Request(data_dir=tmp_path)
    found, wrong = preparation.check("toy", request)
    assert wrong == [] and found[1] == "train: 6 examples, 3 of each class, lengths 3 to 3, mean 3.0"
    before = contents(tmp_path)
    file = tmp_path / "prepared/toy/test.inputs.npy"
    whole = bytearray(file.read_bytes())
    whole[-1] = (whole[-1] + 1) % 9
    file.write_bytes(whole)
    _, wrong = preparation.check("toy", request)
    assert wrong == [f"{file}: changed since it was written; prepare the task again with --force"]
    file.write_bytes(whole[:-2])
    with pytest.raises(DataError, match=r"test\.inputs\.npy: cannot be read .* --force"):
        preparation.check("toy", request)
    assert contents(tmp_path).keys() == before.keys()


def test_check_of_official_files_and_of_nothing(tmp_path, toy, monkeypatch):
    found, wrong = preparation.check("toy", Request(data_dir=tmp_path))
    assert "no store in" in found[0] and found[1].startswith("train: 6 examples") and wrong == []
    toy({"train": [functools.partial(some, 0, 5)], "test": [functools.partial(some, 9, 2)]})
    _, (line,) = preparation.check("toy", Request(data_dir=tmp_path))
    assert line.startswith("train has 5 examples, the official files 6")
    assert preparation.check("toy", Request(data_dir=tmp_path, subset=True))[1] == []
    assert not (tmp_path / "prepared").exists()
    monkeypatch.undo()
    with pytest.raises(DataError, match=r"listops: no official files in"):
        preparation.check("listops", Request(data_dir=tmp_path))
    with pytest.raises(DataError, match=r"prepared/listops: no store to check; prepare it first"):
        preparation.check("listops", Request(data_dir=tmp_path, generate=True))


def test_stores_that_are_not_there_or_damaged(tmp_path, toy):
    with pytest.raises(DataError, match=r"toy has not been prepared in .*: run `python scripts/prepare_data\.py toy"):
        store.read(FORMAT, tmp_path)
    prepare("toy", tmp_path)
    manifest = tmp_path / "prepared/toy/manifest.json"
    for content, message in [
        ("{", "manifest.json: damaged"),
        (json.dumps({"version": 0}), "manifest.json: version 0, not 1"),
        ("{}", "manifest.json: damaged"),
        ("[]", "manifest.json: damaged"),
        (json.dumps({"version": 1}), "manifest.json: damaged"),
    ]:
        manifest.write_text(content)
        with pytest.raises(DataError, match=f"{message}.* --force"):
            store.read(FORMAT, tmp_path)


def test_tasks_that_are_prepared():
    assert set(preparation.task_names()) == {
        "listops", "text", "retrieval", "image", "pathfinder", "pathx", "scifar", "smnist", "sfashion",
        "speech_commands", "sc10", "spoken_digits",
    }  # fmt: skip
