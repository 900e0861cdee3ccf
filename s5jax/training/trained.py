"""Models that were trained, to use from Python."""

import pathlib
from typing import Literal, NamedTuple

import jax
from flax import nnx

from s5jax.data.task import Task
from s5jax.models.classifier import Classifier
from s5jax.models.retrieval import Retrieval
from s5jax.training import checkpoint
from s5jax.training import state as states
from s5jax.training.config import Config, load_task
from s5jax.training.workdir import claim_data, read_config

__all__ = ["Trained", "load"]


class Trained(NamedTuple):
    """A checkpoint of a run, and what it belongs to."""

    config: Config
    task: Task
    model: Classifier | Retrieval
    state: states.TrainState
    """As in the checkpoint; `model` holds its parameters and statistics."""
    start: states.TrainState
    """Before training."""


def load(
    workdir: pathlib.Path | str,
    which: Literal["best", "latest"] = "best",
    data_dir: pathlib.Path | str | None = None,
) -> Trained:
    """The model of a run, from its best checkpoint or its newest.

    Args:
      workdir: of the run.
      which: checkpoint.
      data_dir: where the prepared data are, if not where they were in training.

    Raises:
      UserError: there is no run in this directory, no such checkpoint, or the data are not those it was trained on.
    """
    workdir = pathlib.Path(workdir)
    config = read_config(workdir, data_dir)
    task = load_task(config)
    claim_data(workdir, config)
    experiment, start = states.build(config, task)
    state = jax.device_put(checkpoint.read(workdir, which, start))
    return Trained(config, task, nnx.merge(experiment.graphdef, state.params, state.batch_stats), state, start)
