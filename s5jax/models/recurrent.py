"""Recurrent mode, one sample at a time: the blocks of a stack, and the state of a pooling head."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.export import register_namedtuple_serialization
from jaxtyping import Array, Float, Integer, Shaped

from s5jax import mixers
from s5jax.models.heads import Pooling, pool
from s5jax.models.stack import Stack
from s5jax.ssm.sequence import Flags, Sequences

Cells = list[tuple[Any, Any]]
"""For each block its parameters and statistics, and the discretised mixer (`cell`) that its step takes."""


def init_state(stack: Stack, batch: int, *, max_length: int | None = None) -> tuple[Any, ...]:
    """The initial states of the mixers; see `Model.init_state`."""
    states = []
    for block in stack.blocks:
        mixers.require(block.mixer, "init_state", "step")
        states.append(block.mixer.init_state(block.params, block.mixer_options, batch, max_length=max_length))
    return tuple(states)


def discretize(stack: Stack, rate: Any = None) -> Cells:
    """The discretised blocks for `step`, computed once for many samples; see `Model.discretize`."""
    if rate is not None and jnp.ndim(rate) > 1:
        raise ValueError(f"a step takes a rate () or (B,), got one of shape {jnp.shape(rate)}")
    if rate is not None:
        if not isinstance(rate, jax.core.Tracer) and not (np.isfinite(rate).all() and (np.asarray(rate) >= 0).all()):
            raise ValueError(f"rate must be finite and at least 0, got {rate}")
        rate = jnp.where((jnp.asarray(rate) >= 0) & jnp.isfinite(rate), rate, jnp.nan)
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
    stack: Stack, state: Any, inputs: Shaped[Array, "B ..."], cells: Cells, *, mask: Flags = None, reset: Flags = None
) -> tuple[Float[Array, "B H"], tuple[Any, ...]]:
    """Processes one sample, values (B, C) or token ids (B,). Returns the features (B, H) and the next states."""
    for block in stack.layers:
        mixers.check(block.mixer, block.mixer_options, mask=mask, reset=reset)
    x, states = stack.encode(inputs, None if mask is None else ~mask), []
    graphdefs = [nnx.graphdef(layer) for layer in stack.layers]
    for i, ((arrays, cell), start) in enumerate(zip(cells, state, strict=True)):
        block = nnx.merge(graphdefs[i % len(graphdefs)], arrays)
        given = {"options": block.mixer_options, "mask": mask, "reset": reset}
        x, end = block(x, mix=functools.partial(block.mixer.step, cell, start, **given))
        states.append(end)
    return x, tuple(states)


class Pooled(NamedTuple):
    """Features pooled so far. The sum is stored with its rounding error, so that the mean does not drift."""

    total: Float[Array, "B H"]
    """The sum, or the features at the last step."""
    lost: Float[Array, "B H"]
    """The rounding error of the sum."""
    steps: Integer[Array, " B"]
    """Samples in the sum."""

    def read(
        self, x: Float[Array, "B L H"], sequences: Sequences, pooling: Pooling
    ) -> tuple[Float[Array, "B H"], "Pooled"]:
        """The features pooled over all samples of the last sequence so far, x included, and the next state."""
        starts, counted = sequences.starts(x.shape[1]), sequences.counted_of_last(x.shape[1])
        total, lost, steps = self
        if starts is not None:
            new = starts.any(1)
            total, lost, steps = (jnp.where(new.reshape(-1, *(1,) * (a.ndim - 1)), 0, a) for a in self)
        counted = jnp.ones(x.shape[:2], bool) if counted is None else counted
        more = counted.sum(1, dtype=jnp.int32)
        if pooling == "last":
            total = jnp.where(more[:, None] > 0, pool(x, "last", counted), total)
            return total, Pooled(total, lost, steps + more)
        # Compensated summation (Kahan 1965).
        added = jnp.sum(jnp.where(counted[..., None], x, 0), 1) - lost
        new, steps = total + added, steps + more
        return new / jnp.maximum(steps, 1)[:, None].astype(x.dtype), Pooled(new, (new - total) - added, steps)


register_namedtuple_serialization(Pooled, serialized_name="s5jax.models.recurrent.Pooled")


def empty_pool(batch: int, width: int, dtype: Any) -> Pooled:
    """The state before any sample is read."""
    return Pooled(jnp.zeros((batch, width), dtype), jnp.zeros((batch, width), dtype), jnp.zeros(batch, jnp.int32))
