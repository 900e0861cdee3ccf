"""Wav files written here, in the official layouts, against what is read of them."""

import hashlib
import itertools
import pickle
import struct
import tarfile
import wave

import jax.numpy as jnp
import numpy as np
import pytest

from s5jax.data import sc10, speech_commands, spoken_digits, store, wav
from s5jax.data.preparation import Request
from s5jax.data.task import DataError, Split


def write(path, samples, rate=16000, width=2):
    """Integer samples (N,) or (N, channels), by the standard library; 8 bits are unsigned in the file."""
    samples = np.asarray(samples, np.int64)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = samples.astype("<i8").reshape(-1, 1).view(np.uint8)[:, :width]  # the lowest bytes come first
    with wave.open(str(path), "wb") as file:
        file.setparams((samples[0].size, width, rate, 0, "NONE", "not compressed"))
        file.writeframes(data.tobytes())


def riff(form=None, samples=b"", **sizes):
    """A wav file by hand; its fmt chunk's fields are type, channels, rate, bytes per second, bytes per frame, bits."""
    form = struct.pack("<HHIIHH", *(form or (1, 1, 16000, 32000, 2, 16)))
    data = struct.pack("<4sI", b"data", sizes.get("data", len(samples))) + samples
    chunks = b"WAVE" + struct.pack("<4sI", b"fmt ", len(form)) + form + data
    return b"RIFF" + struct.pack("<I", sizes.get("riff", len(chunks))) + chunks


# Reading.


def test_samples_of_16_bits_are_read_as_they_are(tmp_path):
    samples = np.random.default_rng(0).integers(-(2**15), 2**15, 1000)
    write(tmp_path / "a.wav", samples, rate=11025)
    read, rate = wav.read(tmp_path / "a.wav")
    assert rate == 11025 and read.dtype == np.int16
    np.testing.assert_array_equal(read, samples)
    assert wav.header(tmp_path / "a.wav") == (11025, 1000)


@pytest.mark.parametrize(
    ("width", "samples", "expected"),
    [
        (1, [0, 1, 128, 255], [-32768, -32512, 0, 32512]),
        (3, [-(2**23), -1, 0, 0x123456, 0x123481, 2**23 - 1], [-32768, 0, 0, 0x1234, 0x1235, 32767]),
        (4, [-(2**31), 0x12345678, 0x1234_8001, 2**31 - 1], [-32768, 0x1234, 0x1235, 32767]),
    ],
)
def test_other_integers_keep_their_share_of_full_scale(tmp_path, width, samples, expected):
    write(tmp_path / "a.wav", samples, width=width)
    assert wav.read(tmp_path / "a.wav")[0].tolist() == expected
    assert wav.header(tmp_path / "a.wav").samples == len(samples)


def test_floats_have_full_scale_one_and_are_clipped(tmp_path):
    values = np.array([0, 0.5, -0.25, 1, -1, 1.5, 1e-5], "<f4")
    (tmp_path / "a.wav").write_bytes(riff((3, 1, 16000, 64000, 4, 32), values.tobytes()))
    assert wav.read(tmp_path / "a.wav")[0].tolist() == [0, 16384, -8192, 32767, -32768, 32767, 0]


def test_channels_are_averaged(tmp_path):
    write(tmp_path / "a.wav", [[100, 200], [-5, 6], [32767, 32767]])
    assert wav.read(tmp_path / "a.wav")[0].tolist() == [150, 0, 32767]
    write(tmp_path / "b.wav", [[0, 128, 255]], width=1)
    assert wav.read(tmp_path / "b.wav")[0].tolist() == [round((-128 + 127) / 3 * 256)]


def test_chunks_around_the_samples_are_skipped(tmp_path):
    write(tmp_path / "a.wav", [1, 2, 3])
    plain = (tmp_path / "a.wav").read_bytes()
    extra = b"note" + struct.pack("<I", 3) + b"abc\0"  # of odd length, so with a byte of padding
    (tmp_path / "a.wav").write_bytes(b"RIFF" + struct.pack("<I", 1000) + plain[8:12] + extra + plain[12:] + extra)
    assert wav.read(tmp_path / "a.wav")[0].tolist() == [1, 2, 3]
    assert wav.header(tmp_path / "a.wav") == (16000, 3)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "does not start with a RIFF/WAVE header"),
        (b"ID3\x04" + bytes(100), "does not start with a RIFF/WAVE header"),
        (b"RIFX" + riff(None, bytes(4))[4:], "does not start with a RIFF/WAVE header"),
        (riff(None, bytes(4))[:30], "has a damaged header: its chunks"),
        (riff(None, bytes(4))[:12] + riff(None, bytes(4))[36:], "has a damaged header: its chunks"),
        (riff(None, bytes(2000), data=32000), "is cut off: 32,000 bytes of samples by its header, 2,000 in the file"),
        (riff(None, bytes(2000), data=32000, riff=32036), "is cut off: 32,000 bytes of samples by its header"),
        (riff(), "has no samples"),
        (riff(None, bytes(3)), "3 bytes of samples are no multiple of 2"),
        (riff(None, bytes(200), riff=4), "has a damaged header: a file of 12 bytes, with 200 bytes of samples"),
        (riff((1, 0, 16000, 32000, 2, 16), bytes(4)), "damaged header: 0 channels"),
        (riff((1, 1, 0, 0, 2, 16), bytes(4)), "damaged header: 1 channels of 0 samples per second"),
        (riff((1, 3, 16000, 32000, 2, 16), bytes(4)), "damaged header: 3 channels .* 2 bytes at a time"),
        (riff((7, 1, 16000, 16000, 1, 8), bytes(4)), "cannot be read: Unknown wave file format: MULAW"),
        (riff((1, 1, 16000, 128000, 8, 64), bytes(8)), "cannot be read: samples of type int64"),
        (riff((3, 1, 16000, 64000, 4, 32), np.float32([0, np.nan]).tobytes()), "some samples are NaN or infinite"),
    ],
)
def test_a_faulty_file_is_named_with_its_fault(tmp_path, content, fault):
    (tmp_path / "bad.wav").write_bytes(content)
    with pytest.raises(DataError, match=rf"bad\.wav .*{fault}"):
        wav.read(tmp_path / "bad.wav")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no\.wav cannot be read: No such file"):
        wav.read(tmp_path / "no.wav")


def test_any_header_is_either_read_or_a_data_error(tmp_path):
    """Up to three bytes of 44 changed at random."""
    good = riff(None, np.arange(100, dtype="<i2").tobytes())
    rng = np.random.default_rng(0)
    path, errors = tmp_path / "a.wav", []
    for _ in range(2000):
        content = bytearray(good)
        for at in rng.integers(0, 44, rng.integers(1, 4)):
            content[at] = rng.choice([0, 1, 2, 3, 255, rng.integers(256)])
        path.write_bytes(content)
        try:
            wav.read(path)
        except DataError as error:
            errors.append(str(error))
    assert 1000 < len(errors) < 2000 and all(str(path) in error for error in errors)


# Resampling.


@pytest.mark.parametrize(("rate", "to"), [(8000, 16000), (16000, 8000), (44100, 16000), (11025, 8000)])
def test_a_sinusoid_of_another_rate_stays_the_same_sinusoid(rate, to):
    seconds, frequency, phase = 0.5, 440, 0.3

    def sinusoid(at):
        return 10000 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * at)) / at + phase)

    samples = wav.resample(np.rint(sinusoid(rate)).astype(np.int16), rate, to)
    assert samples.dtype == np.int16
    assert len(samples) == wav.Header(rate, round(seconds * rate)).samples_at(to)
    expected = sinusoid(to)[: len(samples)]
    middle = slice(len(expected) // 10, -len(expected) // 10)  # the filter sees zeros beyond the ends
    assert np.abs(samples[: len(expected)] - expected)[middle].max() < 30


def test_resampling_clips():
    steps = np.repeat([32767, -32768, 32767], 50).astype(np.int16)  # band-limited, it overshoots
    resampled = wav.resample(steps, 8000, 16000).astype(int)
    assert resampled.max() == 32767 and resampled.min() == -32768
    assert np.abs(resampled[20:80] - 32767).max() < 4000  # no wrap


# Layouts.

SECOND = 16000


def content(i, length=SECOND):
    return np.random.default_rng(i).integers(-3000, 3000, length)


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


def together(plan):
    """All pieces of each split, done as another process would."""
    arrays = {}
    for split, pieces in plan.pieces.items():
        done = [pickle.loads(pickle.dumps(piece))() for piece in pieces]
        lengths = None if done[0].lengths is None else np.concatenate([piece.lengths for piece in done])
        arrays[split] = store.Arrays(
            np.concatenate([piece.inputs for piece in done]), np.concatenate([piece.labels for piece in done]), lengths
        )
    return arrays


def stored(plan):
    arrays = together(plan)
    train = arrays["train"].inputs
    statistics = {"train": {"mean": float(train.mean()), "std": float(train.std())}}
    return store.Stored(
        {split: Split(*part) for split, part in arrays.items()}, plan.facts | {"statistics": statistics}
    )


def test_speech_commands(commands, monkeypatch):
    monkeypatch.setattr(wav, "PIECE", 8)
    plan = speech_commands.plan(Request(data_dir=commands.parent))
    arrays = together(plan)
    assert [len(pieces) for pieces in plan.pieces.values()] == [5, 5, 5]
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
    assert sum(spoken_digits.FORMAT.sizes.values()) == 3_000


@pytest.mark.parametrize("place", ["SpeechCommands/speech_commands_v0.02", "SpeechCommands"])
def test_speech_commands_in_other_places(commands, tmp_path, place):
    other = tmp_path / "other"
    (other / place).parent.mkdir(parents=True)
    commands.rename(other / place)
    assert speech_commands.find(speech_commands.FORMAT, Request(data_dir=other)) == other / place


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
    assert sorted(path.name for path in data_dir.iterdir() if path.suffix != ".lock") == [found.name, archive.name]


def test_half_an_archive_leaves_nothing(commands, tmp_path):
    data_dir = tmp_path / "archived"
    data_dir.mkdir()
    archive = data_dir / "speech_commands_v0.02.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        tar.add(commands / "yes", "./yes")
    archive.write_bytes(archive.read_bytes()[:50000])
    with pytest.raises(DataError, match=r"v0\.02\.tar\.gz cannot be unpacked"):
        speech_commands.plan(Request(data_dir=data_dir))
    assert [path for path in data_dir.iterdir() if path.suffix != ".lock"] == [archive]


@pytest.mark.parametrize(
    ("name", "change", "fault"),
    [
        (
            "validation_list.txt",
            lambda text: text + "\nyes/missing_nohash_0.wav\n",
            r"validation_list\.txt, line 37: yes/missing_nohash_0\.wav does not exist",
        ),
        (
            "testing_list.txt",
            lambda text: "yes/0a1b2c01_nohash_1.wav\n" + text,
            r"testing_list\.txt, line 1: yes/.* has been listed before, in validation_list\.txt",
        ),
        ("testing_list.txt", lambda text: text * 2, r"line 36: zero/.* has been listed before, in testing_list\.txt"),
        ("testing_list.txt", lambda text: "", r"testing_list\.txt is empty"),
        ("testing_list.txt", lambda text: "yes 0a1b2c02_nohash_2.wav\n", r"line 1: yes 0a1b.* is not of the form"),
        ("validation_list.txt", None, r"validation_list\.txt cannot be read .*; get it from http"),
    ],
)
def test_wrong_lists(commands, name, change, fault):
    file = commands / name
    if change is None:
        file.unlink()
    else:
        file.write_text(change(file.read_text()))
    with pytest.raises(DataError, match=fault):
        speech_commands.plan(Request(data_dir=commands.parent))


def test_words_may_be_missing_of_a_subset_only(commands):
    for word in ("seven", "tree"):
        for file in (commands / word).iterdir():
            file.unlink()
    (commands / "tree").rmdir()
    with pytest.raises(DataError, match=r"no recordings \(\.wav\) of 2 of the 35 words: seven, tree; get"):
        speech_commands.plan(Request(data_dir=commands.parent))
    plan = speech_commands.plan(Request(data_dir=commands.parent, subset=True))
    arrays = together(plan)
    assert [len(part.labels) for part in arrays.values()] == [33, 33, 33]
    assert arrays["train"].labels[-1] == 34 and len(plan.facts["classes"]) == 35


def test_a_subset_needs_files_of_each_split(commands):
    for file in commands.glob("*/*_1.wav"):
        file.unlink()
    with pytest.raises(DataError, match="no files of split val"):
        speech_commands.plan(Request(data_dir=commands.parent, subset=True))


@pytest.mark.parametrize("task", [speech_commands, sc10])
def test_a_damaged_recording_is_found_before_the_work_begins(commands, task):
    file = commands / "yes/0a1b2c01_nohash_1.wav"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(DataError, match=r"yes/0a1b2c01_nohash_1\.wav is cut off"):
        task.plan(Request(data_dir=commands.parent))


@pytest.mark.parametrize(
    ("task", "where"), [(speech_commands, "v0.02.tar.gz"), (sc10, "v0.02.tar.gz"), (spoken_digits, "github.com")]
)
def test_without_official_files_the_error_says_where_they_are(tmp_path, task, where):
    with pytest.raises(DataError, match=where):
        task.plan(Request(data_dir=tmp_path))


def test_audio_is_standardized(commands):
    """By the statistics of the samples as they are stored, padding included."""
    made = stored(speech_commands.plan(Request(data_dir=commands.parent)))
    task = speech_commands.load(made)
    assert task.num_classes == 35 and task.example_shape() == (SECOND, 1)
    samples = made.splits["train"].inputs
    prepared = np.asarray(task.prepare(jnp.asarray(samples)))
    assert prepared.dtype == np.float32
    scaled = samples / 2**15
    expected = (scaled - scaled.mean()) / (scaled.std() + 1e-5)
    np.testing.assert_allclose(prepared, expected, atol=1e-5)


@pytest.mark.parametrize("task", [speech_commands, sc10, spoken_digits])
def test_blank_stores_are_loaded(task):
    assert task.load(store.blank(task.FORMAT)).num_classes == task.FORMAT.num_classes


# Ten words.


def test_sc10(commands):
    short = commands / "no/0a1b2c01_nohash_1.wav"
    write(short, content(0, 15999))
    write(commands / "go/0a1b2c00_nohash_0.wav", content(2000, 8000), rate=8000)  # one second, too
    plan = sc10.plan(Request(data_dir=commands.parent))
    arrays = together(plan)
    assert {split: len(part.labels) for split, part in arrays.items()} == {"train": 20, "val": 4, "test": 5}
    assert plan.facts["recordings"] == {"files": 29, "padded": 0, "cut": 0, "resampled": 1, "dropped": 1}
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
    with pytest.raises(DataError, match="none of 30 recordings is one second long"):
        sc10.plan(Request(data_dir=commands.parent))


def test_the_split_of_sc10_is_that_of_scikit_learn():
    """Recorded from `train_test_split` of scikit-learn 1.9.1 with seeds 0 and 1, stratified."""
    few = sc10.split(np.repeat(np.arange(3), (5, 7, 8)))
    assert few["train"].tolist() == [0, 1, 2, 5, 6, 7, 9, 10, 12, 13, 15, 16, 18, 19]
    assert few["val"].tolist() == [4, 11, 14] and few["test"].tolist() == [3, 8, 17]
    labels = np.repeat(np.arange(10), 3497 + np.arange(10))[:34975]
    parts = sc10.split(labels)
    assert {name: len(part) for name, part in parts.items()} == sc10.FORMAT.sizes
    digests = [hashlib.sha256(part.astype("<i4").tobytes()).hexdigest()[:16] for part in parts.values()]
    assert digests == ["e649a110754fa691", "536b4b8bf4125c85", "048241d75ab244e8"]


# Spoken digits.


@pytest.fixture
def digits(tmp_path):
    for digit, speaker, index in itertools.product((0, 7), ("jackson", "theo"), range(12)):
        i = 100 * digit + 50 * (speaker == "theo") + index
        write(tmp_path / f"fsdd/recordings/{digit}_{speaker}_{index}.wav", content(i, 1000 + i), rate=8000)
    write(tmp_path / "fsdd/recordings/7_theo_11.wav", content(0, 9000), rate=8000)
    write(tmp_path / "fsdd/recordings/7_theo_10.wav", content(0, 4000), rate=16000)
    return tmp_path


def test_spoken_digits(digits):
    plan = spoken_digits.plan(Request(data_dir=digits))
    arrays = together(plan)
    assert {split: len(part.labels) for split, part in arrays.items()} == {"train": 8, "val": 20, "test": 20}
    assert plan.facts["recordings"] == {"files": 48, "padded": 47, "cut": 1, "resampled": 1}
    for split, indices in (("val", range(5, 10)), ("test", range(5))):
        part = arrays[split]
        assert part.labels.tolist() == [0] * 10 + [7] * 10
        assert part.inputs.shape == (20, 8000, 1) and part.inputs.dtype == np.int16
        numbers = [100 * d + 50 * s + i for d, s, i in itertools.product((0, 7), (0, 1), indices)]
        for row, length, number in zip(part.inputs[..., 0], part.lengths, numbers, strict=True):
            assert length == 1000 + number
            np.testing.assert_array_equal(row[:length], content(number, length))
            assert not row[length:].any()
    assert sorted(arrays["train"].lengths)[-2:] == [2000, 8000]
    task = spoken_digits.load(stored(plan))
    assert task.num_classes == 10 and task.splits["val"].lengths is not None


@pytest.mark.parametrize("place", ["recordings", "free-spoken-digit-dataset/recordings"])
def test_spoken_digits_in_other_places(digits, place):
    (digits / place).parent.mkdir(exist_ok=True)
    (digits / "fsdd/recordings").rename(digits / place)
    assert len(spoken_digits.plan(Request(data_dir=digits)).sources) == 48


def test_a_recording_with_another_name(digits):
    write(digits / "fsdd/recordings/seven_theo_3.wav", [1, 2])
    with pytest.raises(DataError, match=r"seven_theo_3\.wav: the name is not of the form digit_speaker_index\.wav"):
        spoken_digits.plan(Request(data_dir=digits))


def test_a_folder_without_recordings(tmp_path):
    (tmp_path / "recordings").mkdir()
    with pytest.raises(DataError, match=r"has no recordings \(\.wav\); get them from https://github"):
        spoken_digits.plan(Request(data_dir=tmp_path))
