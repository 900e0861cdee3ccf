"""The state that is carried from each batch of a text to the next: `config.train.carry_state`."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from s5jax.data.task import Task
from s5jax.models.model import Model
from s5jax.objectives import Batch
from s5jax.train.config import Config, UserError
from s5jax.train.step import Hyper, TrainState

__all__ = ["init_memory", "memory_before"]


def init_memory(config: Config, task: Task, model: Model) -> Any:
    """The model's state before the first batch. Raises UserError if the task or the model has none to carry."""
    if not task.consecutive:
        raise UserError(f"config.train.carry_state: the sequences of task {task.name} are not pieces of one text")
    for field, is_set in (("optim.micro_batches", config.optim.micro_batches > 1), ("task.limit", config.task.limit)):
        if is_set:
            raise UserError(f"config.{field} cannot be combined with config.train.carry_state")
    try:
        return model.init_state(config.train.batch_size)
    except ValueError as error:
        raise UserError(f"config.train.carry_state: {error}") from error


def memory_before(state: TrainState, batch: Batch, hyper: Hyper, graphdef: nnx.GraphDef) -> Any:
    """The model's state before a batch: that after the batch before or, at the beginning of the text, a fresh one."""
    fresh = nnx.merge(graphdef, state.params, state.batch_stats).init_state(len(batch["inputs"]))
    return jax.tree.map(lambda new, old: jnp.where(hyper["fresh"], new, old), fresh, state.memory)
