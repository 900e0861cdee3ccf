"""Wav files written here against what is read of them."""

import struct

import numpy as np
import pytest
from wav_files import riff, write

from s5jax.data.readers import wav
from s5jax.data.task import DataError


def test_samples_of_16_bits_are_read_as_they_are(tmp_path):
    samples = np.random.default_rng(0).integers(-(2**15), 2**15, 1000)
    write(tmp_path / "a.wav", samples, rate=11025)
    read, rate = wav.read(tmp_path / "a.wav")
    assert rate == 11025 and read.dtype == np.int16
    np.testing.assert_array_equal(read, samples)
    assert wav.resampled_length(tmp_path / "a.wav", 22050) == (11025, 2000)


@pytest.mark.parametrize(("width", "channels"), [(1, 1), (3, 1), (4, 1), (2, 2)])
def test_other_samples_are_refused(tmp_path, width, channels):
    write(tmp_path / "a.wav", [[100] * channels] * 5, width=width)
    fault = f"{channels} channels of {8 * width} bits; convert it to 16-bit PCM of one channel"
    with pytest.raises(DataError, match=rf"a\.wav: {fault}"):
        wav.read(tmp_path / "a.wav")


def test_chunks_around_the_samples_are_skipped(tmp_path):
    write(tmp_path / "a.wav", [1, 2, 3])
    plain = (tmp_path / "a.wav").read_bytes()
    extra = b"note" + struct.pack("<I", 3) + b"abc\0"  # of odd length, so with a byte of padding
    (tmp_path / "a.wav").write_bytes(b"RIFF" + struct.pack("<I", 1000) + plain[8:12] + extra + plain[12:] + extra)
    assert wav.read(tmp_path / "a.wav")[0].tolist() == [1, 2, 3]
    assert wav.resampled_length(tmp_path / "a.wav", 16000) == (16000, 3)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", r"cannot be read as a wav file \(EOFError\)"),
        (b"ID3\x04" + bytes(100), "cannot be read as a wav file .*does not start with RIFF id"),
        (riff(None, bytes(4))[:30], "cannot be read as a wav file"),
        (riff(None, bytes(4))[:12] + riff(None, bytes(4))[36:], "cannot be read as a wav file"),
        (riff(None, bytes(2000), data=32000), "1000 of 16000 samples; get it again"),
        (riff(None, bytes(2000), data=32000, riff=32036), "1000 of 16000 samples; get it again"),
        (riff(), "0 of 0 samples; get it again"),
        (riff(None, bytes(200), riff=4), "cannot be read as a wav file"),
        (riff((1, 0, 16000, 32000, 2, 16), bytes(4)), "cannot be read as a wav file"),
        (riff((1, 1, 0, 0, 2, 16), bytes(4)), "0 samples per second, so its header is damaged"),
        (riff((7, 1, 16000, 16000, 1, 8), bytes(4)), "cannot be read .*unknown format: 7"),
        (riff((1, 1, 16000, 128000, 8, 64), bytes(8)), "1 channels of 64 bits; convert it to 16-bit PCM"),
        (riff((3, 1, 16000, 64000, 4, 32), np.float32([0, np.nan]).tobytes()), "cannot be read .*unknown format: 3"),
    ],
)
def test_a_faulty_file_is_named_with_its_fault(tmp_path, content, fault):
    (tmp_path / "bad.wav").write_bytes(content)
    with pytest.raises(DataError, match=rf"bad\.wav: .*{fault}"):
        wav.read(tmp_path / "bad.wav")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no\.wav: cannot be read as a wav file \(No such file"):
        wav.read(tmp_path / "no.wav")


def test_any_header_is_either_read_or_a_data_error(tmp_path):
    """Up to three bytes of 44 changed at random."""
    good = riff(None, np.arange(100, dtype="<i2").tobytes())
    rng = np.random.default_rng(0)
    path, errors = tmp_path / "a.wav", []
    for _ in range(500):
        content = bytearray(good)
        for at in rng.integers(0, 44, rng.integers(1, 4)):
            content[at] = rng.choice([0, 1, 2, 3, 255, rng.integers(256)])
        path.write_bytes(content)
        try:
            wav.read(path)
        except DataError as error:
            errors.append(str(error))
    assert 250 < len(errors) < 500 and all(str(path) in error for error in errors)


# Resampling.


@pytest.mark.parametrize(("rate", "to"), [(8000, 16000), (16000, 8000), (44100, 16000), (11025, 8000)])
def test_a_sinusoid_of_another_rate_stays_the_same_sinusoid(tmp_path, rate, to):
    seconds, frequency, phase = 0.5, 440, 0.3

    def sinusoid(at):
        return 10000 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * at)) / at + phase)

    write(tmp_path / "a.wav", np.rint(sinusoid(rate)), rate)
    samples = wav.resample(*wav.read(tmp_path / "a.wav"), to)
    assert samples.dtype == np.int16 and wav.resampled_length(tmp_path / "a.wav", to) == (rate, len(samples))
    expected = sinusoid(to)[: len(samples)]
    middle = slice(len(expected) // 10, -len(expected) // 10)  # the filter sees zeros beyond the ends
    assert np.abs(samples[: len(expected)] - expected)[middle].max() < 30


def test_resampling_clips():
    steps = np.repeat([32767, -32768, 32767], 50).astype(np.int16)  # band-limited, it overshoots
    resampled = wav.resample(steps, 8000, 16000).astype(int)
    assert resampled.max() == 32767 and resampled.min() == -32768
    assert np.abs(resampled[20:80] - 32767).max() < 4000  # no wrap
