"""Lengths, missing samples and resets of sequences, and the time between their samples."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer, Shaped

Rate = Float[Array, "..."] | float
Flags = Bool[Array, " B"] | None


def valid_steps(lengths: Integer[Array, "*batch"], L: int) -> Bool[Array, "*batch {L}"]:
    """True at the first `lengths` steps of each sequence."""
    lengths = lengths.astype(jnp.int32)  # a narrow integer type may not hold L
    return jax.lax.broadcasted_iota(jnp.int32, (*lengths.shape, L), lengths.ndim) < lengths[..., None]


class Sequences(NamedTuple):
    """The arguments that all mixers share, explained in `s5jax.mixers`; `None`: the default."""

    lengths: Integer[Array, " B"] | None = None
    mask: Bool[Array, "B L"] | None = None
    reset: Bool[Array, "B L"] | None = None
    rate: Float[Array, "..."] | float | None = None

    def counted(self, L: int) -> Bool[Array, "B {L}"] | None:
        """True at samples that are valid and not missing; `None`: at all samples."""
        valid = None if self.lengths is None else valid_steps(self.lengths, L)
        if self.mask is None:
            return valid
        present = jnp.logical_not(self.mask)
        return present if valid is None else valid & present

    def starts(self, L: int) -> Bool[Array, "B {L}"] | None:
        """True at valid steps where a new sequence starts; `None`: nowhere."""
        if self.reset is None or self.lengths is None:
            return self.reset
        return self.reset & valid_steps(self.lengths, L)

    def counted_of_last(self, L: int) -> Bool[Array, "B {L}"] | None:
        """`counted`, restricted to the last sequence of each row."""
        counted, starts = self.counted(L), self.starts(L)
        if starts is None:
            return counted
        steps = jnp.arange(L)[None]
        last = steps >= jnp.max(jnp.where(starts, steps, 0), axis=1, keepdims=True)
        return last if counted is None else last & counted


def clean(
    x: Float[Array, "B L H"], lengths: Integer[Array, " B"] | None = None, mask: Bool[Array, "B L"] | None = None
) -> Float[Array, "B L H"]:
    """Sets x to zero in the padding and at missing samples, so that NaN there has no effect."""
    L = x.shape[1]
    if L == 0:
        raise ValueError("a sequence must have at least one step, got length 0")
    if lengths is not None:
        x = jnp.where(valid_steps(lengths, L)[..., None], x, 0)
    return x if mask is None else jnp.where(mask[..., None], 0, x)


def in_shape(
    x: Float[Array, "B L H"], rate: Rate | None, reset: Bool[Array, "#B #L"] | None
) -> tuple[Rate | None, Bool[Array, "B L"] | None]:
    """Broadcasts `reset`, and `rate` if it has two axes, to (B, L) of x."""
    if rate is not None and jnp.ndim(rate) == 2:
        rate = jnp.broadcast_to(jnp.asarray(rate), x.shape[:2])
    return rate, None if reset is None else jnp.broadcast_to(reset, x.shape[:2])


def reset_state(
    state: Shaped[Array, "B ..."], reset: Bool[Array, "B L"] | None, lengths: Integer[Array, " B"] | None
) -> Shaped[Array, "B ..."]:
    """The state before the first step, set to zero, even if it is NaN, where the first step is a valid reset."""
    if reset is None:
        return state
    first = reset[:, 0] if lengths is None else reset[:, 0] & (lengths > 0)
    return jnp.where(first.reshape(-1, *(1,) * (state.ndim - 1)), 0, state)


def end_before(reset: Bool[Array, "#B #L"] | None, lengths: Integer[Array, " B"] | None, L: int) -> Bool[Array, "#B L"]:
    """True at the last steps of sequences: step L - 1, the last valid step, and steps before a reset. (1 or B, L)."""
    steps = jnp.arange(L, dtype=jnp.int32)[None]
    last = steps == L - 1
    if lengths is not None:
        last = last | (steps == lengths.astype(jnp.int32)[:, None] - 1)
    if reset is not None:
        last = last | jnp.concatenate([reset[:, 1:], jnp.ones_like(reset[:, :1])], 1)
    return last


def gaps(rate: Rate | None, lengths: Integer[Array, " B"] | None) -> Rate:
    """The time before each sample in step sizes: the rate, (), (B,) or (B, L), default 1. If (B, L), 1 in padding."""
    if rate is None or lengths is None or jnp.ndim(rate) < 2:
        return 1.0 if rate is None else rate
    rate = jnp.asarray(rate)
    return jnp.where(valid_steps(lengths, rate.shape[1]), rate, 1)


def backward_gaps(rate: Rate | None, lengths: Integer[Array, " B"] | None, reset: Bool[Array, "#B #L"] | None) -> Rate:
    """`gaps` of the backward direction: the time after each sample. If (B, L), 1 at the last step of each sequence."""
    rate = gaps(rate, lengths)
    if jnp.ndim(rate) < 2:
        return rate
    rate = jnp.asarray(rate)
    following = jnp.concatenate([rate[:, 1:], jnp.ones_like(rate[:, :1])], 1)
    return jnp.where(end_before(reset, lengths, rate.shape[1]), 1, following)
