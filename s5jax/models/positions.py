"""Positions that are added to the features once, before the first block."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from s5jax.ssm.positions import places
from s5jax.ssm.sequence import Sequences


def add(stack: Any, x: Float[Array, "B L H"], sequences: Sequences) -> Float[Array, "B L H"]:
    """x + p, with p at each sample's position since the last reset. Missing samples count.

    `sinusoidal`: `sines`. `learned`: the rows of the stack's table, one for each step of the training sequences, which
    start normal with standard deviation 0.02. ValueError for more steps.
    """
    L, H = x.shape[1:]
    position, _ = places(L, sequences.reset)
    if stack.options.positions == "sinusoidal":
        return x + sines(position, H).astype(x.dtype)
    table = stack.positions[...]
    if len(table) < L:
        raise ValueError(f"a sequence of {L} steps is longer than the table of {len(table)} positions of training")
    return x + jnp.take(table, position, 0).astype(x.dtype)


def sines(position: Integer[Array, "B L"], H: int) -> Float[Array, "B L {H}"]:
    """sin(k f_i) at feature 2i and cos(k f_i) at 2i + 1, f_i = 10000^(-2i/H), of position k (Vaswani et al. 2017, arXiv
    1706.03762, section 3.5)."""
    frequency = jnp.asarray([10000 ** (-2 * i / H) for i in range((H + 1) // 2)], jnp.float32)
    angle = position.astype(jnp.float32)[..., None] * frequency[None, None]
    return jnp.stack([jnp.sin(angle), jnp.cos(angle)], -1).reshape(*position.shape, -1)[..., :H]
