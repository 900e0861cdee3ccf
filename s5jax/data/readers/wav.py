"""Recordings in wav files, as 16-bit samples of one channel."""

import functools
import pathlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float, Int16, Shaped

from s5jax.data.prepare import Plan
from s5jax.data.store import Format, Stored
from s5jax.data.task import DataError, Split, Task

__all__ = ["header", "plan", "read", "resample", "task"]

FULL_SCALE = {"uint8": 2**7, "int16": 2**15, "int32": 2**31, "float32": 1, "float64": 1}
"""The value that stands for 1 in each type that scipy returns; it shifts 24 bits to the upper end of 32."""

RATES = (1_000, 768_000)
"""Samples per second outside these bounds mean a damaged header; resampling from them would take all memory."""

FILES_PER_JOB = 1_000


def header(path: pathlib.Path, to: int) -> tuple[int, int]:
    """Samples per second of a wav file, and its number of samples after resampling to another rate.

    Raises:
      DataError: it is not a wav file, is damaged or cut off, or has no samples.
    """
    rate, samples = _load(path)
    return rate, -(-len(samples) * to // rate)


def read(path: pathlib.Path) -> tuple[Int16[np.ndarray, " samples"], int]:
    """Reads a wav file: channels are averaged, and other types scaled to the range of 16 bits.

    Returns:
      The samples, and their number per second.

    Raises:
      DataError: it is not a wav file, is damaged or cut off, has no samples, or samples of an unknown type.
    """
    rate, samples = _load(path)
    kind = samples.dtype.name
    if kind == "int16" and samples.ndim == 1:
        return np.array(samples), rate
    if kind not in FULL_SCALE:
        raise DataError(f"{path}: samples of type {kind}; convert it to 16-bit PCM")
    values = samples.astype(np.float64) - (FULL_SCALE[kind] if kind == "uint8" else 0)
    if not np.isfinite(values).all():
        raise DataError(f"{path}: some samples are NaN or infinite; get it again")
    if values.ndim == 2:
        values = values.mean(axis=1)
    return _int16(values * (2**15 / FULL_SCALE[kind])), rate


def resample(samples: Int16[np.ndarray, " samples"], rate: int, to: int) -> Int16[np.ndarray, " resampled"]:
    """Resamples from one rate to another by the polyphase filter of `scipy.signal.resample_poly`."""
    import scipy.signal  # slow to import, and only other sampling rates need it

    return _int16(scipy.signal.resample_poly(samples.astype(np.float64), to, rate))


def plan(
    format: Format,
    root: pathlib.Path,
    recordings: Mapping[str, Sequence[tuple[pathlib.Path, int]]],
    facts: Mapping[str, Any] | None = None,
    lists: Sequence[pathlib.Path] = (),
) -> Plan:
    """Plans recordings of a second, whose samples are the format's `length`: shorter ones are padded, longer ones cut.

    All headers are read, so that a damaged file is found before the work begins. Other rates are resampled.

    Args:
      format: of the task.
      root: the folder of the recordings.
      recordings: files of each split, and their labels.
      facts: of the plan.
      lists: other files that were read.

    Raises:
      DataError: a file is damaged.
    """
    files = [file for some in recordings.values() for file, _ in some]
    rates, samples = np.array([header(file, format.length) for file in files]).T
    counts = {"files": len(files), "padded": int((samples < format.length).sum())}
    counts |= {"cut": int((samples > format.length).sum()), "resampled": int((rates != format.length).sum())}
    jobs = {}
    for split, some in recordings.items():
        parts = [some[i : i + FILES_PER_JOB] for i in range(0, len(some), FILES_PER_JOB)]
        jobs[split] = [functools.partial(_examples, format, part) for part in parts]
    return Plan(
        jobs=jobs,
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


def _load(path: pathlib.Path) -> tuple[int, np.ndarray]:
    """Rate and samples. These are mapped into memory: reading them would stop at the end of a file that is cut off."""
    import scipy.io.wavfile

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", scipy.io.wavfile.WavFileWarning)  # chunks that it skips
            try:
                rate, samples = scipy.io.wavfile.read(path, mmap=True)
            except ValueError as error:
                if "mmap" not in str(error) or "greater" in str(error):
                    raise
                rate, samples = scipy.io.wavfile.read(path)  # of 24 bits
    except Exception as error:  # scipy raises whatever a damaged header leads to
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{path}: cannot be read as a wav file ({reason}); get it again") from error
    if not RATES[0] <= rate <= RATES[1]:
        raise DataError(f"{path}: {rate} samples per second, so its header is damaged; get it again")
    if not len(samples):
        raise DataError(f"{path}: no samples; get it again")
    return rate, samples


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


def _int16(values: Float[np.ndarray, " samples"]) -> Int16[np.ndarray, " samples"]:
    return np.clip(np.rint(values), -(2**15), 2**15 - 1).astype(np.int16)


def _standardize(mean: float, std: float, samples: Shaped[Array, "..."]) -> Float[Array, "..."]:
    return (samples.astype("float32") - mean) / (std + 1e-5 * 2**15)
