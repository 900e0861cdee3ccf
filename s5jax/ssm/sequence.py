"""Lengths, missing samples and resets of sequences, and the time between their samples."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer, Shaped

Rate = Float[Array, "..."] | float
Flags = Bool[Array, " B"] | None
NOT_RECURRENT = "a mixer with two directions has no recurrent mode"


def valid_steps(lengths: Integer[Array, "*batch"], L: int) -> Bool[Array, "*batch {L}"]:
    """True at the first `lengths` steps of each sequence; all false if it is longer than L."""
    lengths = lengths.astype(jnp.int32)[..., None]  # a narrow integer type may not hold L
    steps = jax.lax.broadcasted_iota(jnp.int32, (*lengths.shape[:-1], L), lengths.ndim - 1)
    return (steps < lengths) & (lengths <= L)


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


def border(
    x: Float[Array, "B L H"], lengths: Any = None, mask: Any = None, reset: Any = None, rate: Any = None
) -> tuple[Float[Array, "B L H"], Sequences]:
    """The arguments of a mixer, as arrays of the shapes that `s5jax.mixers` gives, and x with zeros in the padding and
    at missing samples, so that NaN there has no effect.

    ValueError for arguments of another type or shape, and for lengths outside 0..L. Under `jax.jit`, where these cannot
    be checked, x is NaN in their sequences.
    """
    B, L = time = x.shape[:2]
    if L == 0:
        raise ValueError("a sequence must have at least one step, got length 0")
    if lengths is not None:
        lengths = in_shape("lengths", lengths, jnp.integer, (B,)).astype(jnp.int32)
        outside = (lengths < 0) | (lengths > L)
        if not isinstance(outside, jax.core.Tracer) and outside.any():
            raise ValueError(f"lengths must lie in 0..{L}, got {lengths[outside][0]}")
        x = jnp.where(valid_steps(lengths, L)[..., None], x, 0)
    if mask is not None:
        mask = in_shape("mask", mask, jnp.bool_, time)
        x = jnp.where(mask[..., None], 0, x)
    if lengths is not None:
        x = jnp.where(outside[:, None, None], jnp.nan, x)
    reset = None if reset is None else in_shape("reset", reset, jnp.bool_, time)
    rate = None if rate is None else in_shape("rate", rate, jnp.number, (), (B,), time)
    return x, Sequences(lengths, mask, reset, rate)


def in_shape(name: str, value: Any, kind: Any, *shapes: tuple[Any, ...]) -> Array:
    """An argument as an array of one of these shapes; if a shape has several axes, axes of length 1 are broadcast.
    ValueError, which names the argument, if its type or its shape is another."""
    value = jnp.asarray(value)
    if not jnp.issubdtype(value.dtype, kind) or jnp.iscomplexobj(value):
        words = {jnp.integer: "integers", jnp.bool_: "boolean", jnp.number: "real numbers"}[kind]
        raise ValueError(f"{name} must be {words}, got {value.dtype}")
    for shape in shapes:
        fits = [n == m or (n == 1 and len(shape) > 1) for n, m in zip(value.shape, shape, strict=False)]
        if value.ndim == len(shape) and all(fits):
            return jnp.broadcast_to(value, shape)
    words = " or ".join(map(str, dict.fromkeys(shapes))).replace(" or ", ", ", max(0, len({*shapes}) - 2))
    raise ValueError(f"{name} must have the shape {words}, got {value.shape}")


def known_rate(rate: Rate) -> Array:
    """A rate, in floating point. ValueError if it is negative or not finite; under `jax.jit` it becomes NaN there."""
    rate = jnp.asarray(rate)
    rate = rate if jnp.issubdtype(rate.dtype, jnp.floating) else rate.astype(jnp.result_type(float))
    good = (rate >= 0) & jnp.isfinite(rate)
    if not isinstance(good, jax.core.Tracer) and not good.all():
        raise ValueError("rate must be finite and at least 0")
    return jnp.where(good, rate, jnp.nan)


def reset_state(
    state: Shaped[Array, "B ..."], reset: Bool[Array, "B L"] | None, lengths: Integer[Array, " B"] | None
) -> Shaped[Array, "B ..."]:
    """The state before the first step, set to zero, even if it is NaN, where the first step is a valid reset."""
    if reset is None:
        return state
    first = reset[:, 0] if lengths is None else reset[:, 0] & (lengths > 0)
    return jnp.where(first.reshape(-1, *(1,) * (state.ndim - 1)), 0, state)


def nan_where_invalid(y: Float[Array, "B L H"], lengths: Integer[Array, " B"] | None) -> Float[Array, "B L H"]:
    """y, or NaN in rows whose length is outside 0..L, for mixers that replace the NaN that `border` puts there."""
    if lengths is None:
        return y
    return jnp.where(((lengths < 0) | (lengths > y.shape[1]))[:, None, None], jnp.nan, y)


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
    """The time before each sample in step sizes: the rate, (), (B,) or (B, L), default 1. If (B, L), 1 in padding. See
    `known_rate` for invalid rates."""
    if rate is not None and lengths is not None and jnp.ndim(rate) == 2:
        rate = jnp.where(valid_steps(lengths, jnp.shape(rate)[1]), rate, 1)
    return 1.0 if rate is None else known_rate(rate)


def backward_gaps(rate: Rate | None, lengths: Integer[Array, " B"] | None, reset: Bool[Array, "#B #L"] | None) -> Rate:
    """`gaps` of the backward direction: the time after each sample. If (B, L), 1 at the last step of each sequence."""
    rate = gaps(rate, lengths)
    if jnp.ndim(rate) < 2:
        return rate
    rate = jnp.asarray(rate)
    following = jnp.concatenate([rate[:, 1:], jnp.ones_like(rate[:, :1])], 1)
    return jnp.where(end_before(reset, lengths, rate.shape[1]), 1, following)
