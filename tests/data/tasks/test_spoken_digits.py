"""Spoken digits in their official layout."""

import itertools

import numpy as np
import pytest
from data_helpers import join, load, prepare
from wav_files import content, write

from s5jax.data import store
from s5jax.data.prepare import Request
from s5jax.data.task import DataError
from s5jax.data.tasks import spoken_digits


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
    arrays = {split: join(parts) for split, parts in plan.parts.items()}
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
    prepare("spoken_digits", digits)
    task = load(spoken_digits, digits)
    assert task.num_classes == 10 and task.splits["val"].lengths is not None


@pytest.mark.parametrize("place", ["recordings", "free-spoken-digit-dataset/recordings"])
def test_spoken_digits_in_other_places(digits, place):
    (digits / place).parent.mkdir(exist_ok=True)
    (digits / "fsdd/recordings").rename(digits / place)
    assert len(spoken_digits.plan(Request(data_dir=digits)).sources) == 48


def test_a_recording_with_another_name(digits):
    write(digits / "fsdd/recordings/seven_theo_3.wav", [1, 2])
    with pytest.raises(DataError, match=r"seven_theo_3\.wav: not named digit_speaker_index\.wav"):
        spoken_digits.plan(Request(data_dir=digits))


def test_a_folder_without_recordings(tmp_path):
    (tmp_path / "recordings").mkdir()
    with pytest.raises(DataError, match=r"recordings: no recordings \(\.wav\); get them from https://github"):
        spoken_digits.plan(Request(data_dir=tmp_path))


def test_a_blank_store_is_loaded():
    assert sum(spoken_digits.FORMAT.sizes.values()) == 3_000
    assert spoken_digits.load(store.blank(spoken_digits.FORMAT)).num_classes == 10
