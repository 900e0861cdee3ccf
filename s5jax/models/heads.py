"""Heads: from features (B, L, H) to what a task asks for. More are in `pair_head.py` and `step_head.py`.

A head has `fold(inputs)`, what it does to a batch in front of the stack, and `read(x, sequences)` behind it. In
recurrent mode it has a state of its own (`pooled.py`): `init_state`, and `read` takes it and gives the next one back.
`documents` is the number of sequences in an example, `per_step` whether there is an output for each step.
"""

from typing import Any, Literal

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from s5jax.models.options import Options
from s5jax.models.sequences import Sequences

__all__ = ["Kind", "Pooling", "SequenceHead", "make_head", "pool", "read_pooled", "zero_where"]

Kind = Literal["sequence", "pair", "step"]
"""What a model's outputs describe: a sequence, a pair of documents, or each step."""
Pooling = Literal["mean", "last"]


class SequenceHead(nnx.Linear):
    """A class or a vector for each sequence: pooling, then a dense layer."""

    documents, per_step = 1, False

    def __init__(self, options: Options, outputs: int, *, rngs: nnx.Rngs):
        super().__init__(options.d_model, outputs, rngs=rngs)
        self.pooling = options.pooling

    def fold(self, x: Any) -> Any:
        return x

    def read(
        self, x: Float[Array, "B L H"], sequences: Sequences, state: Any = None
    ) -> tuple[Float[Array, "B outputs"], Any]:
        """Outputs for what has been read, and the next state if one was given."""
        pooled, state = read_pooled(x, sequences, state, self.pooling)
        return self(pooled), state

    def init_state(self, batch: int) -> Any:
        from s5jax.models.pooled import nothing_pooled

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
        return zero_where(~counted.any(1), x)
    return jnp.sum(jnp.where(counted[..., None], x, 0), 1) / jnp.maximum(counted.sum(1), 1)[:, None].astype(x.dtype)


def read_pooled(
    x: Float[Array, "B L H"], sequences: Sequences, state: Any, pooling: Pooling
) -> tuple[Float[Array, "B H"], Any]:
    """`pool` or, from a state, all that has been read."""
    if state is None:
        return pool(x, pooling, sequences.counted_of_last(x.shape[1])), None
    return state.read(x, sequences, pooling)


def zero_where(condition: Bool[Array, " B"], x: Array) -> Array:
    return jnp.where(condition.reshape(-1, *(1,) * (x.ndim - 1)), 0, x)
