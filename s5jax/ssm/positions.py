"""Positions of samples in their sequences, and rotation by them."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer


def places(
    L: int, reset: Bool[Array, "B L"] | None = None, count: Integer[Array, " B"] | None = None
) -> tuple[Integer[Array, "#B {L}"], Integer[Array, "#B {L}"]]:
    """The position of each step in its sequence, and the number of resets so far in its row. Both are (1, L) without
    `reset` and `count`. `count`: samples of the first sequence that came before."""
    index = jnp.arange(L, dtype=jnp.int32)[None]
    position = index if count is None else count[:, None] + index
    if reset is None:
        return position, jnp.zeros_like(position)
    start = jax.lax.cummax(jnp.where(reset, index, -1), axis=1)
    position = jnp.where(start < 0, position, index - start)
    return position, jnp.cumsum(reset, axis=1, dtype=jnp.int32)


def following(
    position: Integer[Array, "B L"], lengths: Integer[Array, " B"] | None, count: Integer[Array, " B"]
) -> Integer[Array, " B"]:
    """The position of the sample after the last valid step; `count` if there is no valid step."""
    if lengths is None:
        return position[:, -1] + 1
    last = jnp.take_along_axis(position, jnp.maximum(lengths - 1, 0)[:, None], axis=1)[:, 0]
    return jnp.where(lengths > 0, last + 1, count)


def rotate(x: Float[Array, "B L heads D"], position: Integer[Array, "#B L"]) -> Float[Array, "B L heads D"]:
    """Rotary positions (Su et al. 2021, arXiv 2104.09864): features d and d + E/2 are rotated by the
    angle p 10000^(-2d/E) at position p, d < E/2. E is D, or D - 1 if D is odd; then the last feature is unchanged."""
    # Angles are integers in units of 2^-32 turns (2^-64 in float64), so that overflow drops whole turns: the angle
    # between two samples depends on their distance only, without rounding, however long the stream.
    bits, integer, real = (64, np.int64, jnp.float64) if x.dtype == jnp.float64 else (32, np.int32, jnp.float32)
    E, unit = x.shape[-1] // 2 * 2, 2 * math.pi / 2**bits
    turn = jnp.asarray([round(10000 ** (-2 * d / E) / unit) for d in range(E // 2)], integer)
    angle = (position.astype(integer)[:, :, None] * turn[None, None]).astype(real)[:, :, None] * unit
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    a, b, rest = jnp.split(x.astype(real), [E // 2, E], axis=-1)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos, rest], -1).astype(x.dtype)
