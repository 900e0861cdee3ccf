"""The linear recurrence x_k = a_k x_{k-1} + b_k, every way it is computed.

`method="sequential"` walks along the sequence once: least work, L dependent steps. `method="associative"` combines
the maps x -> a x + b in a tree (Blelloch 1990; arXiv 2208.04933, section 2.2 and appendix H): about twice the work,
log2 L dependent steps. Both have the same gradient rule: the adjoint of a recurrence is the same recurrence run
the other way, so that the backward pass keeps the states and nothing of the tree. (The rule is for reverse mode:
`jax.jvp` through a scan is an error.)
"""

import functools
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact, Integer

from s5jax.ssm.parameters import StepRescale, with_rank

__all__ = ["Method", "regular_in_padding", "scan", "valid_steps", "without_padding"]

Method = Literal["associative", "sequential"]


def scan(
    a: Inexact[Array, "..."],
    b: Inexact[Array, "*batch L P"],
    *,
    initial_state: Inexact[Array, "..."] | None = None,
    mask: Bool[Array, "..."] | None = None,
    reverse: bool = False,
    method: str = "associative",
) -> tuple[Inexact[Array, "*batch L P"], Inexact[Array, "*batch P"]]:
    """All states of x_k = a_k * x_{k-1} + b_k, elementwise in P.

    Args:
      a: multipliers, of the dtype of b: (P,) for a time-invariant system, or any shape that broadcasts to b's.
      b: inputs, (..., L, P), L >= 1.
      initial_state: the state before the first step, (P,) or (..., P); default zero.
      mask: (..., L), true where a step is real. A step that is not leaves the state as it was. Default: all real.
      reverse: run from the last step to the first (the initial state then stands after the last one).
      method: "associative" or "sequential".

    Returns:
      The states (..., L, P), in the order of b, and the final state (..., P), that of the step computed last.

    Raises:
      ValueError: L = 0, dtypes that differ, or an unknown method.
    """
    if method not in get_args(Method):
        raise ValueError(f"scan method {method!r} is none of {', '.join(get_args(Method))}")
    if b.shape[-2] == 0:
        raise ValueError("a sequence has at least one step, got length 0")
    if a.dtype != b.dtype:
        raise ValueError(f"a and b must have the same dtype, got {a.dtype} and {b.dtype}")
    if mask is not None:
        valid = jnp.expand_dims(mask, tuple(range(b.ndim - 1 - mask.ndim)))[..., None]
        a = jnp.where(valid, with_rank(a, b.ndim), jnp.ones((), a.dtype))
        b = jnp.where(valid, b, jnp.zeros((), b.dtype))
    state_shape = (*b.shape[:-2], b.shape[-1])
    if initial_state is None:
        initial_state = jnp.zeros(state_shape, b.dtype)
    start = jnp.broadcast_to(with_rank(initial_state, len(state_shape)), state_shape).astype(b.dtype)
    states = _scan(with_rank(a, b.ndim), b, start, reverse, method)
    return states, states[..., 0 if reverse else -1, :]


def valid_steps(lengths: Integer[Array, "*batch"], L: int) -> Bool[Array, "*batch {L}"]:
    """True at the steps before each sequence's end."""
    lengths = lengths.astype(jnp.int32)  # a narrow integer may hold every length, but not L
    return jax.lax.broadcasted_iota(jnp.int32, (*lengths.shape, L), lengths.ndim) < lengths[..., None]


def without_padding(
    u: Float[Array, "*batch L H"], lengths: Integer[Array, "*batch"] | None
) -> Float[Array, "*batch L H"]:
    """Zero, whatever there was, from each sequence's end on; `None`: there is no padding."""
    return u if lengths is None else jnp.where(valid_steps(lengths, u.shape[-2])[..., None], u, 0)


def regular_in_padding(step_rescale: StepRescale, lengths: Integer[Array, "*batch"] | None) -> StepRescale:
    """A factor for each step, (L,) or (..., L), with 1 from each sequence's end on; one for all stays as it is."""
    if lengths is None or jnp.ndim(step_rescale) == 0:
        return step_rescale
    factors = jnp.asarray(step_rescale)
    valid = valid_steps(lengths, factors.shape[-1])
    return jnp.where(valid, with_rank(factors, valid.ndim), jnp.ones((), factors.dtype))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _scan(a: Array, b: Array, start: Array, reverse: bool, method: str) -> Array:
    """States of the recurrence; a has b's rank, with axes of length 1 where it does not vary."""
    if method == "sequential":
        return _sequential(a, b, start, reverse)
    first = -1 if reverse else 0
    b = b.at[..., first, :].add(a[..., first, :] * start)
    a = jnp.broadcast_to(a, (*a.shape[:-2], *b.shape[-2:]))
    return jax.lax.associative_scan(_combine, (a, b), reverse=reverse, axis=b.ndim - 2)[1]


def _combine(earlier: tuple[Array, Array], later: tuple[Array, Array]) -> tuple[Array, Array]:
    """Composition of x -> a x + b: first `earlier`, then `later`."""
    return later[0] * earlier[0], later[0] * earlier[1] + later[1]


def _sequential(a: Array, b: Array, start: Array, reverse: bool) -> Array:
    b = jnp.moveaxis(b, -2, 0)
    if a.shape[-2] == 1:  # time-invariant: nothing of a is read along the way
        constant = a[..., 0, :]
        _, states = jax.lax.scan(lambda x, b_k: (x := constant * x + b_k, x), start, b, reverse=reverse)
    else:
        a = jnp.moveaxis(a, -2, 0)
        _, states = jax.lax.scan(lambda x, ab: (x := ab[0] * x + ab[1], x), start, (a, b), reverse=reverse)
    return jnp.moveaxis(states, 0, -2)


def _scan_fwd(a: Array, b: Array, start: Array, reverse: bool, method: str) -> tuple[Array, tuple[Array, Array, Array]]:
    states = _scan(a, b, start, reverse, method)
    return states, (a, start, states)


def _scan_bwd(
    reverse: bool, method: str, residuals: tuple[Array, Array, Array], cotangent: Array
) -> tuple[Array, Array, Array]:
    """lambda_k = g_k + a_{k+1} lambda_{k+1};  db_k = lambda_k,  da_k = lambda_k x_{k-1},  dx_0 = a_1 lambda_1."""
    a, start, states = residuals
    time = states.ndim - 2
    # Each step needs its successor's multiplier, and each multiplier its predecessor's state: both shift by one.
    following = a if a.shape[time] == 1 else _shift(a, jnp.ones_like(a[..., :1, :]), time, not reverse)
    db = _scan(following, cotangent, jnp.zeros_like(start), not reverse, method)
    previous = _shift(states, jnp.expand_dims(start, time), time, reverse)
    da = db * previous
    summed = tuple(i for i in range(a.ndim) if a.shape[i] == 1 and da.shape[i] != 1)
    first = -1 if reverse else 0
    return jnp.sum(da, summed, keepdims=True), db, a[..., first, :] * db[..., first, :]


def _shift(x: Array, filler: Array, axis: int, left: bool) -> Array:
    """x moved by one along an axis, `filler` taking the free place."""
    size = x.shape[axis]
    if left:
        return jnp.concatenate([jax.lax.slice_in_dim(x, 1, size, axis=axis), filler], axis)
    return jnp.concatenate([filler, jax.lax.slice_in_dim(x, 0, size - 1, axis=axis)], axis)


_scan.defvjp(_scan_fwd, _scan_bwd)
