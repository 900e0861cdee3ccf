"""Checks the evaluators that a config names before a run, says which are due, and collects what they report."""

import math
from typing import Any

from s5jax.data.task import Task
from s5jax.evaluators import Context
from s5jax.train.config import Config, UserError, explained
from s5jax.train.resolve import load_module


def check(config: Config, task: Task) -> None:
    """Raises UserError if an evaluator does not fit the model or the task."""
    for name, section in config.evaluators.items():
        module = load_module("evaluators", section.module)
        with explained(f"config.evaluators.{name}"):
            module.check(config, task, section.options) if hasattr(module, "check") else None


def due(config: Config, step: int, *, evaluating: bool, ending: bool) -> list[str]:
    """The evaluators that are due after `step` steps, by their names in the config."""
    names = []
    for name, section in config.evaluators.items():
        every = getattr(section.options, "every_steps", 0)
        at_start = getattr(load_module("evaluators", section.module), "AT_START", False)
        if ending or ((step % every == 0 if every else evaluating) if step else at_start):
            names.append(name)
    return names


def report(names: list[str], context: Context, state: Any) -> dict[str, float]:
    """What these evaluators report. Raises UserError unless each returns {name: finite number}."""
    values: dict[str, float] = {}
    for name in names:
        section = context.config.evaluators[name]
        reported = load_module("evaluators", section.module).evaluate(context, state, section.options)
        where = f"config.evaluators.{name}, step {context.step}"
        try:
            numbers = {str(key): float(value) for key, value in reported.items()}
        except (AttributeError, TypeError, ValueError):
            raise UserError(f"{where}: an evaluator must return {{name: number}}, got {reported!r}") from None
        for key, value in numbers.items():
            if not math.isfinite(value):
                raise UserError(f"{where}: {key} is {value}, not a finite number")
        values |= numbers
    return values
