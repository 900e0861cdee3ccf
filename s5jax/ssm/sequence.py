"""Where sequences end, what is missing in them, where new ones start, and how much time passes between samples."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer, Shaped

Rate = Float[Array, "..."] | float


def valid_steps(lengths: Integer[Array, "*batch"], L: int) -> Bool[Array, "*batch {L}"]:
    """True at the steps before each sequence's end."""
    lengths = lengths.astype(jnp.int32)  # a narrow integer may hold every length, but not L
    return jax.lax.broadcasted_iota(jnp.int32, (*lengths.shape, L), lengths.ndim) < lengths[..., None]


def clean(
    x: Float[Array, "B L H"], lengths: Integer[Array, " B"] | None = None, mask: Bool[Array, "B L"] | None = None
) -> Float[Array, "B L H"]:
    """x with zeros after each sequence's end and at missing samples, even for NaN. ValueError if L is 0."""
    L = x.shape[1]
    if L == 0:
        raise ValueError("a sequence has at least one step, got length 0")
    if lengths is not None:
        x = jnp.where(valid_steps(lengths, L)[..., None], x, 0)
    return x if mask is None else jnp.where(mask[..., None], 0, x)


def in_shape(
    x: Float[Array, "B L H"], rate: Rate | None, reset: Bool[Array, "#B #L"] | None
) -> tuple[Rate | None, Bool[Array, "B L"] | None]:
    """The rate, where it has two axes, and the reset in the shape (B, L) of x; ValueError if that cannot be."""
    if rate is not None and jnp.ndim(rate) == 2:
        rate = jnp.broadcast_to(jnp.asarray(rate), x.shape[:2])
    return rate, None if reset is None else jnp.broadcast_to(reset, x.shape[:2])


def reset_state(
    state: Shaped[Array, "B ..."], reset: Bool[Array, "B L"] | None, lengths: Integer[Array, " B"] | None
) -> Shaped[Array, "B ..."]:
    """The state before the first step: zero, even for NaN, where the first valid step is a reset."""
    if reset is None:
        return state
    first = reset[:, 0] if lengths is None else reset[:, 0] & (lengths > 0)
    return jnp.where(first.reshape(-1, *(1,) * (state.ndim - 1)), 0, state)


def end_before(reset: Bool[Array, "#B #L"] | None, lengths: Integer[Array, " B"] | None, L: int) -> Bool[Array, "#B L"]:
    """True at the last step of each sequence: before the batch's end, its own, or the start of another."""
    steps = jnp.arange(L, dtype=jnp.int32)[None]
    last = steps == L - 1
    if lengths is not None:
        last = last | (steps == lengths.astype(jnp.int32)[:, None] - 1)
    if reset is not None:
        last = last | jnp.concatenate([reset[:, 1:], jnp.ones_like(reset[:, :1])], 1)
    return last


def gaps(rate: Rate | None, lengths: Integer[Array, " B"] | None) -> Rate:
    """The time before each sample, in step sizes: the rate, 1 after each sequence's end; `None` is 1."""
    if rate is None or lengths is None or jnp.ndim(rate) < 2:
        return 1.0 if rate is None else rate
    rate = jnp.asarray(rate)
    return jnp.where(valid_steps(lengths, rate.shape[1]), rate, 1)


def backward_gaps(rate: Rate | None, lengths: Integer[Array, " B"] | None, reset: Bool[Array, "#B #L"] | None) -> Rate:
    """The time after each sample, which a state crosses on its way backwards; 1 at the end of each sequence."""
    rate = gaps(rate, lengths)
    if jnp.ndim(rate) < 2:
        return rate
    rate = jnp.asarray(rate)
    following = jnp.concatenate([rate[:, 1:], jnp.ones_like(rate[:, :1])], 1)
    return jnp.where(end_before(reset, lengths, rate.shape[1]), 1, following)
