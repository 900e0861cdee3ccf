"""Positions that are added to the features once, before the first block."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from s5jax.ssm.positions import places
from s5jax.ssm.sequence import Sequences


def add(stack: Any, x: Float[Array, "B L H"], sequences: Sequences) -> Float[Array, "B L H"]:
    """x + p, with p at each sample's position since the last reset. A missing sample takes up a position.

    `sinusoidal`: `sines`. `learned`: the rows of the stack's table, one for each step of the training sequences,
    initialised normal with standard deviation 0.02. ValueError for more steps.
    """
    L, H = x.shape[1:]
    position, _ = places(L, sequences.reset)
    if stack.options.positions == "sinusoidal":
        return x + jnp.take(jnp.asarray(sines(L, H), x.dtype), position, 0)
    table = stack.positions[...]
    if len(table) < L:
        raise ValueError(f"a sequence of {L} steps is longer than the table of {len(table)} positions of training")
    return x + jnp.take(table, position, 0).astype(x.dtype)


def sines(L: int, H: int) -> Float[np.ndarray, "{L} {H}"]:
    """sin(k f_i) at feature 2i and cos(k f_i) at 2i + 1, f_i = 10000^(-2i/H), of positions k < L, in float64
    (Vaswani et al. 2017, arXiv 1706.03762, section 3.5)."""
    angle = np.outer(np.arange(L), [10000 ** (-2 * i / H) for i in range((H + 1) // 2)])
    return np.stack([np.sin(angle), np.cos(angle)], -1).reshape(L, -1)[:, :H]
