"""Recurrent mode of a stack of blocks: one sample at a time."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Shaped

from s5jax import mixers
from s5jax.models.stack import Stack

__all__ = ["Cells", "discretize", "init_state", "step"]

Cells = list[tuple[Any, Any]]
"""For each block its parameters and statistics, and the discretised mixer (`cell`) that its step takes."""


def init_state(stack: Stack, batch: int, *, max_length: int | None = None) -> tuple[Any, ...]:
    """The initial states of the mixers; see `Model.init_state`."""
    for block in stack.layers:
        mixers.require(block.mixer, "init_state", "step")
    return tuple(
        block.mixer.init_state(block.params, block.mixer_options, batch, max_length=max_length)
        for block in stack.blocks
    )


def discretize(stack: Stack, rate: Float[Array, "..."] | float | None = None) -> Cells:
    """The discretised blocks for `step`, computed once for many samples; `rate`: () or (B,), default 1.

    Raises:
      ValueError: a mixer is bidirectional or does not support a rate, or the rate has another shape.
    """
    if rate is not None and jnp.ndim(rate) > 1:
        raise ValueError(f"a step takes a rate () or (B,), got one of shape {jnp.shape(rate)}")
    cells = []
    for block in stack.blocks:
        mixers.check(block.mixer, block.mixer_options, rate=rate)
        if rate is not None:
            mixers.require(block.mixer, "discretize")
        discretize = getattr(block.mixer, "discretize", lambda params, *_, **__: params)
        cell = discretize(block.params, block.mixer_options, rate=rate)
        cells.append((nnx.to_pure_dict(nnx.state(block)), cell))
    return cells


def step(
    stack: Stack,
    state: tuple[Any, ...],
    inputs: Shaped[Array, "B ..."],
    cells: Cells,
    *,
    mask: Bool[Array, " B"] | None = None,
    reset: Bool[Array, " B"] | None = None,
) -> tuple[Float[Array, "B H"], tuple[Any, ...]]:
    """Processes one sample, values (B, C) or token ids (B,). Returns the features (B, H) and the next states."""
    for block in stack.layers:
        mixers.check(block.mixer, block.mixer_options, mask=mask, reset=reset)
    x, states = stack.encode(inputs, None if mask is None else ~mask), []
    graphdefs = [nnx.graphdef(layer) for layer in stack.layers]
    for i, ((arrays, cell), start) in enumerate(zip(cells, state, strict=True)):
        x, end = nnx.merge(graphdefs[i % len(graphdefs)], arrays).step(cell, start, x, mask=mask, reset=reset)
        states.append(end)
    return x, tuple(states)
