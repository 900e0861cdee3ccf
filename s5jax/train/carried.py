"""The state that is carried from each batch of a text to the next: `config.train.carry_state`."""

from typing import Any

from s5jax.data.task import Task
from s5jax.models.model import Model
from s5jax.train.config import Config, UserError, explained


def init_memory(config: Config, task: Task, model: Model) -> Any:
    """The model's state before the first batch. Raises UserError if the task's sequences are not pieces of one
    text, the model cannot start from a state, or another option forbids it."""
    if not task.consecutive:
        raise UserError(f"config.train.carry_state: the sequences of task {task.name} are not pieces of one text")
    for field, is_set in (("optim.micro_batches", config.optim.micro_batches > 1), ("task.limit", config.task.limit)):
        if is_set:
            raise UserError(f"config.{field} cannot be combined with config.train.carry_state")
    with explained("config.train.carry_state"):
        return model.init_state(config.train.batch_size)
