"""Checkpoints by orbax: the two newest and the best.

    checkpoints/<step>/             the state after that many steps, arrays by name, and its config and progress as JSON
    checkpoints/<step>/SEAL.json    checksums of the files, written when all of them are there
    checkpoints/damaged/            what no longer agreed with its seal

A checkpoint without a seal was never finished, and does not count. One that disagrees with its seal is not read: orbax
would not notice every flipped bit, and logs a traceback for each array of a file that it cannot read.
"""

import concurrent.futures
import contextlib
import copy
import functools
import json
import logging
import pathlib
import shutil
import tempfile
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from s5jax.train.config import Config, UserError
from s5jax.train.optimizer import path_name
from s5jax.train.resolve import resolve
from s5jax.train.step import TrainState

__all__ = ["Checkpoints", "fault_of", "load", "metadata", "saved_steps"]

SEAL = "SEAL.json"
UNFINISHED = "it was never finished"

_log = logging.getLogger(__name__)


class _NewestAndBest:
    """Orbax preservation policy. It keeps the former best too, as it acts before the new one is sealed."""

    best_steps: tuple[int | None, int | None] = (None, None)

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        kept = {*sorted(c.step for c in checkpoints)[-2:], *self.best_steps}
        return [c.step in kept for c in checkpoints]


class Checkpoints(contextlib.AbstractContextManager["Checkpoints"]):
    """The checkpoints of the run that this process does, as a context manager; for others see `reading.py`."""

    def __init__(self, workdir: pathlib.Path, config: Config):
        self.directory = workdir.absolute() / "checkpoints"
        self._config, self._keep = config, _NewestAndBest()
        self._thread = concurrent.futures.ThreadPoolExecutor(1)
        self._saving: concurrent.futures.Future[None] | None = None

    @functools.cached_property
    def _orbax(self) -> ocp.training.Checkpointer:
        """For saving. Opened at first use, when damaged checkpoints, which it would stumble over, are put aside."""
        return ocp.training.Checkpointer(
            self.directory,
            preservation_policy=self._keep,
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            cleanup_tmp_directories=True,
        )

    def __exit__(self, *_: object) -> None:
        try:
            self.wait()
        finally:
            self._thread.shutdown()
            if "_orbax" in self.__dict__:
                self._orbax.close()

    def save(self, state: TrainState, progress: dict[str, Any]) -> None:
        """Copies the state and writes it in the background, with what else resuming needs, as JSON.

        The checkpoint of the step `progress["best_step"]` is kept as the best so far.
        """
        self.wait()
        self._keep.best_steps = progress["best_step"], self._keep.best_steps[0]
        # Copies, since the next steps reuse the state's buffers and go on with the progress while these are written.
        host = jax.tree.map(np.array, jax.device_get(state))
        step, metadata = int(host.step), {"progress": copy.deepcopy(progress), "config": self._config.to_dict()}
        writing = self._orbax.save_async(step, _by_name(host), custom_metadata=metadata, overwrite=True)
        self._saving = self._thread.submit(self._seal, writing, step)

    def wait(self) -> None:
        """Returns when what was saved is on disk, and raises what saving it raised."""
        saving, self._saving = self._saving, None
        try:
            if saving is not None:
                saving.result()
        except OSError as error:
            raise UserError(f"a checkpoint could not be written to {self.directory}: {error}") from error

    def _seal(self, writing: Any, step: int) -> None:
        writing.result()
        directory = self.directory / str(step)
        temporary = directory / f"{SEAL}.tmp"
        temporary.write_text(json.dumps(_checksums(directory)))
        temporary.replace(directory / SEAL)

    def restore_latest(self, like: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """The newest intact checkpoint, as host arrays, with its progress; `None` if there is none to start from.

        Others that are damaged are moved to checkpoints/damaged, with a warning; if the best is among them,
        `progress["best_step"]` is `None`. Unfinished ones are removed. Raises UserError if all that there are are
        damaged, or they belong to another config.
        """
        faults = {step: fault_of(self.directory / str(step)) for step in saved_steps(self.directory)}
        intact = [step for step, fault in faults.items() if fault is None]
        if not intact and any(fault != UNFINISHED for fault in faults.values()):
            raise UserError(f"no checkpoint in {self.directory} is intact; remove the run's directory to start over")
        for step in faults.keys() - intact:
            directory = self.directory / str(step)
            if faults[step] == UNFINISHED:
                shutil.rmtree(directory)
                continue
            (self.directory / "damaged").mkdir(exist_ok=True)
            directory.rename(tempfile.mkdtemp(prefix=f"{step}-", dir=self.directory / "damaged"))
            _log.warning("warning: checkpoint %s is damaged: %s; moved to checkpoints/damaged", directory, faults[step])
        if not intact:
            return None
        progress = metadata(self.directory / str(intact[-1]), self._config)["progress"]
        if progress["best_step"] not in intact:
            progress |= {"best_step": None, "best": None}
        self._keep.best_steps = progress["best_step"], None
        return load(self.directory / str(intact[-1]), like), progress

    def restore(self, step: int, like: TrainState) -> TrainState:
        """The state after `step` steps, as host arrays. Raises UserError if it is not there, damaged, or another's."""
        directory = self.directory / str(step)
        fault = fault_of(directory)
        if fault is not None:
            raise UserError(f"checkpoint {directory} cannot be read: {fault}")
        return load(directory, like)


def saved_steps(directory: pathlib.Path) -> list[int]:
    """Steps there are checkpoints of in a directory, whether intact or not, in ascending order."""
    return sorted(int(path.name) for path in directory.glob("*") if path.name.isdecimal())


def load(directory: pathlib.Path, like: TrainState) -> TrainState:
    host = _by_name(jax.tree.map(lambda x: np.empty(x.shape, x.dtype), like))
    shapes: Any = ocp.metadata(directory).metadata
    there, here = ({name: x.shape for name, x in leaves.items()} for leaves in (shapes, host))
    for name in here | there:
        if there.get(name) != here.get(name):
            shape, wanted = (found.get(name, "none") for found in (there, here))
            raise UserError(f"checkpoint {directory}, {name}: its shape is {shape}, but {wanted} is needed here")
    stored = ocp.load(directory, host)
    return jax.tree.unflatten(jax.tree.structure(like), [stored[name] for name in host])


def metadata(directory: pathlib.Path, config: Config) -> dict[str, Any]:
    """The config and the progress that a checkpoint carries. Raises UserError if it belongs to another config."""
    metadata: Any = ocp.metadata(directory).custom_metadata
    if metadata["config"] != json.loads(json.dumps(config.to_dict())):
        from s5jax.train.compare import differences

        # Resolved, so that fields which are newer than the checkpoint have their defaults.
        different = differences(resolve(metadata["config"]).to_dict(), config.to_dict())
        if different:
            raise UserError(f"checkpoint {directory} belongs to another config; {different}")
    return metadata


def _by_name(state: TrainState) -> dict[str, Any]:
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state)}


def _checksums(directory: pathlib.Path) -> dict[str, int]:
    files = sorted(path for path in directory.rglob("*") if path.is_file() and not path.name.startswith(SEAL))
    return {str(path.relative_to(directory)): zlib.crc32(path.read_bytes()) for path in files}


def fault_of(directory: pathlib.Path) -> str | None:
    """Describes what is wrong with the files of a checkpoint; `None` if they are intact."""
    try:
        expected = json.loads((directory / SEAL).read_text())
    except FileNotFoundError:
        return UNFINISHED if directory.is_dir() else "it does not exist"
    except ValueError:
        return f"{SEAL} is unreadable"
    actual = _checksums(directory)
    changed = sorted(name for name in expected.keys() | actual.keys() if expected.get(name) != actual.get(name))
    return f"{len(changed)} of its files changed, {changed[0]} first" if changed else None
