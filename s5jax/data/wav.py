"""Recordings in RIFF/WAVE files, as 16-bit samples of one channel."""

import functools
import os
import pathlib
import struct
import warnings
from collections.abc import Callable, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int16, Shaped

from s5jax.data.store import Arrays, Format, Stored
from s5jax.data.task import DataError, Task

__all__ = ["Header", "header", "pieces", "read", "resample", "survey", "task"]

FULL_SCALE = {"uint8": 2**7, "int16": 2**15, "int32": 2**31, "float32": 1, "float64": 1}
"""What stands for 1 in each type that scipy gives; it shifts 24 bits to the upper end of 32."""

RATES = (1_000, 768_000)
"""Samples per second that a header may claim. Outside them it is damaged, and resampling would take all memory."""

PIECE = 1_000
"""Files read at a time."""


class Header(NamedTuple):
    """What a file says of itself.

    rate: samples per second.
    samples: of each channel.
    """

    rate: int
    samples: int

    def samples_at(self, rate: int) -> int:
        """Samples after resampling to another rate."""
        return -(-self.samples * rate // self.rate)


def header(path: pathlib.Path) -> Header:
    """Reads a header, and compares it with the size of the file, since scipy would give the samples that are there.

    Raises:
      DataError: no RIFF/WAVE file, damaged, cut off, or without samples.
    """
    try:
        with path.open("rb") as file:
            start = file.read(12)
            if start[:4] != b"RIFF" or start[8:] != b"WAVE":
                raise DataError(f"{path} is no wav file: it does not start with a RIFF/WAVE header")
            form, length = _chunks(file)
            _, channels, rate, _, frame, _ = struct.unpack_from("<HHIIHH", form)
            before = file.tell()
            left = file.seek(0, os.SEEK_END) - before
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except struct.error as error:
        raise DataError(f"{path} has a damaged header: its chunks 'fmt ' and 'data' are not both there") from error
    if length > left:
        raise DataError(f"{path} is cut off: {length:,} bytes of samples by its header, {left:,} in the file")
    whole = int.from_bytes(start[4:8], "little") + 8
    if whole < before + length:
        raise DataError(f"{path} has a damaged header: a file of {whole:,} bytes, with {length:,} bytes of samples")
    if not (channels and frame) or frame % channels or not RATES[0] <= rate <= RATES[1]:
        raise DataError(
            f"{path} has a damaged header: {channels} channels of {rate} samples per second, {frame} bytes at a time"
        )
    if length % frame:
        raise DataError(f"{path} is damaged: {length:,} bytes of samples are no multiple of {frame}")
    if not length:
        raise DataError(f"{path} has no samples")
    return Header(rate, length // frame)


def read(path: pathlib.Path) -> tuple[Int16[np.ndarray, " samples"], int]:
    """Samples, channels averaged and other types scaled to the range of 16 bits, and how many there are per second.

    Raises:
      DataError: the file is damaged or cut off, or of a type other than integers of 8, 16, 24, 32 bits and floats.
    """
    import scipy.io.wavfile

    header(path)
    try:
        with warnings.catch_warnings():
            # Of chunks unknown to scipy. What matters of its warnings is an error above.
            warnings.simplefilter("ignore", scipy.io.wavfile.WavFileWarning)
            rate, samples = scipy.io.wavfile.read(path)
    except (OSError, ValueError, struct.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    kind = samples.dtype.name
    if kind == "int16" and samples.ndim == 1:
        return samples, rate
    if kind not in FULL_SCALE:
        raise DataError(f"{path} cannot be read: samples of type {kind}")
    values = samples.astype(np.float64) - (FULL_SCALE[kind] if kind == "uint8" else 0)
    if not np.isfinite(values).all():
        raise DataError(f"{path} is damaged: some samples are NaN or infinite")
    if values.ndim == 2:
        values = values.mean(axis=1)
    return _int16(values * (2**15 / FULL_SCALE[kind])), rate


def resample(samples: Int16[np.ndarray, " samples"], rate: int, to: int) -> Int16[np.ndarray, " resampled"]:
    """From one rate to another, by the polyphase filter of `scipy.signal.resample_poly`."""
    import scipy.signal  # heavy, and only other sampling rates need it

    return _int16(scipy.signal.resample_poly(samples.astype(np.float64), to, rate))


def survey(headers: Sequence[Header], rate: int, length: int) -> dict[str, int]:
    """How many recordings are not of the rate and length they will have."""
    samples = np.array([found.samples_at(rate) for found in headers])
    return {
        "files": len(headers),
        "padded": int((samples < length).sum()),
        "cut": int((samples > length).sum()),
        "resampled": sum(found.rate != rate for found in headers),
    }


def pieces(
    format: Format, rate: int, files: Sequence[pathlib.Path], labels: Sequence[int]
) -> list[Callable[[], Arrays]]:
    """What reads recordings, in order, for `Plan.pieces`. Short ones are filled up with zeros, long ones cut.

    Args:
      format: gives the length.
      rate: samples per second that files of other rates are resampled to.
      files: the recordings.
      labels: of each.
    """
    return [
        functools.partial(_piece, format, rate, list(files[i : i + PIECE]), list(labels[i : i + PIECE]))
        for i in range(0, len(files), PIECE)
    ]


def task(format: Format, stored: Stored) -> Task:
    """The task of stored recordings, whose samples it standardizes: x / 2^15, less the mean and over the standard
    deviation, plus 1e-5, of all training samples, padding included (as in state-spaces/s4, `src/dataloaders/sc.py`).
    """
    statistics = stored.facts["statistics"]["train"]
    return Task(
        name=format.name,
        splits=stored.splits,
        length=format.length,
        num_classes=format.num_classes,
        preprocess=functools.partial(_standardize, statistics["mean"], statistics["std"]),
    )


def _chunks(file: BinaryIO) -> tuple[bytes, int]:
    """The chunk "fmt ", and the bytes in the chunk "data", before which it leaves the file."""
    form = b""
    while True:
        name, length = struct.unpack("<4sI", file.read(8))
        if name == b"data":
            return form, length
        end = file.tell() + length + length % 2
        if name == b"fmt ":
            form = file.read(16)
        file.seek(end)


def _piece(format: Format, rate: int, files: list[pathlib.Path], labels: list[int]) -> Arrays:
    inputs = np.zeros((len(files), format.length, 1), np.int16)
    lengths = np.zeros(len(files), np.int32)
    for i, file in enumerate(files):
        samples, own_rate = read(file)
        if own_rate != rate:
            samples = resample(samples, own_rate, rate)
        lengths[i] = min(len(samples), format.length)
        inputs[i, : lengths[i], 0] = samples[: lengths[i]]
    return Arrays(inputs, np.array(labels, np.int32), lengths if format.padded else None)


def _int16(values: Float[np.ndarray, " samples"]) -> Int16[np.ndarray, " samples"]:
    return np.clip(np.rint(values), -(2**15), 2**15 - 1).astype(np.int16)


def _standardize(mean: float, std: float, samples: Shaped[Array, "..."]) -> Float[Array, "..."]:
    return (samples.astype("float32") - mean) / (std + 1e-5 * 2**15)
