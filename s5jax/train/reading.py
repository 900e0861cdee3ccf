"""The checkpoints of a run, read by another process."""

import logging
import pathlib
import time
from typing import Literal

from s5jax.train import checkpoint
from s5jax.train.config import Config, UserError
from s5jax.train.step import TrainState

__all__ = ["read"]

_log = logging.getLogger(__name__)


def read(workdir: pathlib.Path, which: Literal["best", "latest"], like: TrainState, config: Config) -> TrainState:
    """The best or the newest checkpoint of a run that may be going on in another process; touches nothing.

    Raises UserError if there is none, it is damaged, or it belongs to another config.
    """
    directory = workdir.absolute() / "checkpoints"
    for _ in range(10):  # what is listed may be gone when it is read: then the run has something newer
        try:
            intact = [
                step for step in checkpoint.saved_steps(directory) if checkpoint.fault_of(directory / str(step)) is None
            ]
            if not intact:
                break
            progress = checkpoint.metadata(directory / str(intact[-1]), config)["progress"]
            step = progress["best_step"] if which == "best" else intact[-1]
            if step is None:
                raise UserError(f"{workdir} has not been evaluated yet, and so has no best checkpoint; take the latest")
            if step in intact:
                return checkpoint.load(directory / str(step), like)
        except UserError:
            raise
        except Exception as error:  # orbax's, tensorstore's or the file system's
            _log.debug("reading %s: %s", directory, error)
        time.sleep(0.1)
    raise UserError(f"{directory} has no {which} checkpoint that can be read")
