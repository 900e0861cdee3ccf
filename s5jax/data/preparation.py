"""From official files, or a generator, to a store: in pieces that survive an interruption, all of it or nothing.

A task's `plan(request)` says what the pieces are. They are read by several processes, kept in
DATA_DIR/prepared/.<task>.partial, and put together when all are there.
"""

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import importlib
import json
import os
import pathlib
import pickle
import pkgutil
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from types import ModuleType
from typing import Any

import numpy as np

import s5jax
import s5jax.data
from s5jax.data import pieces, store
from s5jax.data.download import download
from s5jax.data.official import Missing
from s5jax.data.pieces import Piece
from s5jax.data.store import Arrays, Format
from s5jax.data.summary import Summary, unexpected, validate
from s5jax.data.task import DataError

__all__ = ["Plan", "Request", "check", "find", "prepare", "tasks"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What a user asks of a preparation.

    data_dir: where the official files are, and where the store goes.
    subset: fewer examples than the official files have are fine.
    download: get official files that are not there.
    generate: use the generator even if there are official files.
    seed: of the generator.
    sizes: examples of each split that the generator makes; `None`: as many as the official files have.
    """

    data_dir: pathlib.Path
    subset: bool = False
    download: bool = False
    generate: bool = False
    seed: int = 0
    sizes: dict[str, int] | None = None

    def wishes(self) -> dict[str, Any]:
        """What the store depends on: all but where from."""
        names = [field.name for field in dataclasses.fields(self)]
        return {name: getattr(self, name) for name in names if name not in ("data_dir", "download")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How a store is made.

    pieces: of each split, in order. A piece is a `functools.partial` of a function of a module with small arguments; it
      gives the same arrays whenever and wherever it is called.
    origin: where the data come from, in a line.
    sources: the official files that are read.
    facts: JSON values that loading needs.
    generated: the examples are made up, of the request's seed and sizes.
    distinct: no two examples may be equal, whatever their splits.
    """

    pieces: dict[str, list[Piece]]
    origin: str
    sources: list[pathlib.Path] = dataclasses.field(default_factory=list)
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    generated: bool = False
    distinct: bool = False


def tasks() -> list[str]:
    """Names of the tasks that are prepared before they are used."""
    names = [module.name for module in pkgutil.iter_modules(s5jax.data.__path__)]
    return [name for name in names if hasattr(importlib.import_module(f"s5jax.data.{name}"), "FORMAT")]


def prepare(
    name: str,
    request: Request,
    *,
    workers: int = 1,
    force: bool = False,
    say: Callable[[str], None] = print,
    quiet: bool = False,
) -> pathlib.Path:
    """Makes the store of a task, or leaves it as it is if it is there; goes on where an earlier call was stopped.

    Args:
      name: of the task, one of `tasks()`.
      request: from what.
      workers: processes; the store is the same for any number.
      force: replace a store that is there.
      say: what to do with lines for the user.
      quiet: show no progress bar.

    Returns:
      The store's directory.

    Raises:
      DataError: the data are not what they should be, another process prepares them, or the disk is full. A store that
        was there before is still there.
    """
    task = find(name)
    goal = store.directory(request.data_dir, name)
    with _disk(request.data_dir, name), contextlib.ExitStack() as stack:
        if request.data_dir.exists() and not request.data_dir.is_dir():
            raise DataError(f"--data_dir={request.data_dir} is a file, not a folder: unpack it if it is an archive")
        if not request.data_dir.exists() and not request.download:
            _plan(task, request)  # raises where a folder that is to be made would lack the official files
        replaced = stack.enter_context(_lock(goal))
        if goal.exists() and not (goal / "manifest.json").is_file():
            raise DataError(f"{goal} is no store of this program: move it away")
        if goal.exists() and not force:
            return _existing(task, request, goal, say)
        plan = _plan(task, request)
        say(f"{name}: {plan.origin}")
        partial = goal.with_name(f".{name}.partial")
        _resume(partial, plan, request, say)
        pieces.run_all(plan.pieces, task.FORMAT, partial, workers, quiet)
        lines = _assemble(plan, task.FORMAT, request, partial, quiet)
        if goal.exists():
            os.rename(goal, replaced)
        os.rename(partial / "store", goal)
        shutil.rmtree(replaced, ignore_errors=True)
        shutil.rmtree(partial)
    for line in lines:
        say(f"  {line}")
    return goal


def check(name: str, request: Request, *, workers: int = 1, quiet: bool = False) -> tuple[list[str], list[str]]:
    """Looks whether a store, or, where there is none, the official files are what they should be.

    Nothing is written, unless official files are still in their archive: it is unpacked.

    Returns:
      What was found, and what is wrong, in words.
    """
    with _disk(request.data_dir, name):
        return _check(name, request, workers, quiet)


def _check(name: str, request: Request, workers: int, quiet: bool) -> tuple[list[str], list[str]]:
    task = find(name)
    format = task.FORMAT
    where = store.directory(request.data_dir, name)
    if not where.exists():
        plan = _plan(task, request)
        if plan.generated:
            raise DataError(
                f"there is nothing to check: neither a store nor official files of {name} in {request.data_dir}"
            )
        summaries = pieces.run_all(plan.pieces, format, None, workers, quiet)
        found = [f"no store in {where}; {plan.origin}"]
        found += [summary.describe(split) for split, summary in summaries.items()]
        return found, [] if request.subset else unexpected(format, summaries, plan.facts)
    manifest = store.read_manifest(request.data_dir, name)
    stored = store.read(format, request.data_dir)
    found, wrong = [f"store {where}: {manifest['origin']}"], []
    summaries = {}
    for split, arrays in stored.splits.items():
        summary = summaries[split] = Summary(format)
        for start in range(0, len(arrays), 1024):
            part = slice(start, start + 1024)
            lengths = None if arrays.lengths is None else np.asarray(arrays.lengths[part])
            piece = Arrays(np.asarray(arrays.inputs[part]), np.asarray(arrays.labels[part]), lengths)
            validate(piece, format, f"{where}, {split}, from example {start} on")
            summary.add(piece)
        found.append(summary.describe(split))
        for field, expected in manifest["splits"][split]["sha256"].items():
            file = where / f"{split}.{field}.npy"
            if store.sha256(file) != expected:
                wrong.append(f"{file} was changed since it was written: prepare the task again with --force")
    if request.subset or manifest["request"]["sizes"]:
        return found, wrong
    wrong += unexpected(format, summaries, stored.facts)
    for split, expected in format.sha256.items():
        if manifest["splits"][split]["sha256"]["inputs"] != expected:
            found.append(f"note: {split} is not what was once made of these files, by the SHA-256 of its inputs")
    return found, wrong


def find(name: str) -> ModuleType:
    """The module of a task.

    Raises:
      DataError: there is none that is to be prepared.
    """
    if name not in tasks():
        raise DataError(f"no task {name!r} to prepare; there are {', '.join(tasks())}")
    return importlib.import_module(f"s5jax.data.{name}")


def _plan(task: Any, request: Request) -> Plan:
    try:
        plan: Plan = task.plan(request)
    except Missing:
        if not request.download:
            raise
        download(task.FORMAT, request.data_dir)
        plan = task.plan(request)
    if plan.generated and request.download:
        raise DataError(
            f"the official files of {task.FORMAT.name} cannot be downloaded by --download: see {task.FORMAT.address}"
        )
    if not plan.generated and (request.generate or request.sizes or request.seed):
        advice = "add --generate" if task.FORMAT.generator else f"there is no generator for {task.FORMAT.name}"
        raise DataError(f"--generate, --seed and --sizes are for generated data, but here are {plan.origin}: {advice}")
    return plan


@contextlib.contextmanager
def _disk(data_dir: pathlib.Path, name: str) -> Iterator[None]:
    """Says in words what a file system may have against a preparation."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DataError(
                f"no space left in {data_dir} for task {name}: make some, and run the same command again;"
                " what is done is kept"
            ) from error
        raise DataError(f"{error.filename or data_dir}: {error.strerror or error}") from error
    except BrokenProcessPool as error:
        raise DataError(
            f"{name}: a process was killed, perhaps for want of memory: run the same command again with fewer --workers"
        ) from error


@contextlib.contextmanager
def _lock(goal: pathlib.Path) -> Iterator[pathlib.Path]:
    """One process at a time. Yields where a store that is is replaced is kept; one left there is put back."""
    replaced = goal.with_name(f".{goal.name}.replaced")
    goal.parent.mkdir(parents=True, exist_ok=True)
    with open(goal.with_name(f".{goal.name}.lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"another process is preparing {goal}: wait for it") from None
        if replaced.exists() and not goal.exists():
            os.rename(replaced, goal)
        shutil.rmtree(replaced, ignore_errors=True)
        yield replaced


def _existing(task: Any, request: Request, goal: pathlib.Path, say: Callable[[str], None]) -> pathlib.Path:
    manifest = store.read_manifest(request.data_dir, goal.name)
    store.read(task.FORMAT, request.data_dir)
    if manifest["request"] != request.wishes():
        was = ", ".join(f"{k} {v}" for k, v in manifest["request"].items() if v != request.wishes().get(k))
        raise DataError(f"{goal} is there already, prepared with {was}: --force replaces it")
    say(f"{goal} is there already ({manifest['origin']}): nothing to do; --force makes it anew")
    return goal


def _resume(partial: pathlib.Path, plan: Plan, request: Request, say: Callable[[str], None]) -> None:
    """Keeps the pieces of an earlier call if it had the same plan and the same files."""
    described = {
        "version": [store.VERSION, s5jax.__version__],
        "request": request.wishes(),
        "pieces": {
            split: [hashlib.sha256(pickle.dumps(piece)).hexdigest() for piece in parts]
            for split, parts in plan.pieces.items()
        },
        "sources": [[str(p), p.stat().st_size, p.stat().st_mtime_ns] for p in plan.sources],
    }
    text = json.dumps(described)
    recorded = partial / "plan.json"
    if recorded.is_file() and recorded.read_text() == text:
        done = len(list(partial.glob("*.npz")))
        if done:
            say(f"  going on after {done} of {sum(map(len, plan.pieces.values()))} pieces")
        return
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    pieces.replace(recorded, lambda stream: stream.write(text.encode()))


def _assemble(plan: Plan, format: Format, request: Request, partial: pathlib.Path, quiet: bool) -> list[str]:
    """Puts all pieces together as partial/store, and returns what there is to say of it."""
    goal = partial / "store"
    shutil.rmtree(goal, ignore_errors=True)
    goal.mkdir()
    splits: dict[str, Any] = {}
    summaries: dict[str, Summary] = {}
    lines: list[str] = []
    seen: set[bytes] = set()
    total = sum(map(len, plan.pieces.values()))
    with pieces.progress("writing", total, "pieces", quiet) as bar:
        for split, parts in plan.pieces.items():
            done = [pieces.file_of(partial, split, i) for i in range(len(parts))]
            examples = sum(len(pieces.load(file, ["labels"]).labels) for file in done)
            if not examples:
                raise DataError(f"{format.name}: the split {split} would have no examples")
            summary = summaries[split] = Summary(format)
            files: dict[str, Any] = {}
            with contextlib.ExitStack() as stack:
                for file in done:
                    arrays = pieces.load(file)
                    summary.add(arrays)
                    if plan.distinct:
                        seen.update(hashlib.blake2b(x.tobytes(), digest_size=16).digest() for x in arrays.inputs)
                    for field, values in pieces.fields(arrays).items():
                        if field not in files:
                            files[field] = stack.enter_context((goal / f"{split}.{field}.npy").open("wb"))
                            shape = (examples, *values.shape[1:])
                            header = {"descr": values.dtype.str, "fortran_order": False, "shape": shape}
                            np.lib.format.write_array_header_1_0(files[field], header)
                        # Not by a mapping, where a full disk would end the process without a word.
                        files[field].write(np.ascontiguousarray(values))
                    bar.update()
            lines.append(summary.describe(split))
            digests = {field: store.sha256(goal / f"{split}.{field}.npy") for field in files}
            splits[split] = {"examples": examples, "classes": summary.classes.tolist(), "sha256": digests}
    wrong = [] if request.subset or request.sizes else unexpected(format, summaries, plan.facts)
    total = sum(summary.examples for summary in summaries.values())
    if plan.distinct and len(seen) < total:
        wrong.append(f"{total - len(seen)} examples occur twice: choose another --seed")
    if wrong:
        raise DataError(f"{format.name}: {'; '.join(wrong)}")
    manifest = {
        "task": format.name,
        "version": store.VERSION,
        "s5jax": s5jax.__version__,
        "origin": plan.origin,
        "request": request.wishes(),
        "splits": splits,
        "facts": {**plan.facts, "statistics": {split: summary.statistics() for split, summary in summaries.items()}},
        "sources": _digests(plan.sources, request.data_dir, quiet),
    }
    pieces.replace(goal / "manifest.json", lambda stream: stream.write(json.dumps(manifest, indent=1).encode()))
    return lines


def _digests(sources: list[pathlib.Path], data_dir: pathlib.Path, quiet: bool) -> dict[str, str]:
    """SHA-256 of the official files; one of all together where they are many."""
    with pieces.progress("hashing", len(sources), "files", quiet) as bar:
        single = {}
        for path in sources:
            single[str(path.relative_to(data_dir))] = store.sha256(path)
            bar.update()
    if len(single) <= 20:
        return single
    together = hashlib.sha256(json.dumps(sorted(single.items())).encode()).hexdigest()
    return {f"{len(single)} files, names and SHA-256 together": together}
