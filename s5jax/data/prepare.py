"""Makes the store of a task from its official files, from a TFDS directory or by a generator.

A task's `plan(request)` returns a `Plan`: functions that return the examples of each split. `prepare` calls them, in
several processes where they are many, checks what they return, and writes it to a temporary folder beside the store.
That folder takes the store's place at the end, so that there is never half a store.
"""

import concurrent.futures
import dataclasses
import hashlib
import importlib
import json
import multiprocessing
import operator
import os
import pathlib
import pkgutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np
from tqdm import tqdm

import s5jax
from s5jax.data import store, tasks
from s5jax.data.readers.download import download
from s5jax.data.readers.official import Missing
from s5jax.data.store import Format
from s5jax.data.summary import Summary, unexpected
from s5jax.data.task import DataError, Split

__all__ = ["Job", "Plan", "Request", "check", "find", "prepare", "task_names"]

Job = Callable[[], Split]

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

    jobs: Mapping[str, Sequence[Job]]
    origin: str
    sources: Sequence[pathlib.Path] = ()
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def task_names() -> list[str]:
    """The names of the tasks that are prepared before they are used."""
    names = [module.name for module in pkgutil.iter_modules(tasks.__path__)]
    return [name for name in names if hasattr(importlib.import_module(f"{tasks.__name__}.{name}"), "FORMAT")]


def find(name: str) -> Any:
    """The module of a task. Raises DataError if there is no such task, or it needs no preparation."""
    if name not in task_names():
        raise DataError(f"unknown task {name!r}; tasks to prepare: {', '.join(task_names())}")
    return importlib.import_module(f"{tasks.__name__}.{name}")


def prepare(
    name: str, request: Request, *, workers: int = 1, force: bool = False, say: Callable[[str], None] = print
) -> pathlib.Path:
    """Makes the store of a task, unless it is there already.

    Args:
      name: of the task, one of `task_names()`.
      request: what to make it from.
      workers: number of processes; the store is the same for any number.
      force: replace a store that is there.
      say: is called with lines for the user.

    Returns:
      The store's folder.

    Raises:
      DataError: official files are missing or damaged.
      OSError: the store cannot be written. In either case a store that was there before is still there.
    """
    task, goal = find(name), store.directory(request.data_dir, name)
    if request.data_dir.is_file():
        raise DataError(f"--data_dir={request.data_dir}: not a folder; unpack it if it is an archive")
    if goal.exists() and not (goal / "manifest.json").is_file():
        raise DataError(f"{goal}: not a store of s5jax; move it away")
    if goal.exists() and not force:
        manifest = store.read_manifest(request.data_dir, name)
        before, now = manifest["request"], request.recorded()
        was = ", ".join(f"{key} {before.get(key)}" for key in before | now if before.get(key) != now.get(key))
        if was:
            raise DataError(f"{goal}: there already, prepared with {was}; --force replaces it")
        store.read(task.FORMAT, request.data_dir)
        say(f"{goal} is there already ({manifest['origin']}); --force makes it again")
        return goal
    plan = _plan(task, request)
    say(f"{name}: {plan.origin}")
    goal.parent.mkdir(parents=True, exist_ok=True)
    for left in goal.parent.glob(f".{name}-*"):
        say(f"  {left} is left from a preparation that was killed: delete it, unless one is running")
    with tempfile.TemporaryDirectory(dir=goal.parent, prefix=f".{name}-") as temporary:
        made, replaced = pathlib.Path(temporary, "store"), pathlib.Path(temporary, "replaced")
        made.mkdir()
        summaries = _count(task.FORMAT, [*plan.jobs], _examples(plan, name, workers), made)
        wrong = [] if request.subset or request.sizes else unexpected(task.FORMAT, summaries, plan.facts)
        if wrong:
            raise DataError(f"{name}: {'; '.join(wrong)}")
        _write_manifest(made, name, request, plan, summaries)
        if goal.exists():
            goal.rename(replaced)
        try:
            made.rename(goal)
        except BaseException:
            if replaced.exists():
                replaced.rename(goal)
            raise
    for split, summary in summaries.items():
        say(f"  {summary.describe(split)}")
    return goal


def check(name: str, request: Request, *, workers: int = 1) -> tuple[list[str], list[str]]:
    """Checks a store or, where there is none, the official files.

    Nothing is written, except that official files are unpacked if they are still in their archive.

    Returns:
      What was found and what is wrong, in lines.

    Raises:
      DataError: there is nothing to check, or files are damaged.
    """
    task, where = find(name), store.directory(request.data_dir, name)
    if not where.exists():
        if request.generate:
            raise DataError(f"{where}: no store to check; prepare it first")
        plan = _plan(task, request)
        summaries = _count(task.FORMAT, [*plan.jobs], _examples(plan, name, workers))
        found = [f"no store in {where}; {plan.origin}", *(s.describe(split) for split, s in summaries.items())]
        return found, [] if request.subset else unexpected(task.FORMAT, summaries, plan.facts)
    manifest, stored = store.read_manifest(request.data_dir, name), store.read(task.FORMAT, request.data_dir)
    every = ((split, f"{where}, {split}", examples) for split, examples in stored.splits.items())
    summaries = _count(task.FORMAT, [*stored.splits], every)
    found = [f"store {where}: {manifest['origin']}", *(s.describe(split) for split, s in summaries.items())]
    wrong = []
    for split, about in manifest["splits"].items():
        for field, expected in about["sha256"].items():
            file = where / f"{split}.{field}.npy"
            if _sha256(file) != expected:
                wrong.append(f"{file}: changed since it was written; prepare the task again with --force")
    if not request.subset and not manifest["request"]["sizes"]:
        wrong += unexpected(task.FORMAT, summaries, stored.facts)
        inputs = "".join(about["sha256"]["inputs"] for about in manifest["splits"].values())
        if task.FORMAT.sha256 not in ("", hashlib.sha256(inputs.encode()).hexdigest()):
            found.append("note: the inputs are not those of the official files, by their SHA-256")
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


def _examples(plan: Plan, name: str, workers: int) -> Iterator[tuple[str, str, Split]]:
    """Runs all jobs, and yields of each its split, its name in error messages, and its examples."""
    names = [(split, f"{name}, {split}, part {i}") for split, jobs in plan.jobs.items() for i in range(len(jobs))]
    results = _run([job for jobs in plan.jobs.values() for job in jobs], workers)
    bar = tqdm(results, name, len(names), unit=" parts", disable=None, leave=False)
    for (split, where), examples in zip(names, bar, strict=True):
        yield split, where, examples


def _run(jobs: Sequence[Job], workers: int) -> Iterator[Split]:
    """What jobs return, in order."""
    if workers == 1 or len(jobs) < FEW:
        yield from (job() for job in jobs)
        return
    context = multiprocessing.get_context("spawn")  # jax, which tasks import, must not be forked
    with concurrent.futures.ProcessPoolExecutor(workers, context, _start_worker) as pool:
        try:
            for i in range(0, len(jobs), 4 * workers):  # not all at once: results would fill the memory
                yield from pool.map(operator.call, jobs[i : i + 4 * workers])
        except BrokenProcessPool as error:
            fault = "a worker process was killed, perhaps for lack of memory; try again with fewer --workers"
            raise DataError(fault) from error


def _start_worker() -> None:
    """Leaves Ctrl-C to the parent, and ends the worker if the parent is killed: it would wait for jobs for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()  # type: ignore[union-attr]
    os._exit(1)


def _count(
    format: Format, splits: list[str], examples: Iterable[tuple[str, str, Split]], folder: pathlib.Path | None = None
) -> dict[str, Summary]:
    """Checks and counts the examples of all splits and, with a folder, writes them to its files."""
    summaries = {split: Summary(format) for split in splits}
    for split, where, some in examples:
        before = summaries[split].examples
        summaries[split].add(some, where)
        if folder:
            for field, values in some.arrays.items():
                _append(folder / f"{split}.{field}.npy", values, before)
    for split, summary in summaries.items():
        if not summary.examples:
            raise DataError(f"{format.name}: the split {split} would have no examples")
    return summaries


def _append(path: pathlib.Path, values: np.ndarray, before: int) -> None:
    """Appends examples to a .npy file, which has so many before. A memory map would be killed by a full disk."""
    header = {"descr": values.dtype.str, "fortran_order": False, "shape": (before + len(values), *values.shape[1:])}
    with path.open("r+b" if before else "wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)  # its length is the same for any number of examples
        stream.seek(0, os.SEEK_END)
        stream.write(np.ascontiguousarray(values).data)


def _write_manifest(
    folder: pathlib.Path, name: str, request: Request, plan: Plan, summaries: dict[str, Summary]
) -> None:
    splits = {}
    for split, summary in summaries.items():
        digests = {file.name.split(".")[1]: _sha256(file) for file in sorted(folder.glob(f"{split}.*.npy"))}
        splits[split] = {"examples": summary.examples, "classes": summary.classes.tolist(), "sha256": digests}
    bar = tqdm(plan.sources, "hashing", unit=" files", disable=None, leave=False)
    sources = {str(path).removeprefix(f"{request.data_dir}/"): _sha256(path) for path in bar}  # relative_to is slow
    if len(sources) > 20:
        together = hashlib.sha256(json.dumps(sorted(sources.items())).encode()).hexdigest()
        sources = {f"{len(sources)} files, names and SHA-256 together": together}
    manifest = {
        "task": name,
        "version": store.VERSION,
        "s5jax": s5jax.__version__,
        "origin": plan.origin,
        "request": request.recorded(),
        "splits": splits,
        "facts": {**plan.facts, "statistics": {split: summary.statistics() for split, summary in summaries.items()}},
        "sources": sources,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
