"""Evaluators compute further metrics of a training state, in addition to the objective on the validation split.

The config lists the evaluators of a run. An evaluator is a module with

    Options                             a frozen dataclass: the section `evaluators.<name>` of a config
    evaluate(context, state, options)   returns the metrics to report, {name: number}; may write files to the workdir

and, where not every model or task will do, `check(config, task, options)`, which raises ValueError before training.
Its option `every_steps`, if it has one, is the number of steps between calls; 0: with each evaluation. It is also
called after the last step and, with `AT_START = True`, before the first.
"""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

from s5jax.data.task import Task


class Context(NamedTuple):
    """The inputs of an evaluator other than the state."""

    config: Any
    task: Task
    workdir: pathlib.Path
    step: int
    """Number of completed training steps."""
    measure: Callable[..., dict[str, float]]
    """`measure(state, split, stride=1)` returns the metrics of the objective on a whole split, {name: number}."""
