"""The objective at another sampling rate: every `stride`-th sample, with step sizes multiplied by `stride`."""

import dataclasses
from typing import Any, Literal

from s5jax import mixers
from s5jax.data.task import Task, counted_of_last
from s5jax.evaluators import Context


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    stride: int = 2
    """Use every `stride`-th sample."""
    split: Literal["train", "val", "test"] = "val"
    """The split to evaluate on."""
    every_steps: int = 0
    """Steps between evaluations; 0: with each evaluation of the objective."""

    def __post_init__(self) -> None:
        if self.stride < 1 or self.every_steps < 0:
            raise ValueError(f"need stride >= 1 and every_steps >= 0, got {self.stride} and {self.every_steps}")


def check(config: Any, task: Task, options: Options) -> None:
    check_stride(config, task, options.split, options.stride)


def check_stride(config: Any, task: Task, split: str, stride: int) -> None:
    """Raises ValueError if a split of the task, or the model, cannot be evaluated with this stride."""
    if not 1 <= stride <= task.length:
        raise ValueError(f"stride {stride} must lie in 1..{task.length}, the samples of a sequence")
    if stride == 1:
        return
    if task.num_tokens is not None:
        raise ValueError(f"stride {stride} is for samples of a signal, but task {task.name} gives tokens")
    for name in ("rate", "reset", *(("weights",) if task.per_step else ())):
        if name in task.splits[split].arrays:
            raise ValueError(f"stride {stride} does not fit task {task.name}, which has a {name} for each step")
    pooled = task.splits[split].mask is not None and not task.per_step
    if pooled and not counted_of_last(task.splits[split], task.length)[..., ::stride].any(-1).all():
        raise ValueError(f"stride {stride} leaves nothing of some sequences: all other samples are missing")
    for mixer in config.mixers.values():
        try:
            mixers.check(mixers.find(mixer.module), mixer.options, rate=stride)
        except ValueError as error:
            raise ValueError(f"stride {stride} multiplies step sizes, but {error}") from None


def evaluate(context: Context, state: Any, options: Options) -> dict[str, float]:
    """The metrics of the objective, named <split>/<metric>_stride_<stride>."""
    values = context.measure(state, options.split, stride=options.stride)
    return {f"{options.split}/{name}_stride_{options.stride}": value for name, value in values.items()}
