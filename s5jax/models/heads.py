"""Heads: from features (B, L, H) to what a task asks for.

A head has `fold(inputs)`, what it does to a batch in front of the stack, and `read(x, sequences)` behind it. In
recurrent mode it has a state of its own: `init_state`, and `read` and `step` take it and give the next one back.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from s5jax.models.options import Options
from s5jax.models.stack import Sequences

__all__ = ["Kind", "PairHead", "Pooled", "SequenceHead", "StepHead", "make_head", "pool"]

Kind = Literal["sequence", "pair", "step"]
"""What a model says something about: a sequence, a pair of documents, each step."""


class Pooled(NamedTuple):
    """Features pooled so far. Their sum is kept with what rounding has lost of it, so that a mean does not drift."""

    total: Float[Array, "B H"]
    """The sum, or the last features."""
    lost: Float[Array, "B H"]
    steps: Array
    """(B,): samples in the sum."""

    def add(self, x: Float[Array, "B H"], steps: Array | int) -> "Pooled":
        """With the sum x of so many more samples (compensated summation, Kahan 1965)."""
        x = x - self.lost
        total = self.total + x
        return Pooled(total, (total - self.total) - x, self.steps + steps)

    def mean(self) -> Float[Array, "B H"]:
        return self.total / jnp.maximum(self.steps, 1)[:, None].astype(self.total.dtype)


class SequenceHead(nnx.Linear):
    """A class or a vector of a sequence: pooling, then a dense layer."""

    def __init__(self, options: Options, outputs: int, *, rngs: nnx.Rngs):
        super().__init__(options.d_model, outputs, rngs=rngs)
        self.pooling = options.pooling

    def fold(self, x: Any) -> Any:
        return x

    def read(
        self, x: Float[Array, "B L H"], sequences: Sequences, state: Pooled | None = None
    ) -> tuple[Float[Array, "B outputs"], Pooled | None]:
        """Outputs for what has been read, and the next state if one was given."""
        pooled, state = _pool_further(x, sequences, self.pooling, state)
        return self(pooled), state

    def step(
        self, x: Float[Array, "B H"], mask: Array | None, reset: Array | None, state: Pooled
    ) -> tuple[Float[Array, "B outputs"], Pooled]:
        """`read` of one sample."""
        pooled, state = _pool_step(x, mask, reset, self.pooling, state)
        return self(pooled), state

    def init_state(self, batch: int) -> Pooled:
        return _nothing(batch, self.kernel[...].shape[0], self.kernel[...].dtype)


class PairHead(nnx.Module):
    """A class of two documents e1, e2: layer2(gelu(layer1([e1, e2, e1 - e2, e1 e2]))) (arXiv 2011.04006, section 2.3).

    One stack reads both, in one batch of 2 B.
    """

    def __init__(self, options: Options, outputs: int, *, rngs: nnx.Rngs):
        self.pooling = options.pooling
        self.layer1 = nnx.Linear(4 * options.d_model, options.d_model, rngs=rngs)
        self.layer2 = nnx.Linear(options.d_model, outputs, rngs=rngs)

    def __call__(self, documents: Float[Array, "B2 H"]) -> Float[Array, "B outputs"]:
        e1, e2 = jnp.moveaxis(documents.reshape(-1, 2, documents.shape[1]), 1, 0)
        return self.layer2(jax.nn.gelu(self.layer1(jnp.concatenate([e1, e2, e1 - e2, e1 * e2], axis=-1))))

    def fold(self, x: Any) -> Any:
        """The axes (B, 2) as one; what has none stays as it is."""
        return x if x is None or jnp.ndim(x) == 0 else x.reshape(-1, *x.shape[2:])

    def read(
        self, x: Float[Array, "B2 L H"], sequences: Sequences, state: Pooled | None = None
    ) -> tuple[Float[Array, "B outputs"], Pooled | None]:
        pooled, state = _pool_further(x, sequences, self.pooling, state)
        return self(pooled), state

    def step(
        self, x: Float[Array, "B2 H"], mask: Array | None, reset: Array | None, state: Pooled
    ) -> tuple[Float[Array, "B outputs"], Pooled]:
        pooled, state = _pool_step(x, mask, reset, self.pooling, state)
        return self(pooled), state

    def init_state(self, batch: int) -> Pooled:
        return _nothing(2 * batch, *self.layer1.kernel[...].shape[1:], self.layer1.kernel[...].dtype)


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

    def step(
        self, x: Float[Array, "B H"], mask: Array | None, reset: Array | None, state: tuple[()]
    ) -> tuple[Float[Array, "B outputs"], tuple[()]]:
        return self(x), state

    def init_state(self, batch: int) -> tuple[()]:
        return ()


Head = SequenceHead | PairHead | StepHead


def make_head(kind: Kind, options: Options, outputs: int, rngs: nnx.Rngs) -> Head:
    """The head of a model with so many outputs."""
    heads: dict[str, Any] = {"sequence": SequenceHead, "pair": PairHead, "step": StepHead}
    return heads[kind](options, outputs, rngs=rngs)


def pool(
    x: Float[Array, "B L H"], pooling: Literal["mean", "last"], counted: Bool[Array, "B L"] | None = None
) -> Float[Array, "B H"]:
    """The mean over the steps that count, or the last of them; 0 where there are none."""
    if counted is None:
        return x.mean(1) if pooling == "mean" else x[:, -1]
    if pooling == "last":
        steps = jnp.arange(x.shape[1])[None]
        last = jnp.max(jnp.where(counted, steps, 0), 1)
        x = jnp.take_along_axis(x, last[:, None, None], axis=1)[:, 0]
        return jnp.where(counted.any(1)[:, None], x, 0)
    return jnp.sum(jnp.where(counted[..., None], x, 0), 1) / jnp.maximum(counted.sum(1), 1)[:, None].astype(x.dtype)


def _counted(sequences: Sequences, L: int) -> Bool[Array, "B L"] | None:
    """The steps that are pooled: those of the last sequence, where several stand in a row."""
    counted, reset = sequences.counted(L), sequences.reset
    if reset is None:
        return counted
    if sequences.lengths is not None:
        reset = reset & sequences._replace(mask=None).counted(L)
    latest = jnp.cumsum(reset[:, ::-1], 1)[:, ::-1] - reset == 0  # no sequence starts after this step
    return latest if counted is None else latest & counted


def _pool_further(
    x: Array, sequences: Sequences, pooling: Literal["mean", "last"], state: Pooled | None
) -> tuple[Array, Pooled | None]:
    """The features pooled over all that has been read, and the next state if there is one."""
    L = x.shape[1]
    counted = _counted(sequences, L)
    if state is None:
        return pool(x, pooling, counted), None
    if sequences.reset is not None:
        valid = sequences._replace(mask=None).counted(L)
        started = sequences.reset if valid is None else sequences.reset & valid
        state = _start_over(state, started.any(1))
    steps = jnp.full(len(x), L, jnp.int32) if counted is None else counted.sum(1, dtype=jnp.int32)
    if pooling == "mean":
        state = state.add(x.sum(1) if counted is None else jnp.sum(jnp.where(counted[..., None], x, 0), 1), steps)
        return state.mean(), state
    total = jnp.where(steps[:, None] > 0, pool(x, "last", counted), state.total)
    return total, Pooled(total, state.lost, state.steps + steps)


def _pool_step(
    x: Array, mask: Array | None, reset: Array | None, pooling: Literal["mean", "last"], state: Pooled
) -> tuple[Array, Pooled]:
    if reset is not None:
        state = _start_over(state, reset)
    new = state.add(x, 1) if pooling == "mean" else Pooled(x, state.lost, state.steps + 1)
    if mask is not None:
        new = jax.tree.map(lambda a, b: jnp.where(mask.reshape(-1, *(1,) * (a.ndim - 1)), a, b), state, new)
    return new.mean() if pooling == "mean" else new.total, new


def _start_over(state: Pooled, reset: Array) -> Pooled:
    return jax.tree.map(lambda a: jnp.where(reset.reshape(-1, *(1,) * (a.ndim - 1)), 0, a), state)


def _nothing(batch: int, width: int, dtype: Any) -> Pooled:
    return Pooled(jnp.zeros((batch, width), dtype), jnp.zeros((batch, width), dtype), jnp.zeros(batch, jnp.int32))
