"""The eigenvalues and step sizes of all mixers that have them, written to <workdir>/eigenvalues/<step, 8 digits>.npz.

A file holds `layers_<i>/eigenvalues`, complex, in radians per unit of the mixer's time, and `layers_<i>/step_size` in
that unit; the same bytes for the same parameters.
"""

import dataclasses
import os
from typing import Any

import jax
import numpy as np

from s5jax import mixers
from s5jax.evaluators import Context

__all__ = ["AT_START", "Options", "evaluate", "mixers_of", "report_unstable"]

AT_START = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    every_steps: int = 0
    """Steps between two files; 0: one with each evaluation."""

    def __post_init__(self) -> None:
        if self.every_steps < 0:
            raise ValueError(f"every_steps must be at least 0, got {self.every_steps}")


def mixers_of(config: Any, params: Any) -> dict[str, tuple[Any, Any, Any]]:
    """Of each block, `layers_0` first: the mixer's module, its options and parameters."""
    pattern, found = config.model.pattern, {}
    for i in range(config.model.depth):
        section = config.mixers[pattern[i % len(pattern)]]
        stacked = params["encoder"]["layers"][i % len(pattern)]["seq"]
        own = jax.tree.map(lambda x, i=i: x[i // len(pattern)], stacked)
        found[f"layers_{i}"] = (mixers.find(section.module), section.options, own)
    return found


def evaluate(context: Context, state: Any, options: Options) -> dict[str, float]:
    """Writes the file; there is nothing to report."""
    arrays: dict[str, Any] = {}
    for name, (mixer, mixer_options, params) in mixers_of(context.config, state.params).items():
        for key, function in (("eigenvalues", "eigenvalues"), ("step_size", "time_step")):
            if hasattr(mixer, function):
                arrays[f"{name}/{key}"] = np.asarray(getattr(mixer, function)(params, mixer_options))
    file = context.workdir / "eigenvalues" / f"{context.step:08d}.npz"
    file.parent.mkdir(exist_ok=True)
    temporary = file.with_name(file.name + ".tmp")
    with temporary.open("wb") as stream:
        np.savez(stream, **arrays)
    os.replace(temporary, file)
    return {}


def report_unstable(config: Any, params: Any) -> str | None:
    """Says which mixers have modes that may grow, Re(lambda) >= 0; `None` if there are none.

    Over a whole sequence, which is finite, they may do no harm; in recurrent mode they overflow sooner or later. (Not
    always in S4, whose low-rank part may damp what its diagonal does not.)
    """
    found, hint, cures = [], "", {"clip_eigs": True, "real_transform": "exp"}
    for i, (name, (mixer, options, own)) in enumerate(mixers_of(config, params).items()):
        real = np.asarray(mixer.eigenvalues(own, options).real) if hasattr(mixer, "eigenvalues") else np.zeros(0)
        if (real >= 0).any():
            found.append(f"{(real >= 0).sum()} of {real.size} modes of {name} (largest Re {real.max():.2g})")
            names = [f"{field}={value}" for field, value in cures.items() if getattr(options, field, value) != value]
            place = config.model.pattern[i % len(config.model.pattern)]
            hint = f"; config.mixers.{place}.{names[0]} keeps them below" if names else ""
    return f"may be unstable: Re(lambda) >= 0 in {', '.join(found)}{hint}" if found else None
