"""Recordings in wav files, as 16-bit samples of one channel."""

import functools
import pathlib
import wave
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float, Int16, Shaped

from s5jax.data.prepare import Plan, batched
from s5jax.data.store import Format, Stored
from s5jax.data.task import DataError, Split, Task

FILES_PER_PART = 1_000
RATES = (1_000, 768_000)
"""Samples per second outside these bounds mean a damaged header; resampling from them would take all memory."""


def read(path: pathlib.Path) -> tuple[Int16[np.ndarray, " samples"], int]:
    """The samples of a wav file, 16 bits of one channel, and their number per second.

    Raises:
      DataError: it is not such a file, is damaged or cut off, or has no samples.
    """
    try:
        with wave.open(str(path)) as file:
            channels, width, rate, count, *_ = file.getparams()
            content = file.readframes(count)
    except Exception as error:  # wave raises whatever a damaged header leads to
        reason = error.strerror if isinstance(error, OSError) else str(error) or type(error).__name__
        raise DataError(f"{path}: cannot be read as a wav file ({reason}); get it again") from error
    if (channels, width) != (1, 2):
        raise DataError(f"{path}: {channels} channels of {8 * width} bits; convert it to 16-bit PCM of one channel")
    if len(content) != 2 * count or not count:
        raise DataError(f"{path}: {len(content) // 2} of {count} samples; get it again")
    if not RATES[0] <= rate <= RATES[1]:
        raise DataError(f"{path}: {rate} samples per second, so its header is damaged; get it again")
    return np.frombuffer(content, "<i2"), rate


def resample(samples: Int16[np.ndarray, " samples"], rate: int, to: int) -> Int16[np.ndarray, " resampled"]:
    """Resamples from one rate to another by the polyphase filter of `scipy.signal.resample_poly`."""
    import scipy.signal  # slow to import, and only other sampling rates need it

    values = scipy.signal.resample_poly(samples.astype(np.float64), to, rate)
    return np.clip(np.rint(values), -(2**15), 2**15 - 1).astype(np.int16)


def resampled_length(path: pathlib.Path, to: int) -> tuple[int, int]:
    """Samples per second of a wav file, and its number of samples after resampling to another rate; see `read`."""
    samples, rate = read(path)
    return rate, -(-len(samples) * to // rate)


def plan(
    format: Format,
    root: pathlib.Path,
    recordings: Mapping[str, Sequence[tuple[pathlib.Path, int]]],
    facts: Mapping[str, Any] | None = None,
    lists: Sequence[pathlib.Path] = (),
) -> Plan:
    """Plans the recordings of each split and their labels, whose folder is `root`; `lists` are other files to note.

    They become a second of as many samples as the format's length: other rates are resampled, shorter recordings
    padded, longer ones cut. All files are read, so that a damaged one is found before the work begins.

    Raises:
      DataError: there are none, or a file is damaged.
    """
    files = [file for some in recordings.values() for file, _ in some]
    if not files:
        raise DataError(f"{root}: no recordings (.wav); get them from {format.address}")
    rates, samples = np.array([resampled_length(file, format.length) for file in files]).T
    counts = {"files": len(files), "padded": int((samples < format.length).sum())}
    counts |= {"cut": int((samples > format.length).sum()), "resampled": int((rates != format.length).sum())}
    read_some = functools.partial(_examples, format)
    return Plan(
        parts={split: map(read_some, batched(some, FILES_PER_PART)) for split, some in recordings.items()},
        origin=f"{counts['files']:,} recordings in {root}: {counts['padded']:,} shorter than a second filled up with"
        f" zeros, {counts['cut']:,} longer ones cut, {counts['resampled']:,} of another rate resampled",
        sources=[*lists, *files],
        facts={**(facts or {}), "recordings": counts},
    )


def task(format: Format, stored: Stored) -> Task:
    """The task of stored recordings, which it standardizes.

    x / 2^15, less the mean of all training samples, over their standard deviation plus 1e-5, both with padding included
    (state-spaces/s4, `src/dataloaders/sc.py`).
    """
    mean, std = (stored.facts["statistics"]["train"][name] for name in ("mean", "std"))
    return format.task(stored.splits, preprocess=functools.partial(_standardize, mean, std))


def _examples(format: Format, recordings: Sequence[tuple[pathlib.Path, int]]) -> Split:
    inputs = np.zeros((len(recordings), format.length, 1), np.int16)
    lengths = np.zeros(len(recordings), np.int32)
    for i, (file, _) in enumerate(recordings):
        samples, rate = read(file)
        if rate != format.length:
            samples = resample(samples, rate, format.length)
        lengths[i] = min(len(samples), format.length)
        inputs[i, : lengths[i], 0] = samples[: lengths[i]]
    return Split(inputs, np.array([label for _, label in recordings], np.int32), lengths if format.padded else None)


def _standardize(mean: float, std: float, samples: Shaped[Array, "..."]) -> Float[Array, "..."]:
    return (samples.astype("float32") - mean) / (std + 1e-5 * 2**15)
