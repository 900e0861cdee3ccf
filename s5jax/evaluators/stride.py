"""The objective at another sampling rate: every `stride`-th sample, with step sizes multiplied by `stride`."""

import dataclasses
from typing import Any, Literal

from s5jax.evaluators import Context

__all__ = ["Options", "evaluate"]


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


def evaluate(context: Context, state: Any, options: Options) -> dict[str, float]:
    """The metrics of the objective, named <split>/<metric>_stride_<stride>."""
    values = context.measure(state, options.split, stride=options.stride)
    return {f"{options.split}/{name}_stride_{options.stride}": value for name, value in values.items()}
