"""Heads: from features (B, L, H) to what a task asks for.

A head has `fold(inputs)`, what it does to a batch in front of the stack, and `read(x, sequences)` behind it. In
recurrent mode it has a state of its own: `init_state`, and `read` takes it and gives the next one back.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Integer

from s5jax.models.options import Options
from s5jax.models.sequences import Sequences

__all__ = ["Head", "Kind", "PairHead", "Pooled", "SequenceHead", "StepHead", "make_head", "pool"]

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

    def __init__(self, options: Options, outputs: int, *, rngs: nnx.Rngs):
        super().__init__(options.d_model, outputs, rngs=rngs)
        self.pooling = options.pooling

    def fold(self, x: Any) -> Any:
        return x

    def read(
        self, x: Float[Array, "B L H"], sequences: Sequences, state: Pooled | None = None
    ) -> tuple[Float[Array, "B outputs"], Pooled | None]:
        """Outputs for what has been read, and the next state if one was given."""
        pooled, state = _pool(x, sequences, state, self.pooling)
        return self(pooled), state

    def init_state(self, batch: int) -> Pooled:
        return _nothing(batch, self.in_features, self.kernel[...].dtype)


class PairHead(nnx.Module):
    """A class of two documents e1, e2: layer2(gelu(layer1([e1, e2, e1 - e2, e1 e2]))) (arXiv 2011.04006, section 2.3).

    One stack reads both, in one batch of 2 B.
    """

    def __init__(self, options: Options, outputs: int, *, rngs: nnx.Rngs):
        self.pooling = options.pooling
        self.layer1 = nnx.Linear(4 * options.d_model, options.d_model, rngs=rngs)
        self.layer2 = nnx.Linear(options.d_model, outputs, rngs=rngs)

    def fold(self, x: Any) -> Any:
        """The axes (B, 2) as one; what has none stays as it is."""
        return x if x is None or jnp.ndim(x) == 0 else x.reshape(-1, *x.shape[2:])

    def __call__(self, documents: Float[Array, "B2 H"]) -> Float[Array, "B outputs"]:
        e1, e2 = jnp.moveaxis(documents.reshape(-1, 2, documents.shape[1]), 1, 0)
        return self.layer2(jax.nn.gelu(self.layer1(jnp.concatenate([e1, e2, e1 - e2, e1 * e2], axis=-1))))

    def read(
        self, x: Float[Array, "B2 L H"], sequences: Sequences, state: Pooled | None = None
    ) -> tuple[Float[Array, "B outputs"], Pooled | None]:
        pooled, state = _pool(x, sequences, state, self.pooling)
        return self(pooled), state

    def init_state(self, batch: int) -> Pooled:
        return _nothing(2 * batch, self.layer1.out_features, self.layer1.kernel[...].dtype)


class StepHead(nnx.Linear):
    """Something at each step: a dense layer, without memory."""

    def __init__(self, options: Options, outputs: int, *, rngs: nnx.Rngs):
        super().__init__(options.d_model, outputs, rngs=rngs)

    def fold(self, x: Any) -> Any:
        return x

    def read(
        self, x: Float[Array, "B L H"], sequences: Sequences, state: tuple[()] | None = None
    ) -> tuple[Float[Array, "B L outputs"], tuple[()] | None]:
        return self(x), state

    def init_state(self, batch: int) -> tuple[()]:
        return ()


Head = SequenceHead | PairHead | StepHead


def make_head(kind: Kind, options: Options, outputs: int, rngs: nnx.Rngs) -> Head:
    """The head of a model with so many outputs."""
    heads: dict[str, Any] = {"sequence": SequenceHead, "pair": PairHead, "step": StepHead}
    return heads[kind](options, outputs, rngs=rngs)


def pool(x: Float[Array, "B L H"], pooling: Pooling, counted: Bool[Array, "B L"] | None = None) -> Float[Array, "B H"]:
    """The mean over the steps that count, or the last of them; 0 where there are none."""
    if counted is None:
        return x.mean(1) if pooling == "mean" else x[:, -1]
    if pooling == "last":
        last = jnp.max(jnp.where(counted, jnp.arange(x.shape[1])[None], 0), 1)
        x = jnp.take_along_axis(x, last[:, None, None], axis=1)[:, 0]
        return _zero_where(~counted.any(1), x)
    return jnp.sum(jnp.where(counted[..., None], x, 0), 1) / jnp.maximum(counted.sum(1), 1)[:, None].astype(x.dtype)


def _pool(x: Array, sequences: Sequences, state: Pooled | None, pooling: Pooling) -> tuple[Array, Pooled | None]:
    if state is None:
        return pool(x, pooling, sequences.counted_of_last(x.shape[1])), None
    return state.read(x, sequences, pooling)


def _zero_where(condition: Bool[Array, " B"], x: Array) -> Array:
    return jnp.where(condition.reshape(-1, *(1,) * (x.ndim - 1)), 0, x)


def _nothing(batch: int, width: int, dtype: Any) -> Pooled:
    return Pooled(jnp.zeros((batch, width), dtype), jnp.zeros((batch, width), dtype), jnp.zeros(batch, jnp.int32))
