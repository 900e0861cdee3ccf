"""Makes the store of a task from its official files, from a TFDS directory or by a generator.

A task's `plan(request)` returns a `Plan`: functions that return the examples of each split. `prepare` calls them, in
several processes where they are many, checks what they return, and writes it to a temporary folder beside the store.
That folder takes the store's place at the end, so that there is never half a store.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import errno
import hashlib
import importlib
import json
import multiprocessing
import os
import pathlib
import pkgutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np
from tqdm import tqdm

import s5jax
from s5jax.data import store, tasks
from s5jax.data.readers.download import download
from s5jax.data.readers.official import Missing
from s5jax.data.store import Arrays, Format
from s5jax.data.summary import Summary, unexpected, validate
from s5jax.data.task import DataError

__all__ = ["Job", "Plan", "Request", "check", "find", "prepare", "task_names"]

Job = Callable[[], Arrays]

FEW = 8
"""Fewer jobs than this run in this process: starting others would take longer."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What a user asks for.

    data_dir: folder of the official files; the store goes to its subfolder `prepared`.
    subset: accept fewer examples than the official files have.
    download: get official files that are missing.
    tfds_dir: read a data set that TensorFlow Datasets prepared there, instead of the official files.
    generate: make examples by the task's generator.
    seed: of the generator, 0 to 2^32 - 1.
    sizes: number of examples that the generator makes for each split; default: those of the official files.
    """

    data_dir: pathlib.Path
    subset: bool = False
    download: bool = False
    tfds_dir: pathlib.Path | None = None
    generate: bool = False
    seed: int = 0
    sizes: dict[str, int] | None = None

    def recorded(self) -> dict[str, Any]:
        """The part that the store depends on, as its manifest keeps it."""
        kept = {name: getattr(self, name) for name in ("subset", "generate", "seed", "sizes")}
        return kept | ({"tfds": True} if self.tfds_dir else {})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How the examples of a task are made.

    jobs: for each split, functions that return its examples, in order. They run in other processes, so they are
      `functools.partial` objects of a module's functions with small arguments.
    origin: where the data come from, in a line.
    sources: the official files that are read.
    facts: JSON values that loading needs.
    """

    jobs: dict[str, list[Job]]
    origin: str
    sources: list[pathlib.Path] = dataclasses.field(default_factory=list)
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)


def task_names() -> list[str]:
    """The names of the tasks that are prepared before they are used."""
    names = [module.name for module in pkgutil.iter_modules(tasks.__path__)]
    return [name for name in names if hasattr(importlib.import_module(f"{tasks.__name__}.{name}"), "FORMAT")]


def find(name: str) -> Any:
    """The module of a task.

    Raises:
      DataError: there is no such task, or it needs no preparation.
    """
    if name not in task_names():
        raise DataError(f"unknown task {name!r}; tasks to prepare: {', '.join(task_names())}")
    return importlib.import_module(f"{tasks.__name__}.{name}")


def prepare(
    name: str,
    request: Request,
    *,
    workers: int = 1,
    force: bool = False,
    say: Callable[[str], None] = print,
    quiet: bool = False,
) -> pathlib.Path:
    """Makes the store of a task, unless it is there already.

    Args:
      name: of the task, one of `task_names()`.
      request: what to make it from.
      workers: number of processes; the store is the same for any number.
      force: replace a store that is there.
      say: is called with lines for the user.
      quiet: show no progress bar.

    Returns:
      The store's folder.

    Raises:
      DataError: official files are missing or damaged, or the store cannot be written. A store that was there before
        is still there.
    """
    task, goal = find(name), store.directory(request.data_dir, name)
    with _os_errors(request.data_dir, name):
        if request.data_dir.is_file():
            raise DataError(f"--data_dir={request.data_dir}: not a folder; unpack it if it is an archive")
        if goal.exists() and not (goal / "manifest.json").is_file():
            raise DataError(f"{goal}: not a store of s5jax; move it away")
        if goal.exists() and not force:
            return _existing(task.FORMAT, request, goal, say)
        plan = _plan(task, request)
        say(f"{name}: {plan.origin}")
        goal.parent.mkdir(parents=True, exist_ok=True)
        for left in goal.parent.glob(f".{name}-*"):
            say(f"  {left} is left from a preparation that was killed: delete it, unless one is running")
        with tempfile.TemporaryDirectory(dir=goal.parent, prefix=f".{name}-") as temporary:
            made = pathlib.Path(temporary, "store")
            made.mkdir()
            lines = _write(plan, task.FORMAT, request, made, workers, quiet)
            _replace(goal, made, pathlib.Path(temporary, "replaced"))
    for line in lines:
        say(f"  {line}")
    return goal


def check(name: str, request: Request, *, workers: int = 1, quiet: bool = False) -> tuple[list[str], list[str]]:
    """Checks a store or, where there is none, the official files.

    Nothing is written, except that official files are unpacked if they are still in their archive.

    Args:
      name: of the task.
      request: where the data are.
      workers: number of processes.
      quiet: show no progress bar.

    Returns:
      What was found and what is wrong, in lines.

    Raises:
      DataError: there is nothing to check, or files are damaged.
    """
    with _os_errors(request.data_dir, name):
        task, where = find(name), store.directory(request.data_dir, name)
        return (_check_store if where.exists() else _check_files)(task, request, where, workers, quiet)


def _check_files(
    task: Any, request: Request, where: pathlib.Path, workers: int, quiet: bool
) -> tuple[list[str], list[str]]:
    if request.generate:
        raise DataError(f"{where}: no store to check; prepare it first")
    plan = _plan(task, request)
    summaries = {split: Summary(task.FORMAT) for split in plan.jobs}
    for split, arrays in _examples(plan, task.FORMAT, workers, quiet):
        summaries[split].add(arrays)
    found = [f"no store in {where}; {plan.origin}"]
    found += [summary.describe(split) for split, summary in summaries.items()]
    return found, [] if request.subset else unexpected(task.FORMAT, summaries, plan.facts)


def _check_store(
    task: Any, request: Request, where: pathlib.Path, workers: int, quiet: bool
) -> tuple[list[str], list[str]]:
    format, manifest = task.FORMAT, store.read_manifest(request.data_dir, task.FORMAT.name)
    stored = store.read(format, request.data_dir)
    found, wrong = [f"store {where}: {manifest['origin']}"], []
    summaries = {}
    for split, arrays in stored.splits.items():
        summary = summaries[split] = Summary(format)
        for start in range(0, len(arrays), 1024):
            some = arrays.select(np.arange(start, min(start + 1024, len(arrays))))
            part = Arrays(some.inputs, some.labels, some.lengths)
            validate(part, format, f"{where}, {split}, examples from {start}")
            summary.add(part)
        found.append(summary.describe(split))
        for field, expected in manifest["splits"][split]["sha256"].items():
            file = where / f"{split}.{field}.npy"
            if store.sha256(file) != expected:
                wrong.append(f"{file}: changed since it was written; prepare the task again with --force")
    if request.subset or manifest["request"]["sizes"]:
        return found, wrong
    wrong += unexpected(format, summaries, stored.facts)
    for split, expected in format.sha256.items():
        if manifest["splits"][split]["sha256"]["inputs"] != expected:
            found.append(f"note: the inputs of {split} are not those of the official files, by their SHA-256")
    return found, wrong


def _plan(task: Any, request: Request) -> Plan:
    """The task's plan, after a download if that is asked for."""
    format: Format = task.FORMAT
    if (request.seed or request.sizes) and not request.generate:
        raise DataError(f"{format.name}: --seed and --sizes are for generated examples; add --generate")
    if request.generate and not format.generator:
        raise DataError(f"{format.name}: there is no generator; get the official files from {format.address}")
    if not 0 <= request.seed < 2**32:
        raise DataError(f"--seed={request.seed}: must lie in 0..{2**32 - 1}")
    if request.tfds_dir and not format.tfds:
        raise DataError(f"{format.name}: not read from TFDS; get the official files from {format.address}")
    try:
        return task.plan(request)
    except Missing:
        if not request.download:
            raise
    download(format, request.data_dir)
    return task.plan(request)


@contextlib.contextmanager
def _os_errors(data_dir: pathlib.Path, name: str) -> Iterator[None]:
    """Turns errors of the operating system into DataError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DataError(f"{data_dir}: no space left for task {name}; free some and try again") from error
        raise DataError(f"{error.filename or data_dir}: {error.strerror or error}") from error
    except BrokenProcessPool as error:
        fault = "a worker process was killed, perhaps for lack of memory"
        raise DataError(f"{name}: {fault}; try again with fewer --workers") from error


def _existing(format: Format, request: Request, goal: pathlib.Path, say: Callable[[str], None]) -> pathlib.Path:
    manifest = store.read_manifest(request.data_dir, format.name)
    store.read(format, request.data_dir)
    before, now = manifest["request"], request.recorded()
    if before != now:
        was = ", ".join(f"{key} {before.get(key)}" for key in before | now if before.get(key) != now.get(key))
        raise DataError(f"{goal}: there already, prepared with {was}; --force replaces it")
    say(f"{goal} is there already ({manifest['origin']}); --force makes it again")
    return goal


def _examples(plan: Plan, format: Format, workers: int, quiet: bool) -> Iterator[tuple[str, Arrays]]:
    """Runs all jobs and yields their split and examples, checked, in order."""
    jobs = [(split, i, job) for split, some in plan.jobs.items() for i, job in enumerate(some)]
    results = _results([job for *_, job in jobs], workers)
    bar = tqdm(zip(jobs, results, strict=True), format.name, len(jobs), unit=" parts", **_bar(quiet))
    for (split, i, _), arrays in bar:
        validate(arrays, format, f"{format.name}, {split}, part {i}")
        yield split, arrays


def _results(jobs: Sequence[Job], workers: int) -> Iterator[Arrays]:
    """What jobs return, in order. Workers are at most a few jobs ahead, so that results do not fill the memory."""
    if workers == 1 or len(jobs) < FEW:
        yield from (job() for job in jobs)
        return
    context = multiprocessing.get_context("spawn")  # jax, which tasks import, must not be forked
    pool = concurrent.futures.ProcessPoolExecutor(min(workers, len(jobs)), context, _start_worker)
    waiting: collections.deque[concurrent.futures.Future[Arrays]] = collections.deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(job))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    """Leaves Ctrl-C to the parent, and ends the worker if the parent is killed: it would wait for jobs for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


class _GrowingFile:
    """A .npy file to which examples are appended; its header gets their number when it is closed."""

    def __init__(self, path: pathlib.Path, first: np.ndarray):
        self.dtype, self.shape, self.examples = first.dtype, first.shape[1:], 0
        self.stream = path.open("wb")
        self.write_header()

    def append(self, values: np.ndarray) -> None:
        # Not by a memory map, where a full disk would kill the process.
        self.stream.write(np.ascontiguousarray(values).data)
        self.examples += len(values)

    def close(self) -> None:
        with self.stream:
            self.stream.seek(0)
            self.write_header()

    def write_header(self) -> None:
        """Writes a header, whose length does not depend on the number of examples."""
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.examples, *self.shape)}
        np.lib.format.write_array_header_1_0(self.stream, header)


def _write(plan: Plan, format: Format, request: Request, folder: pathlib.Path, workers: int, quiet: bool) -> list[str]:
    """Writes a whole store into a folder, and returns lines that describe it."""
    summaries = {split: Summary(format) for split in plan.jobs}
    files: dict[str, dict[str, _GrowingFile]] = {split: {} for split in plan.jobs}
    with contextlib.ExitStack() as stack:
        for split, arrays in _examples(plan, format, workers, quiet):
            summaries[split].add(arrays)
            for field, values in arrays._asdict().items():
                if values is not None and field not in files[split]:
                    file = files[split][field] = _GrowingFile(folder / f"{split}.{field}.npy", values)
                    stack.callback(file.close)
                if values is not None:
                    files[split][field].append(values)
    for split, summary in summaries.items():
        if not summary.examples:
            raise DataError(f"{format.name}: the split {split} would have no examples")
    wrong = [] if request.subset or request.sizes else unexpected(format, summaries, plan.facts)
    if wrong:
        raise DataError(f"{format.name}: {'; '.join(wrong)}")
    splits = {}
    for split, summary in summaries.items():
        digests = {field: store.sha256(folder / f"{split}.{field}.npy") for field in files[split]}
        splits[split] = {"examples": summary.examples, "classes": summary.classes.tolist(), "sha256": digests}
    manifest = {
        "task": format.name,
        "version": store.VERSION,
        "s5jax": s5jax.__version__,
        "origin": plan.origin,
        "request": request.recorded(),
        "splits": splits,
        "facts": {**plan.facts, "statistics": {split: summary.statistics() for split, summary in summaries.items()}},
        "sources": _digests(plan.sources, request.data_dir, quiet),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))
    return [summary.describe(split) for split, summary in summaries.items()]


def _replace(goal: pathlib.Path, made: pathlib.Path, replaced: pathlib.Path) -> None:
    """Moves a finished store to its place, and the store that was there before to `replaced`."""
    try:
        if goal.exists():
            goal.rename(replaced)
        made.rename(goal)
    except BaseException:
        if replaced.exists() and not goal.exists():
            replaced.rename(goal)
        raise


def _digests(sources: list[pathlib.Path], data_dir: pathlib.Path, quiet: bool) -> dict[str, str]:
    """SHA-256 of the official files; of all together where there are more than 20."""
    bar = tqdm(sources, "hashing", unit=" files", **_bar(quiet))
    single = {str(path).removeprefix(f"{data_dir}/"): store.sha256(path) for path in bar}  # relative_to is slow
    if len(single) <= 20:
        return single
    together = hashlib.sha256(json.dumps(sorted(single.items())).encode()).hexdigest()
    return {f"{len(single)} files, names and SHA-256 together": together}


def _bar(quiet: bool) -> dict[str, Any]:
    """Options of a progress bar, which is shown on a terminal only."""
    return {"disable": True if quiet else None, "leave": False}
