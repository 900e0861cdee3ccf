"""Evaluators compute something of a state besides the objective on the validation split; a config lists them.

An evaluator is a module with

    Options                             a frozen dataclass: the section `evaluators.<name>` of a config
    evaluate(context, state, options)   what is reported, {name: number}; it may also write files to the workdir

and, where not every model or task will do, `check(config, task, options)`, which raises ValueError before training.
Its option `every_steps`, if it has one, says how often it is called; 0: with each evaluation. With `AT_START = True` it
is also called before the first step.
"""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

from s5jax.data.task import Task

__all__ = ["Context"]


class Context(NamedTuple):
    """What an evaluator may use besides the state."""

    config: Any
    task: Task
    workdir: pathlib.Path
    step: int
    """Steps done."""
    measure: Callable[..., dict[str, float]]
    """`measure(state, split, stride=1)`: the objective's metrics over a whole split."""
