"""Checkpoints by orbax. Those kept are the two newest and, for each of these, the one that was the best at that time.

    checkpoints/<step>/             the state after that many steps, arrays by name, its config and progress as JSON
    checkpoints/<step>/SEAL.json    checksums of the files, written when all of them are there
    checkpoints/damaged/            checkpoints that disagreed with their seals

A checkpoint without a seal was never finished, and does not count. One that disagrees with its seal is not read: orbax
would not notice every flipped bit, and logs a traceback for each array of a file that it cannot read.
"""

import concurrent.futures
import contextlib
import copy
import functools
import json
import logging
import os
import pathlib
import re
import sys
import tempfile
import zlib
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from s5jax.data.files import remove, sync
from s5jax.train.config import Config, UserError
from s5jax.train.optimizer import path_name
from s5jax.train.resolve import resolve
from s5jax.train.step import TrainState
from s5jax.train.workdir import differences, write_json

SEAL = "SEAL.json"
UNFINISHED = "it was never finished, or is missing"

_log = logging.getLogger(__name__)


class Checkpoints(contextlib.AbstractContextManager["Checkpoints"]):
    """The checkpoints of the run that this process trains; other processes use `trained.read`."""

    def __init__(self, workdir: pathlib.Path, config: Config, data: dict[str, Any] | None = None):
        self.directory, self._config = workdir.absolute() / "checkpoints", config
        self._sha256 = data["sha256"] if data else None
        if self.directory.exists() and not self.directory.is_dir():
            raise UserError(f"{self.directory} is a file, where checkpoints should be: move it away")
        _hide_tracebacks()
        self._thread = concurrent.futures.ThreadPoolExecutor(1)
        self._saving: concurrent.futures.Future[None] | None = None
        self._best: tuple[int | None, int | None] = None, None  # of the second newest and of the newest checkpoint

    def __exit__(self, *_: object) -> None:
        with self._thread:
            self.wait()

    def save(self, state: TrainState, progress: dict[str, Any]) -> None:
        """Copies the state and writes it in the background, with the progress and the config as JSON.

        Then deletes the others. It keeps this one, the one before, and the best one as of each of these two saves.
        """
        self.wait()
        if not self.directory.parent.is_dir():  # orbax would make it again
            raise UserError(f"{self.directory.parent} is gone, moved or removed: what was saved before went with it")
        # Copies, since the next steps reuse the state's buffers and go on with the progress while these are written.
        host = jax.tree.map(np.array, jax.device_get(state))
        metadata = {"progress": copy.deepcopy(progress), "config": self._config.to_dict(), "sha256": self._sha256}
        self._saving = self._thread.submit(self._write, int(host.step), _by_name(host), metadata)

    def _write(self, step: int, arrays: dict[str, Any], metadata: dict[str, Any]) -> None:
        directory = self.directory / str(step)
        context = ocp.Context()
        context.asynchronous.create_directories_asynchronously = False  # if that failed, a thread waits 20 minutes
        try:
            with context:
                ocp.save(directory, arrays, custom_metadata=metadata, overwrite=True)
        except Exception as error:  # orbax's, tensorstore's or the file system's
            code = re.search(r"os_error_code='(\d+)'", str(error))
            reason = os.strerror(int(code[1])) if code else str(error).partition("\n")[0]
            raise OSError(f"{reason} ({directory})") from error
        for path in (*directory.rglob("*"), directory, self.directory):
            sync(path)
        write_json(directory / SEAL, _checksums(directory))
        self._best = self._best[-1], metadata["progress"]["best_step"]
        for old in {*saved_steps(self.directory)[:-2]} - {*self._best}:
            (self.directory / str(old) / SEAL).unlink(missing_ok=True)  # if killed here, it counts as unfinished
            remove(self.directory / str(old))

    def wait(self) -> None:
        """Waits until the last save is on disk. Raises UserError if writing failed."""
        saving, self._saving = self._saving, None
        try:
            if saving is not None:
                saving.result()
        except OSError as error:
            intact = [step for step, fault in faults_in(self.directory).items() if fault is None]
            then = (
                f"that of step {intact[-1]} is intact, the same command goes on" if intact else "there is no other yet"
            )
            raise UserError(f"a checkpoint could not be written: {error}; {then}") from error

    def restore_latest(self, like: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """The newest intact checkpoint, as host arrays, with its progress; `None` if there is none to start from.

        Unfinished ones are removed, and damaged ones moved to checkpoints/damaged; if the best is among them,
        `progress["best_step"]` is `None`. UserError if all are damaged, or they belong to another config.
        """
        faults = faults_in(self.directory)
        intact = [step for step, fault in faults.items() if fault is None]
        # If none is intact, a killed run has left at most one, and it is unfinished; anything else is damage.
        if not intact and (len(faults) > 1 or any(fault != UNFINISHED for fault in faults.values())):
            raise UserError(f"no checkpoint in {self.directory} is intact; remove the run's directory to start over")
        for unfinished in self.directory.glob("*.orbax-checkpoint-tmp*"):  # of a process that was killed
            remove(unfinished)
        for step in faults.keys() - intact:
            directory = self.directory / str(step)
            if faults[step] == UNFINISHED:
                remove(directory)
                continue
            (self.directory / "damaged").mkdir(exist_ok=True)
            directory.rename(tempfile.mkdtemp(prefix=f"{step}-", dir=self.directory / "damaged"))
            _log.warning("warning: checkpoint %s is damaged: %s; moved to checkpoints/damaged", directory, faults[step])
        if not intact:
            return None
        newest = self.directory / str(intact[-1])
        progress = progress_of(newest, self._config, self._sha256)
        if progress["best_step"] not in intact:
            if progress["best_step"] is not None:
                _log.warning("warning: checkpoint %s, the best, is missing or damaged", progress["best_step"])
            progress |= {"best_step": None, "best": None}
        self._best = None, progress["best_step"]
        return load(newest, like), progress

    def restore(self, step: int, like: TrainState) -> TrainState:
        """The state after `step` steps, as host arrays. Raises UserError if its checkpoint is missing or damaged."""
        fault = _fault_of(self.directory / str(step))
        if fault is not None:
            raise UserError(f"checkpoint {self.directory / str(step)} cannot be read: {fault}")
        return load(self.directory / str(step), like)


@functools.cache
def _hide_tracebacks() -> None:
    """Where a save fails, orbax logs, and tensorstore prints, up to a hundred tracebacks besides raising the error."""

    def hook(fault: Any, print_all: Any = sys.unraisablehook) -> None:
        if str(fault.exc_value) != "Event loop is closed":
            print_all(fault)

    sys.unraisablehook = hook
    for name in ("absl", "asyncio", "concurrent.futures"):
        logging.getLogger(name).addFilter(_is_not_of_orbax)


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
    trace = logging.Formatter().formatException(record.exc_info) if record.exc_info else ""
    return record.levelno < logging.ERROR or not re.search("orbax|tensorstore", record.pathname + trace)


def saved_steps(directory: pathlib.Path) -> list[int]:
    """The steps of the checkpoints in a directory, intact or not, in ascending order."""
    return sorted(int(path.name) for path in directory.glob("*") if path.name.isdecimal())


def faults_in(directory: pathlib.Path) -> dict[int, str | None]:
    """For each of `saved_steps` what is wrong with the files of the checkpoint; `None` if they are intact."""
    return {step: _fault_of(directory / str(step)) for step in saved_steps(directory)}


def load(directory: pathlib.Path, like: Any) -> Any:
    """The state in a checkpoint, as host arrays; if `like` is a dict, only the fields of `TrainState` that it names.
    UserError if its arrays are not those of `like`."""
    host, partial = _by_name(jax.tree.map(lambda x: np.empty(x.shape, x.dtype), like)), isinstance(like, dict)
    there, here = ({name: x.shape for name, x in leaves.items()} for leaves in (ocp.metadata(directory).metadata, host))
    for name in here if partial else here | there:
        shape, wanted = there.get(name, "missing"), here.get(name, "unknown")
        if shape != wanted:
            raise UserError(f"checkpoint {directory}, {name}: {shape} in the checkpoint, {wanted} to this model")
    context = ocp.Context()
    context.pytree.loading.partial_load = partial
    with context:
        arrays = ocp.load(directory, host)
    return jax.tree.unflatten(jax.tree.structure(like), [arrays[name] for name in host])


def progress_of(directory: pathlib.Path, config: Config, sha256: str | None) -> dict[str, Any]:
    """The progress that a checkpoint carries. UserError if it belongs to another config, or to data with another hash;
    `None`: the data are not known."""
    metadata: Any = ocp.metadata(directory).custom_metadata
    different = differences(resolve(metadata["config"]), config)  # fields newer than the checkpoint have their defaults
    if different:
        raise UserError(f"checkpoint {directory} belongs to another config; {different}")
    if sha256 and metadata.get("sha256") not in (sha256, None):
        raise UserError(f"checkpoint {directory} was trained on other data than task {config.task.name} gives now")
    return metadata["progress"]


def _by_name(state: Any) -> dict[str, Any]:
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state)}


def _checksums(directory: pathlib.Path) -> dict[str, int]:
    files = sorted(path for path in directory.rglob("*") if path.is_file() and not path.name.startswith(SEAL))
    return {str(path.relative_to(directory)): zlib.crc32(path.read_bytes()) for path in files}


def _fault_of(directory: pathlib.Path) -> str | None:
    try:
        expected = json.loads((directory / SEAL).read_text())
    except FileNotFoundError:
        return UNFINISHED
    except ValueError:
        return f"{SEAL} is unreadable"
    actual = _checksums(directory)
    changed = sorted(name for name in expected.keys() | actual.keys() if expected.get(name) != actual.get(name))
    return f"{len(changed)} of its files changed, {changed[0]} first" if changed else None
