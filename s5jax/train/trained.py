"""Models that were trained, to use from Python."""

import pathlib
from typing import Any, Literal, NamedTuple

import jax
from flax import nnx

from s5jax import mixers
from s5jax.data import language
from s5jax.data.task import Task
from s5jax.models.model import Model
from s5jax.train.build import build, load_task
from s5jax.train.checkpoint import read
from s5jax.train.config import Config, UserError
from s5jax.train.step import TrainState
from s5jax.train.workdir import check_data, read_config, read_json

__all__ = ["Trained", "lacking", "load", "load_language_model"]


class Trained(NamedTuple):
    """A checkpoint of a run, and what it belongs to."""

    config: Config
    task: Task
    model: Model
    """With the averaged weights where the run averages them."""
    state: TrainState
    """As in the checkpoint."""
    start: TrainState
    """Before training."""


def lacking(config: Config, *functions: str) -> dict[int, str]:
    """The residual blocks whose mixers lack functions that a tool needs, by number: what a mixer lacks, in words."""
    found = {}
    for number in range(config.model.depth):
        name = config.model.pattern[number % len(config.model.pattern)]
        module = mixers.find(config.mixers[name].module)
        missing = [function for function in functions if not hasattr(module, function)]
        if missing:
            found[number] = f"{name} has no {' and no '.join(missing)}"
    return found


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
    check_data(workdir, config, task)
    return _load(workdir, which, config, task)


def load_language_model(
    workdir: pathlib.Path | str, which: Literal["best", "latest"] = "best"
) -> tuple[Model, dict[str, Any]]:
    """A language model of a run, without its text, and the `facts` of its task, with which `data.language` reads text.

    Raises:
      UserError: there is no run in this directory, no such checkpoint, it is not a language model, or it reads ahead.
    """
    workdir = pathlib.Path(workdir)
    config = read_config(workdir)
    file = workdir / "data.json"
    facts = read_json(file) if file.exists() else {}
    if "num_tokens" not in facts:
        raise UserError(f"{workdir} does not hold a language model: its task is {config.task.name}")
    task = language.blank(config.task.name, config.task.options.context, facts)
    return _load(workdir, which, config, task).model, facts


def _load(workdir: pathlib.Path, which: Literal["best", "latest"], config: Config, task: Task) -> Trained:
    experiment, start = build(config, task)
    state = jax.device_put(read(workdir, which, start, config))
    trained = state.evaluated
    model = nnx.merge(experiment.graphdef, trained["params"], trained["batch_stats"])
    return Trained(config, task, model, state, start)
