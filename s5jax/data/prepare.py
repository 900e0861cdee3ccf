"""Makes the store of a task from its official files, from a TFDS directory or by a generator.

A task's `plan(request)` returns a `Plan`: the examples of each split, in parts that are made one after the other.
`plan`, and iterating over the parts, raise DataError if files are missing or damaged. `prepare` checks each part and
writes it to a temporary folder beside the store. That folder takes the store's place at the end, so that there is never
half a store.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import importlib
import itertools
import json
import os
import pathlib
import pkgutil
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

import s5jax
from s5jax.data import files, store, tasks
from s5jax.data.readers import official
from s5jax.data.store import Format
from s5jax.data.summary import Summary, unexpected
from s5jax.data.task import DataError, Split

T = TypeVar("T")


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

    parts: for each split its examples, in order, in parts that are made when they are asked for.
    origin: where the data come from, in a line.
    sources: the official files that are read.
    facts: JSON values that loading needs.
    """

    parts: Mapping[str, Iterable[Split]]
    origin: str
    sources: Sequence[pathlib.Path] = ()
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items in their order; the last one may be shorter."""
    items = iter(items)
    while some := list(itertools.islice(items, size)):
        yield some


def task_names() -> list[str]:
    """The names of the tasks that are prepared before they are used."""
    names = [module.name for module in pkgutil.iter_modules(tasks.__path__)]
    return [name for name in names if hasattr(importlib.import_module(f"{tasks.__name__}.{name}"), "FORMAT")]


def find(name: str) -> Any:
    """The module of a task. Raises DataError if there is no such task, or it needs no preparation."""
    if name not in task_names():
        raise DataError(f"unknown task {name!r}; tasks to prepare: {', '.join(task_names())}")
    return importlib.import_module(f"{tasks.__name__}.{name}")


def prepare(name: str, request: Request, *, force: bool = False, say: Callable[[str], None] = print) -> pathlib.Path:
    """Makes the store of a task, unless it is there already.

    Args:
      name: of the task, one of `task_names()`.
      request: what to make it from.
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
    for left in goal.parent.glob(f".{name}-*"):
        # The folder may vanish if another process finishes meanwhile; folders of other users are skipped.
        with contextlib.suppress(FileNotFoundError, PermissionError), _locked(left, wait=False) as alone:
            if alone and any(left.iterdir()):  # the process that made it was killed
                if (left / "replaced").exists() and not goal.exists():
                    (left / "replaced").rename(goal)
                shutil.rmtree(left)
            elif not alone:
                say(f"{left}: another preparation is running, or was killed: then delete it")
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
    with tempfile.TemporaryDirectory(dir=goal.parent, prefix=f".{name}-") as temporary, _locked(temporary, wait=True):
        made, replaced = pathlib.Path(temporary, "store"), pathlib.Path(temporary, "replaced")
        made.mkdir()
        summaries = _count(task.FORMAT, plan.parts, name, made)
        wrong = [] if request.subset or request.sizes else unexpected(task.FORMAT, summaries, plan.facts)
        if wrong:
            raise DataError(f"{name}: {'; '.join(wrong)}")
        _write_manifest(made, name, request, plan, summaries)
        try:
            if goal.exists():
                goal.rename(replaced)
            made.rename(goal)
        except BaseException:
            if replaced.exists() and not goal.exists():
                replaced.rename(goal)
            raise
    for split, summary in summaries.items():
        say(f"  {summary.describe(split)}")
    return goal


@contextlib.contextmanager
def _locked(folder: pathlib.Path | str, *, wait: bool) -> Iterator[bool]:
    """Locks a temporary folder, so that others leave it alone; false if another process has locked it."""
    descriptor, alone = os.open(folder, os.O_RDONLY), True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # another has it, or the file system has no locks
        alone = False
    try:
        yield alone
    finally:
        os.close(descriptor)


def check(name: str, request: Request) -> tuple[list[str], list[str]]:
    """Checks a store or, where there is none, the official files; returns lines of what was found and what is wrong.

    Writes only official files: it unpacks their archive if need be and, with `download`, gets those that are missing.
    Raises DataError if there is nothing to check, or files are damaged.
    """
    task, where = find(name), store.directory(request.data_dir, name)
    if not where.exists():
        if request.generate:
            raise DataError(f"{where}: no store to check; prepare it first")
        plan = _plan(task, request)
        summaries = _count(task.FORMAT, plan.parts, name)
        found = [f"no store in {where}; {plan.origin}", *(s.describe(split) for split, s in summaries.items())]
        return found, [] if request.subset else unexpected(task.FORMAT, summaries, plan.facts)
    manifest = store.read_manifest(request.data_dir, name)
    stored = store.read(task.FORMAT, request.data_dir, verify=False)
    summaries = _count(task.FORMAT, {split: [examples] for split, examples in stored.splits.items()}, str(where))
    found = [f"store {where}: {manifest['origin']}", *(s.describe(split) for split, s in summaries.items())]
    wrong, digests = (
        [],
        [
            (where / f"{split}.{field}.npy", expected)
            for split, about in manifest["splits"].items()
            for field, expected in about["sha256"].items()
        ],
    )
    for file, expected in tqdm(digests, "hashing", unit=" files", disable=None, leave=False):
        if store.sha256(file) != expected:
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
    except official.Missing:
        if not request.download:
            raise
    official.download(format, request.data_dir)
    return task.plan(request)


def _count(
    format: Format, parts: Mapping[str, Iterable[Split]], where: str, folder: pathlib.Path | None = None
) -> dict[str, Summary]:
    """Checks and counts the examples of all splits and, with a folder, writes them to its files."""
    summaries = {}
    for split, some in parts.items():
        summary = summaries[split] = Summary(format)
        bar = tqdm(some, f"{format.name} {split}", unit=" parts", disable=None, leave=False)
        for i, examples in enumerate(bar):
            before = summary.examples
            summary.add(examples, f"{where}, {split}, part {i}")
            if folder:
                for field, values in examples.arrays.items():
                    _append(folder / f"{split}.{field}.npy", values, before)
        if not summary.examples:
            raise DataError(f"{format.name}: the split {split} would have no examples")
    return summaries


def _append(path: pathlib.Path, values: np.ndarray, before: int) -> None:
    """Appends examples to a .npy file of `before` examples. With a memory map a full disk would kill the process."""
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
        digests = {file.name.split(".")[1]: store.sha256(file) for file in sorted(folder.glob(f"{split}.*.npy"))}
        splits[split] = {"examples": summary.examples, "classes": summary.classes.tolist(), "sha256": digests}
    bar = tqdm(plan.sources, "hashing", unit=" files", disable=None, leave=False)
    folder_name = f"{request.data_dir}/"
    sources = {str(path).removeprefix(folder_name): store.sha256(path) for path in bar}  # relative_to is slow
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
    if blocks := {file.name: store.sha256_of_blocks(file) for file in sorted(folder.iterdir()) if store.is_large(file)}:
        manifest["blocks"] = blocks
    for path in (*folder.iterdir(), folder):
        files.sync(path)
    files.replace(folder / "manifest.json", json.dumps(manifest, indent=1))
