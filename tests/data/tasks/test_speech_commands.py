"""Speech Commands in its official layout, with all words and with ten."""

import itertools
import tarfile

import jax.numpy as jnp
import numpy as np
import pytest
from data_helpers import join, load, prepare, unpacks_tar
from wav_files import SECOND, content, write

from s5jax.data import store
from s5jax.data.prepare import Request
from s5jax.data.readers import wav
from s5jax.data.task import DataError
from s5jax.data.tasks import sc10, speech_commands


@pytest.fixture
def commands(tmp_path):
    """Three files of each word, one of each split, in the official layout; some are not one second at 16 kHz."""
    root = tmp_path / "speech_commands_v0.02"
    for i, (word, j) in enumerate(itertools.product(speech_commands.WORDS, range(3))):
        write(root / word / f"0a1b2c{j:02d}_nohash_{j}.wav", content(i))
    write(root / "bed/0a1b2c00_nohash_0.wav", content(1000, 11000))
    write(root / "bird/0a1b2c00_nohash_0.wav", content(1001, 17000))
    write(root / "cat/0a1b2c01_nohash_1.wav", content(1002, 4000), rate=8000)
    write(root / "_background_noise_/white_noise.wav", content(1003, 50000))
    for name, j in (("validation_list.txt", 1), ("testing_list.txt", 2)):
        lines = [f"{word}/0a1b2c{j:02d}_nohash_{j}.wav\n" for word in reversed(speech_commands.WORDS)]
        (root / name).write_text("".join(lines))
    return root


def test_speech_commands(commands, monkeypatch):
    monkeypatch.setattr(wav, "FILES_PER_PART", 8)
    plan = speech_commands.plan(Request(data_dir=commands.parent))
    arrays = {split: join(parts) for split, parts in plan.parts.items()}
    assert len(speech_commands.WORDS) == 35 and list(speech_commands.WORDS) == sorted(speech_commands.WORDS)
    for j, part in enumerate(arrays.values()):
        assert part.inputs.shape == (35, SECOND, 1) and part.inputs.dtype == np.int16 and part.lengths is None
        assert part.labels.tolist() == list(range(35))
        for i in range(4, 35):
            np.testing.assert_array_equal(part.inputs[i, :, 0], content(3 * i + j))
    train, val = arrays["train"].inputs[..., 0], arrays["val"].inputs[..., 0]
    np.testing.assert_array_equal(train[1], np.append(content(1000, 11000), np.zeros(5000)))
    np.testing.assert_array_equal(train[2], content(1001, 17000)[:SECOND])
    assert np.abs(val[3, :8000:2] - content(1002, 4000)).max() < 300 and not val[3, 8000:].any()
    assert plan.facts["recordings"] == {"files": 105, "padded": 2, "cut": 1, "resampled": 1}
    assert plan.facts["classes"][6] == "eight"
    assert len(plan.sources) == 107 and all(path.is_file() for path in plan.sources)


def test_the_official_sizes_add_up():
    # 105,829 files (README of the archive), and 35 words of them.
    assert sum(speech_commands.FORMAT.sizes.values()) == 105_829
    assert sum(sc10.FORMAT.sizes.values()) == 34_975


@pytest.mark.parametrize("place", ["SpeechCommands/speech_commands_v0.02", "SpeechCommands"])
def test_speech_commands_in_other_places(commands, tmp_path, place):
    other = tmp_path / "other"
    (other / place).parent.mkdir(parents=True)
    commands.rename(other / place)
    assert speech_commands.find(speech_commands.FORMAT, Request(data_dir=other)) == other / place


@unpacks_tar
def test_the_archive_of_speech_commands_gets_a_folder(commands, tmp_path):
    """The official one has its 36 folders at the top."""
    data_dir = tmp_path / "archived"
    data_dir.mkdir()
    archive = data_dir / "speech_commands_v0.02.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for name in ("testing_list.txt", "validation_list.txt", "yes", "go"):
            tar.add(commands / name, f"./{name}")
    request = Request(data_dir=data_dir)
    found = speech_commands.find(speech_commands.FORMAT, request)
    assert found == data_dir / "speech_commands_v0.02"
    assert sorted(path.name for path in found.iterdir()) == ["go", "testing_list.txt", "validation_list.txt", "yes"]
    assert sorted(path.name for path in data_dir.iterdir()) == [found.name, archive.name]


@unpacks_tar
def test_half_an_archive_leaves_nothing(commands, tmp_path):
    data_dir = tmp_path / "archived"
    data_dir.mkdir()
    archive = data_dir / "speech_commands_v0.02.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        tar.add(commands / "yes", "./yes")
    archive.write_bytes(archive.read_bytes()[:50000])
    with pytest.raises(DataError, match=r"v0\.02\.tar\.gz: cannot be unpacked"):
        speech_commands.plan(Request(data_dir=data_dir))
    assert list(data_dir.iterdir()) == [archive]


@pytest.mark.parametrize(
    ("name", "change", "fault"),
    [
        (
            "validation_list.txt",
            lambda text: text + "\nyes/missing_nohash_0.wav\n",
            r"speech_commands: train has 35 examples, the official files 84,843: files are missing or cut off",
        ),
        ("testing_list.txt", lambda text: "", r"speech_commands: the split test would have no examples"),
        (
            "validation_list.txt",
            None,
            r"speech_commands: .*/speech_commands_v0\.02 lacks validation_list\.txt; get them from http",
        ),
    ],
)
def test_wrong_lists(commands, name, change, fault):
    file = commands / name
    if change is None:
        file.unlink()
    else:
        file.write_text(change(file.read_text()))
    with pytest.raises(DataError, match=fault):
        prepare("speech_commands", commands.parent, subset=False)


def test_words_may_be_missing_of_a_subset_only(commands):
    for word in ("seven", "tree"):
        for file in (commands / word).iterdir():
            file.unlink()
    (commands / "tree").rmdir()
    with pytest.raises(DataError, match=r"train has 33 examples, the official files 84,843"):
        prepare("speech_commands", commands.parent, subset=False)
    plan = speech_commands.plan(Request(data_dir=commands.parent, subset=True))
    arrays = {split: join(parts) for split, parts in plan.parts.items()}
    assert [len(part.labels) for part in arrays.values()] == [33, 33, 33]
    assert arrays["train"].labels[-1] == 34 and len(plan.facts["classes"]) == 35


def test_a_subset_needs_files_of_each_split(commands):
    for file in commands.glob("*/*_1.wav"):
        file.unlink()
    with pytest.raises(DataError, match="speech_commands: the split val would have no examples"):
        prepare("speech_commands", commands.parent)


@pytest.mark.parametrize("task", [speech_commands, sc10])
def test_a_damaged_recording_is_found_before_the_work_begins(commands, task):
    file = commands / "yes/0a1b2c01_nohash_1.wav"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(DataError, match=r"yes/0a1b2c01_nohash_1\.wav: 15500 of 16000 samples; get it again"):
        task.plan(Request(data_dir=commands.parent))


def test_audio_is_standardized(commands):
    """By the statistics of the samples as they are stored, padding included."""
    prepare("speech_commands", commands.parent)
    task = load(speech_commands, commands.parent)
    assert task.num_classes == 35 and task.example_shape() == (SECOND, 1)
    samples = np.asarray(task.splits["train"].inputs)
    prepared = np.asarray(task.prepare(jnp.asarray(samples)))
    assert prepared.dtype == np.float32
    scaled = samples / 2**15
    expected = (scaled - scaled.mean()) / (scaled.std() + 1e-5)
    np.testing.assert_allclose(prepared, expected, atol=1e-5)


@pytest.mark.parametrize("task", [speech_commands, sc10])
def test_blank_stores_are_loaded(task):
    assert task.load(store.blank(task.FORMAT)).num_classes == task.FORMAT.num_classes


def test_sc10(commands):
    short = commands / "no/0a1b2c01_nohash_1.wav"
    write(short, content(0, 15999))
    write(commands / "go/0a1b2c00_nohash_0.wav", content(2000, 8000), rate=8000)  # one second, too
    plan = sc10.plan(Request(data_dir=commands.parent))
    arrays = {split: join(parts) for split, parts in plan.parts.items()}
    assert {split: len(part.labels) for split, part in arrays.items()} == {"train": 20, "val": 4, "test": 5}
    assert plan.facts["recordings"] == {"files": 29, "padded": 0, "cut": 0, "resampled": 1}
    assert plan.facts["not one second long"] == 1
    assert plan.facts["classes"] == ["yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go"]
    every = np.concatenate([part.labels for part in arrays.values()])
    assert np.bincount(every).tolist() == [3, 2, 3, 3, 3, 3, 3, 3, 3, 3]
    samples = {part.inputs[i, :, 0].tobytes(): part.labels[i] for part in arrays.values() for i in range(len(part[1]))}
    assert len(samples) == 29
    for label, word in enumerate(plan.facts["classes"][:9]):
        for j in range(3):
            if (word, j) != ("no", 1):
                i = 3 * speech_commands.WORDS.index(word) + j
                assert samples[content(i).astype(np.int16).tobytes()] == label


def test_no_recording_of_one_second(commands):
    for word in sc10.WORDS:
        for file in (commands / word).iterdir():
            write(file, content(0, 100))
    with pytest.raises(DataError, match=r"v0\.02: no recordings \(\.wav\); get them from http"):
        sc10.plan(Request(data_dir=commands.parent))
