"""Heads: from features (B, L, H) to the outputs of a task. `pair_head.py` has the one for pairs of documents.

A head has `fold(inputs)`, applied to the batch before the stack, and `read(x, sequences, state)`, applied to the
stack's output, which returns the outputs and, given a state of the head, the next state. `init_state(batch)` creates
the first. `documents` is the number of sequences per example; `per_step` is true if there is an output per step.
"""

from typing import Any, Literal

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from s5jax.models.options import Options
from s5jax.ssm.sequence import Sequences

Pooling = Literal["mean", "last"]


class Head(nnx.Linear):
    """A dense layer on the pooled features of a sequence or, with `per_step`, at each step; then it has no state."""

    documents = 1

    def __init__(self, options: Options, outputs: int, *, per_step: bool, rngs: nnx.Rngs):
        super().__init__(options.d_model, outputs, rngs=rngs)
        self.pooling, self.per_step = options.pooling, per_step

    def fold(self, x: Any) -> Any:
        return x

    def read(self, x: Float[Array, "B L H"], sequences: Sequences, state: Any = None) -> tuple[Array, Any]:
        if not self.per_step:
            x, state = read_pooled(x, sequences, state, self.pooling)
        return self(x), state

    def init_state(self, batch: int) -> Any:
        from s5jax.models.recurrent import empty_pool

        return () if self.per_step else empty_pool(batch, self.in_features, self.kernel[...].dtype)


def pool(x: Float[Array, "B L H"], pooling: Pooling, counted: Bool[Array, "B L"] | None = None) -> Float[Array, "B H"]:
    """The mean of x over the steps where `counted`, or x at the last one; 0 if there are none. Default: all steps."""
    if counted is None:
        return x.mean(1) if pooling == "mean" else x[:, -1]
    if pooling == "last":
        last = jnp.max(jnp.where(counted, jnp.arange(x.shape[1])[None], 0), 1)
        x = jnp.take_along_axis(x, last[:, None, None], axis=1)[:, 0]
        return jnp.where(counted.any(1)[:, None], x, 0)
    return jnp.sum(jnp.where(counted[..., None], x, 0), 1) / jnp.maximum(counted.sum(1), 1)[:, None].astype(x.dtype)


def read_pooled(x: Float[Array, "B L H"], sequences: Sequences, state: Any, pooling: Pooling) -> tuple[Array, Any]:
    """`pool` of x; with a state (`recurrent.Pooled`), of all samples read so far, and the next state."""
    if state is None:
        return pool(x, pooling, sequences.counted_of_last(x.shape[1])), None
    return state.read(x, sequences, pooling)
