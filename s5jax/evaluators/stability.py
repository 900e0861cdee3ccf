"""Which mixers of a model have modes that may grow; the training loop warns of them at each evaluation."""

from typing import Any

import jax
import numpy as np

from s5jax import mixers


def mixers_of(config: Any, params: Any) -> dict[str, tuple[Any, Any, Any]]:
    """The mixer of each block, `layers_0` first: its module, options and parameters."""
    pattern, found = config.model.pattern, {}
    for i in range(config.model.depth):
        section = config.mixers[pattern[i % len(pattern)]]
        stacked = params["encoder"]["layers"][i % len(pattern)]["seq"]
        own = jax.tree.map(lambda x, i=i: x[i // len(pattern)], stacked)
        found[f"layers_{i}"] = (mixers.find(section.module), section.options, own)
    return found


def report_unstable(config: Any, params: Any) -> str | None:
    """Says which mixers have modes that may grow, Re(lambda) >= 0; `None` if there are none.

    Over a whole sequence, which is finite, they may do no harm; in recurrent mode they overflow sooner or later. (Not
    always in S4, whose low-rank part may damp what its diagonal does not.)
    """
    found, hints = [], []
    for i, (name, (mixer, options, own)) in enumerate(mixers_of(config, params).items()):
        real = np.asarray(mixer.eigenvalues(own, options).real) if hasattr(mixer, "eigenvalues") else np.zeros(0)
        growing = ~(real < 0)  # NaN counts
        if growing.any():
            found.append(f"{growing.sum()} of {real.size} modes of {name} (largest Re {real.max():.2g})")
            for field, value in (("clip_eigs", True), ("real_transform", "exp")):
                if getattr(options, field, value) != value:
                    section = config.model.pattern[i % len(config.model.pattern)]
                    hints.append(f"; config.mixers.{section}.{field}={value} keeps them below")
    return f"may be unstable: Re(lambda) >= 0 in {', '.join(found)}{''.join(dict.fromkeys(hints))}" if found else None
