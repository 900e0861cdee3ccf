"""The eigenvalues and step sizes of all mixers that have them, written to <workdir>/eigenvalues/<step, 8 digits>.npz.

A file holds `layers_<i>/eigenvalues`, complex, in radians per unit of the mixer's time, and `layers_<i>/step_size` in
that unit; the same bytes for the same parameters. Where weights are averaged, they are those of the average.
"""

import dataclasses
from typing import Any

import numpy as np

from s5jax.data import files
from s5jax.evaluators import Context
from s5jax.evaluators.stability import mixers_of

AT_START = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    every_steps: int = 0
    """Steps between two files; 0: one with each evaluation."""

    def __post_init__(self) -> None:
        if self.every_steps < 0:
            raise ValueError(f"every_steps must be at least 0, got {self.every_steps}")


def evaluate(context: Context, state: Any, options: Options) -> dict[str, float]:
    """Writes the file; there is nothing to report."""
    arrays: dict[str, Any] = {}
    for name, (mixer, mixer_options, params) in mixers_of(context.config, state.evaluated["params"]).items():
        for key, function in (("eigenvalues", "eigenvalues"), ("step_size", "time_step")):
            if hasattr(mixer, function):
                arrays[f"{name}/{key}"] = np.asarray(getattr(mixer, function)(params, mixer_options))
    file = context.workdir / "eigenvalues" / f"{context.step:08d}.npz"
    file.parent.mkdir(exist_ok=True)
    with files.replacing(file) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)
    return {}
