"""Heads: from features (B, L, H) to the outputs of a task. Others are in `pair_head.py` and `step_head.py`.

A head has `fold(inputs)`, applied to the batch before the stack, and `read(x, sequences)`, applied to the stack's
output. In recurrent mode it has its own state (`pooled.py`): `init_state(batch)` creates it, and `read` takes and
returns it. `documents` is the number of sequences per example; `per_step` is true if there is an output per step.
"""

from typing import Any, Literal

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from s5jax.models.options import Options
from s5jax.models.sequences import Sequences

__all__ = ["Kind", "Pooling", "SequenceHead", "make_head", "pool", "read_pooled", "zero_where"]

Kind = Literal["sequence", "pair", "step"]
"""What the outputs of a model describe: a sequence, a pair of documents, or each step."""
Pooling = Literal["mean", "last"]


class SequenceHead(nnx.Linear):
    """One output vector per sequence: pooling over steps, then a dense layer."""

    documents, per_step = 1, False

    def __init__(self, options: Options, outputs: int, *, rngs: nnx.Rngs):
        super().__init__(options.d_model, outputs, rngs=rngs)
        self.pooling = options.pooling

    def fold(self, x: Any) -> Any:
        return x

    def read(
        self, x: Float[Array, "B L H"], sequences: Sequences, state: Any = None
    ) -> tuple[Float[Array, "B outputs"], Any]:
        """Outputs given all samples read so far, and the next state if one was given."""
        pooled, state = read_pooled(x, sequences, state, self.pooling)
        return self(pooled), state

    def init_state(self, batch: int) -> Any:
        from s5jax.models.pooled import empty_pool

        return empty_pool(batch, self.in_features, self.kernel[...].dtype)


def make_head(kind: Kind, options: Options, outputs: int, rngs: nnx.Rngs) -> Any:
    """The head of a model, by its kind, with `outputs` numbers per sequence, pair or step."""
    if kind == "pair":
        from s5jax.models.pair_head import PairHead

        return PairHead(options, outputs, rngs=rngs)
    if kind == "step":
        from s5jax.models.step_head import StepHead

        return StepHead(options, outputs, rngs=rngs)
    return SequenceHead(options, outputs, rngs=rngs)


def pool(x: Float[Array, "B L H"], pooling: Pooling, counted: Bool[Array, "B L"] | None = None) -> Float[Array, "B H"]:
    """The mean of x over the steps where `counted`, or x at the last one; 0 if there are none. Default: all steps."""
    if counted is None:
        return x.mean(1) if pooling == "mean" else x[:, -1]
    if pooling == "last":
        last = jnp.max(jnp.where(counted, jnp.arange(x.shape[1])[None], 0), 1)
        x = jnp.take_along_axis(x, last[:, None, None], axis=1)[:, 0]
        return zero_where(~counted.any(1), x)
    return jnp.sum(jnp.where(counted[..., None], x, 0), 1) / jnp.maximum(counted.sum(1), 1)[:, None].astype(x.dtype)


def read_pooled(
    x: Float[Array, "B L H"], sequences: Sequences, state: Any, pooling: Pooling
) -> tuple[Float[Array, "B H"], Any]:
    """`pool` of x; with a state, of all samples read so far, and the next state."""
    if state is None:
        return pool(x, pooling, sequences.counted_of_last(x.shape[1])), None
    return state.read(x, sequences, pooling)


def zero_where(condition: Bool[Array, " B"], x: Array) -> Array:
    """Sets rows of x (B, ...) to zero."""
    return jnp.where(condition.reshape(-1, *(1,) * (x.ndim - 1)), 0, x)
