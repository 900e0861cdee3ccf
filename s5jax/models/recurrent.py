"""Recurrent mode, one sample at a time: the blocks of a stack, and the state of a pooling head."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.export import register_namedtuple_serialization
from jaxtyping import Array, Float, Shaped

from s5jax import mixers
from s5jax.models.block import in_float32
from s5jax.models.heads import Pooling, pool
from s5jax.models.stack import Stack
from s5jax.ssm.sequence import Flags, Sequences, known_rate

Cells = list[tuple[Any, Any]]
"""For each block its parameters and statistics, and the discretised mixer (`cell`) that its step takes."""


def init_state(stack: Stack, batch: int, *, max_length: int | None = None) -> tuple[Any, ...]:
    """The initial states of the mixers; see `Model.init_state`."""
    if stack.options.positions != "none":
        raise ValueError(
            f"positions {stack.options.positions} of the model have no recurrent mode; mixers may have some"
        )
    states = []
    for block in stack.blocks:
        mixers.require(block.mixer, "init_state", "step")
        states.append(block.mixer.init_state(block.params, block.mixer_options, batch, max_length=max_length))
    return tuple(states)


def check_state(state: Any, rows: Any) -> None:
    """Raises ValueError unless a state is that of `rows` sequences."""
    sizes = {leaf.shape[0] for leaf in jax.tree.leaves(state) if leaf.ndim}
    if sizes and rows not in sizes:
        raise ValueError(f"the state is that of a batch of {min(sizes)} sequences, the inputs are {rows}")


def discretize(stack: Stack, rate: Any = None) -> Cells:
    """The discretised blocks for `step`, computed once for many samples; see `Model.discretize`."""
    if rate is not None and jnp.ndim(rate) > 1:
        raise ValueError(f"a step takes a rate () or (B,), got one of shape {jnp.shape(rate)}")
    if rate is not None:
        rate = known_rate(rate)
    cells = []
    for block in stack.blocks:
        mixers.check(block.mixer, block.mixer_options, rate=rate)
        if rate is not None:
            mixers.require(block.mixer, "discretize")
        discretize = getattr(block.mixer, "discretize", lambda params, *_, **__: params)
        cell = discretize(block.params, block.mixer_options, rate=rate, **block.given_buffers)
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
    return in_float32(x), tuple(states)


class Pooled(NamedTuple):
    """Features pooled so far. Sums are stored with their rounding errors, so that a mean does not drift."""

    total: Float[Array, "B H1"]
    """(B, H + 1): the sum of each feature, or the features at the last sample; then the number of samples."""
    lost: Float[Array, "B H1"]
    """The rounding errors of `total`."""

    def read(
        self, x: Float[Array, "B L H"], sequences: Sequences, pooling: Pooling
    ) -> tuple[Float[Array, "B H"], "Pooled"]:
        """The features pooled over all samples of the last sequence so far, x included, and the next state."""
        starts, counted = sequences.starts(x.shape[1]), sequences.counted_of_last(x.shape[1])
        total, lost = self if starts is None else (jnp.where(starts.any(1)[:, None], 0, a) for a in self)
        counted = (jnp.ones(x.shape[:2], bool) if counted is None else counted)[..., None]
        count = counted.sum(1, dtype=jnp.int32).astype(x.dtype)
        if pooling == "last":
            read = jnp.where(count > 0, pool(x, "last", counted[..., 0]), total[:, :-1])
            return read, Pooled(jnp.concatenate([read, total[:, -1:] + count], 1), lost)
        # Compensated summation (Kahan 1965).
        added = jnp.concatenate([jnp.sum(jnp.where(counted, x, 0), 1), count], 1) - lost
        new = total + added
        return new[:, :-1] / jnp.maximum(new[:, -1:], 1), Pooled(new, (new - total) - added)


register_namedtuple_serialization(Pooled, serialized_name="s5jax.models.recurrent.Pooled")


def empty_pool(batch: int, width: int, dtype: Any) -> Pooled:
    """The state before any sample is read."""
    total, lost = (jnp.zeros((batch, width + 1), dtype) for _ in range(2))  # two arrays: each may be donated
    return Pooled(total, lost)
