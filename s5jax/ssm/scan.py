"""The linear recurrence x_k = a_k x_{k-1} + b_k, every way it is computed.

`method="sequential"` walks along the sequence once: least work, L dependent steps. `method="chunked"` cuts it into
pieces of about sqrt(L) steps and walks along all of them at a time, to find what each starts from, and again: twice the
work, 3 sqrt(L) dependent steps. `method="associative"` combines the maps x -> a x + b in a tree (Blelloch 1990; arXiv
2208.04933, section 2.2 and appendix H): about twice the work, log2 L dependent steps, but every level of the tree goes
through memory. `method="auto"` is the first on a CPU and the second elsewhere; see `choose`.

All have the same gradient rule: the adjoint of a recurrence is the same recurrence run the other way, so that the
backward pass keeps the states and nothing else. (The rule is for reverse mode: `jax.jvp` through a scan is an error.)
"""

import functools
import math
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact, Integer

from s5jax.ssm.parameters import StepRescale, with_rank

__all__ = ["Method", "choose", "regular_in_padding", "scan", "valid_steps", "without_padding"]

NO_STEP = "a sequence has at least one step, got length 0"

Method = Literal["auto", "sequential", "chunked", "associative"]


def choose(method: str) -> str:
    """What a method is on this machine's default device: "auto" is "sequential" on a CPU, otherwise "chunked".

    On a CPU a step of a compiled loop takes some 0.2 microseconds besides its arithmetic, and other methods gain little
    on that. `python scripts/benchmark.py methods` measures an S5 layer with two directions on batches of 4, forward and
    backward; on 2 cores, in ms and MB of scratch memory (results/benchmark-cpu.md):

        L, H, state_size     sequential   blocks of 2 MiB   chunked     associative
        1024, 512, 384       136, 38      118, 21           112, 40     153, 83
        4096, 256, 192       150, 76      128, 33           149, 77     243, 178
        1024, 192, 256       34, 29       30, 17            33, 31      63, 54
        2048, 128, 16        5.7, 4       5.6, 4            5.5, 10     9.1, 22

    On other devices "chunked" is chosen since a step of a loop is dear there, and traffic too; it was not measured.
    """
    if method not in get_args(Method):
        raise ValueError(f"scan method {method!r} is none of {', '.join(get_args(Method))}")
    if method == "auto":
        return "sequential" if jax.default_backend() == "cpu" else "chunked"
    return method


def scan(
    a: Inexact[Array, "..."],
    b: Inexact[Array, "*batch L P"],
    *,
    initial_state: Inexact[Array, "..."] | None = None,
    mask: Bool[Array, "..."] | None = None,
    reverse: bool = False,
    method: str = "auto",
) -> tuple[Inexact[Array, "*batch L P"], Inexact[Array, "*batch P"]]:
    """All states of x_k = a_k * x_{k-1} + b_k, elementwise in P.

    Args:
      a: multipliers, of the dtype of b: (P,) for a time-invariant system, or any shape that broadcasts to b's.
      b: inputs, (..., L, P), L >= 1.
      initial_state: the state before the first step, (P,) or (..., P); default zero.
      mask: (..., L), true where a step is real. A step that is not leaves the state as it was. Default: all real.
      reverse: run from the last step to the first (the initial state then stands after the last one).
      method: "auto", "sequential", "chunked" or "associative".

    Returns:
      The states (..., L, P), in the order of b, and the final state (..., P), that of the step computed last.

    Raises:
      ValueError: L = 0, dtypes that differ, or an unknown method.
    """
    method = choose(method)
    if b.shape[-2] == 0:
        raise ValueError(NO_STEP)
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
    """Zero, whatever there was, from each sequence's end on; `None`: there is no padding.

    Raises:
      ValueError: L is 0.
    """
    if not u.shape[-2]:
        raise ValueError(NO_STEP)
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
    if method == "chunked":
        return _chunked(a, b, start, reverse)
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


def _chunked(a: Array, b: Array, start: Array, reverse: bool) -> Array:
    L, time = b.shape[-2], b.ndim - 2
    T = math.isqrt(L)
    missing = -L % T
    fill = [(0, 0)] * b.ndim
    fill[time] = (missing, 0) if reverse else (0, missing)  # steps that come after all others

    def fold(x: Array) -> Array:
        if x.shape[time] == 1:
            return jnp.expand_dims(x, time)
        x = jnp.pad(x, fill) if missing else x
        return x.reshape(*x.shape[:time], -1, T, x.shape[-1])

    folded_a, folded_b = fold(a), fold(b)
    along = jnp.moveaxis(jnp.broadcast_to(folded_a, (*folded_a.shape[:-2], T, folded_a.shape[-1])), -2, 0)

    def compose(earlier: tuple[Array, Array], later: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        return _combine(earlier, later), None

    # The map from the state before a chunk to the one after it.
    identity = jnp.ones_like(folded_a[..., 0, :]), jnp.zeros_like(folded_b[..., 0, :])
    (power, own), _ = jax.lax.scan(compose, identity, (along, jnp.moveaxis(folded_b, -2, 0)), reverse=reverse)
    chunks = jnp.moveaxis(jnp.broadcast_to(power, (*power.shape[:-2], own.shape[-2], power.shape[-1])), -2, 0)
    _, starts = jax.lax.scan(
        lambda x, chunk: (chunk[0] * x + chunk[1], x), start, (chunks, jnp.moveaxis(own, -2, 0)), reverse=reverse
    )
    states = _sequential(folded_a, folded_b, jnp.moveaxis(starts, 0, -2), reverse)
    states = states.reshape(*b.shape[:time], -1, b.shape[-1])
    return jax.lax.slice_in_dim(states, missing if reverse else 0, missing + L if reverse else L, axis=time)


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
