"""Heads: from features (B, L, H) to what a task asks for; `pair_head.py` and `step_head.py` have the others.

A head has `fold(inputs)`, what it does to a batch in front of the stack, and `read(x, sequences)` behind it. In
recurrent mode it has a state of its own: `init_state`, and `read` takes it and gives the next one back. `documents` is
the number of sequences in an example, `per_step` whether there is an output for each step.
"""

from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Integer

from s5jax.models.options import Options
from s5jax.models.sequences import Sequences

__all__ = ["Kind", "Pooled", "SequenceHead", "make_head", "nothing_pooled", "pool", "pool_further"]

Kind = Literal["sequence", "pair", "step"]
"""What a model's outputs describe: a sequence, a pair of documents, or each step."""
Pooling = Literal["mean", "last"]


class Pooled(NamedTuple):
    """Features pooled so far. The sum is kept with what rounding has lost of it, so that a mean does not drift."""

    total: Float[Array, "B H"]
    """The sum, or the last features."""
    lost: Float[Array, "B H"]
    steps: Integer[Array, " B"]
    """Samples in the sum."""

    def read(
        self, x: Float[Array, "B L H"], sequences: Sequences, pooling: Pooling
    ) -> tuple[Float[Array, "B H"], "Pooled"]:
        """The features pooled over all that has been read of the last sequence, x included, and the next state."""
        starts, counted = sequences.starts(x.shape[1]), sequences.counted_of_last(x.shape[1])
        total, lost, steps = self if starts is None else (_zero_where(starts.any(1), array) for array in self)
        counted = jnp.ones(x.shape[:2], bool) if counted is None else counted
        more = counted.sum(1, dtype=jnp.int32)
        if pooling == "last":
            total = jnp.where(more[:, None] > 0, pool(x, "last", counted), total)
            return total, Pooled(total, lost, steps + more)
        # Compensated summation (Kahan 1965).
        added = jnp.sum(jnp.where(counted[..., None], x, 0), 1) - lost
        new, steps = total + added, steps + more
        return new / jnp.maximum(steps, 1)[:, None].astype(x.dtype), Pooled(new, (new - total) - added, steps)


class SequenceHead(nnx.Linear):
    """A class or a vector for each sequence: pooling, then a dense layer."""

    documents, per_step = 1, False

    def __init__(self, options: Options, outputs: int, *, rngs: nnx.Rngs):
        super().__init__(options.d_model, outputs, rngs=rngs)
        self.pooling = options.pooling

    def fold(self, x: Any) -> Any:
        return x

    def read(
        self, x: Float[Array, "B L H"], sequences: Sequences, state: Pooled | None = None
    ) -> tuple[Float[Array, "B outputs"], Pooled | None]:
        """Outputs for what has been read, and the next state if one was given."""
        pooled, state = pool_further(x, sequences, state, self.pooling)
        return self(pooled), state

    def init_state(self, batch: int) -> Pooled:
        return nothing_pooled(batch, self.in_features, self.kernel[...].dtype)


def make_head(kind: Kind, options: Options, outputs: int, rngs: nnx.Rngs) -> Any:
    """The head of a model with so many outputs."""
    if kind == "pair":
        from s5jax.models.pair_head import PairHead

        return PairHead(options, outputs, rngs=rngs)
    if kind == "step":
        from s5jax.models.step_head import StepHead

        return StepHead(options, outputs, rngs=rngs)
    return SequenceHead(options, outputs, rngs=rngs)


def pool(x: Float[Array, "B L H"], pooling: Pooling, counted: Bool[Array, "B L"] | None = None) -> Float[Array, "B H"]:
    """The mean over the steps that count, or the last of them; 0 where there are none."""
    if counted is None:
        return x.mean(1) if pooling == "mean" else x[:, -1]
    if pooling == "last":
        last = jnp.max(jnp.where(counted, jnp.arange(x.shape[1])[None], 0), 1)
        x = jnp.take_along_axis(x, last[:, None, None], axis=1)[:, 0]
        return _zero_where(~counted.any(1), x)
    return jnp.sum(jnp.where(counted[..., None], x, 0), 1) / jnp.maximum(counted.sum(1), 1)[:, None].astype(x.dtype)


def pool_further(
    x: Float[Array, "B L H"], sequences: Sequences, state: Pooled | None, pooling: Pooling
) -> tuple[Float[Array, "B H"], Pooled | None]:
    """`pool` or, from a state, all that has been read."""
    if state is None:
        return pool(x, pooling, sequences.counted_of_last(x.shape[1])), None
    return state.read(x, sequences, pooling)


def _zero_where(condition: Bool[Array, " B"], x: Array) -> Array:
    return jnp.where(condition.reshape(-1, *(1,) * (x.ndim - 1)), 0, x)


def nothing_pooled(batch: int, width: int, dtype: Any) -> Pooled:
    return Pooled(jnp.zeros((batch, width), dtype), jnp.zeros((batch, width), dtype), jnp.zeros(batch, jnp.int32))
