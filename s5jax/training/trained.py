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
from s5jax.training.workdir import read_config

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


def load(workdir: pathlib.Path | str, which: Literal["best", "latest"] = "best") -> Trained:
    """The model of a run, from its best checkpoint or its newest.

    Raises:
      UserError: there is no run in this directory, or no such checkpoint.
    """
    workdir = pathlib.Path(workdir)
    config = read_config(workdir)
    task = load_task(config)
    experiment, start = states.build(config, task)
    state = jax.device_put(checkpoint.read(workdir, which, start))
    return Trained(config, task, nnx.merge(experiment.graphdef, state.params, state.batch_stats), state, start)
