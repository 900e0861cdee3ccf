"""The pieces that a preparation is made of: done by several processes, and each kept in a file, whole or not at all."""

import concurrent.futures
import functools
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from s5jax.data.store import Arrays, Format
from s5jax.data.summary import Summary, validate
from s5jax.data.task import DataError

__all__ = ["Piece", "fields", "file_of", "load", "progress", "replace", "run_all"]

Piece = Callable[[], Arrays]

FEW = 8
"""Pieces for which other processes are not worth the seconds that they take to start."""


def run_all(
    pieces: Mapping[str, Sequence[Piece]], format: Format, partial: pathlib.Path | None, workers: int, quiet: bool
) -> dict[str, Summary]:
    """Does all pieces that are not done yet.

    Args:
      pieces: of each split, in order.
      format: what they must be of.
      partial: the directory for their files; `None`: they are summarised and dropped.
      workers: processes.
      quiet: show no progress bar.

    Returns:
      Without a directory what there is to say of each split, else nothing to speak of.

    Raises:
      DataError: of a piece, or its arrays are not of the format.
    """
    summaries = {split: Summary(format) for split in pieces}
    jobs: list[tuple[str, Callable[[], Summary | None]]] = []
    for split, some in pieces.items():
        for i, piece in enumerate(some):
            file = None if partial is None else file_of(partial, split, i)
            if file is None or not file.exists():
                jobs.append((split, functools.partial(_run, piece, format, f"{split}, piece {i}", file)))
    total = sum(map(len, pieces.values()))
    with progress("making", total, "pieces", quiet, total - len(jobs)) as bar:
        for split, summary in _in_parallel(jobs, workers):
            if summary is not None:
                summaries[split].merge(summary)
            bar.update()
    return summaries


def _in_parallel(jobs: list[tuple[str, Callable[[], Any]]], workers: int) -> Iterator[tuple[str, Any]]:
    """Results as they come, each with its job's name."""
    if workers <= 1 or len(jobs) < FEW:
        yield from ((name, job()) for name, job in jobs)
        return
    # Spawned: jax, which data modules import, does not bear being forked.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(min(workers, len(jobs)), context, _end_with_parent) as pool:
        futures = {pool.submit(job): name for name, job in jobs}
        try:
            for future in concurrent.futures.as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _run(piece: Piece, format: Format, where: str, file: pathlib.Path | None) -> Summary | None:
    """Does one piece: to a file, or to what there is to say of it."""
    arrays = piece()
    validate(arrays, format, f"{format.name}, {where}")
    if file is None:
        summary = Summary(format)
        summary.add(arrays)
        return summary
    replace(file, lambda stream: np.savez(stream, **fields(arrays)))  # type: ignore[arg-type]
    return None


def fields(arrays: Arrays) -> dict[str, np.ndarray]:
    return {field: values for field, values in arrays._asdict().items() if values is not None}


def file_of(partial: pathlib.Path, split: str, i: int) -> pathlib.Path:
    return partial / f"{split}.{i}.npz"


def load(piece: pathlib.Path, fields: Sequence[str] = ()) -> Arrays:
    """The arrays of a piece that was done, or some of them."""
    try:
        with piece.open("rb") as stream, np.load(stream) as stored:
            return Arrays(**{"inputs": np.empty(0), **{field: stored[field] for field in fields or stored.files}})
    except (ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile) as error:
        piece.unlink()
        raise DataError(f"{piece} was damaged, and is removed: run the same command again") from error


def replace(file: pathlib.Path, write: Callable[[Any], Any]) -> None:
    """Writes a file at once: under another name, which is then changed."""
    temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def progress(what: str, total: int, unit: str, quiet: bool, initial: int = 0) -> Any:
    """A progress bar, on a terminal only."""
    return tqdm(total=total, initial=initial, desc=what, unit=f" {unit}", disable=True if quiet else None, leave=False)
