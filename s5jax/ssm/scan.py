"""The linear recurrence x_k = a_k x_{k-1} + b_k, with a choice of methods:

- "sequential" loops over the sequence once: least work, L dependent steps.
- "chunked" splits the sequence into about sqrt(L) chunks and scans all chunks in parallel, twice: first to find each
  chunk's initial state, then to compute the states. Twice the work, 3 sqrt(L) dependent steps.
- "associative" combines the maps x -> a x + b in a tree (Blelloch 1990; arXiv 2208.04933, section 2.2 and appendix H):
  about twice the work, log2 L dependent levels, but each level reads and writes memory.
- "plain" is a `jax.lax.scan` without a custom gradient rule, and the only method that supports forward mode
  (`jax.jvp`, `jax.linearize`); the others raise TypeError. Hessian-vector products, `jax.jvp` of `jax.grad`, work with
  all of them.
- "auto" is "sequential" on a CPU and "chunked" elsewhere.

The adjoint of the recurrence is the reversed recurrence, so that the backward pass needs only a and the states. All
arithmetic is real, on packed states (..., K, P): K = 2 holds the real and the imaginary part, K = 1 a real state.
"""

import math
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact

from s5jax.ssm.parameters import with_rank
from s5jax.ssm.reverse_mode import reverse_mode_only

Method = Literal["auto", "sequential", "chunked", "associative", "plain"]


def choose(method: str) -> str:
    """Resolves "auto" for the default backend. ValueError for an unknown method.

    On a CPU a loop iteration has little overhead, so that the other methods gain little ("Methods" in
    results/benchmark-cpu.md). On accelerators an iteration is expected to cost more, and memory traffic too.
    """
    if method not in get_args(Method):
        raise ValueError(f"scan method must be one of {', '.join(get_args(Method))}; got {method!r}")
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
      b: inputs, real or complex, (..., L, P), L >= 1.
      initial_state: the state before the first step, (P,) or (..., P); default: zero.
      mask: (..., L), true at steps that are applied; other steps leave the state unchanged. Default: all true. (The
        `mask` of mixers is the opposite: true where a sample is missing.)
      reverse: run from the last step to the first; `initial_state` is then the state after the last step.
      method: see above; default "auto".

    Returns:
      The states (..., L, P), in the order of b, and the final state (..., P), that of the step computed last.

    Raises:
      ValueError: L = 0, the dtypes differ, or the method is unknown.
      TypeError: in forward mode, unless the method is "plain".
    """
    *batch, L, P = b.shape
    if L == 0:
        raise ValueError("a sequence must have at least one step, got length 0")
    if a.dtype != b.dtype:
        raise ValueError(f"a and b must have the same dtype, got {a.dtype} and {b.dtype}")
    a = with_rank(a, b.ndim)
    if mask is not None:
        counts = with_rank(mask, b.ndim - 1)[..., None]
        a, b = jnp.where(counts, a, jnp.ones((), a.dtype)), jnp.where(counts, b, jnp.zeros((), b.dtype))
    invariant = all(size == 1 for size in a.shape[:-1])
    a = jnp.broadcast_to(a, (*(a.shape[:-2] if invariant else batch), a.shape[-2], P))
    start = jnp.zeros((), b.dtype) if initial_state is None else initial_state.astype(b.dtype)
    start = jnp.broadcast_to(with_rank(start, b.ndim - 1), (*batch, P))
    N = math.prod(batch)
    a, b, start = a.reshape(1 if invariant else N, a.shape[-2], P), b.reshape(N, L, P), start.reshape(N, P)
    x = unpack(states(pack(a), pack(b), pack(start), reverse=reverse, method=method)).reshape(*batch, L, P)
    return x, x[..., 0 if reverse else -1, :]


def states(
    a: Float[Array, "n l K P"], b: Float[Array, "N L K P"], start: Float[Array, "N K P"], *, reverse: bool, method: str
) -> Float[Array, "N L K P"]:
    """`scan` on packed arrays: a is (1, 1, K, P), (N, 1, K, P) or (N, L, K, P). Returns all states, (N, L, K, P)."""
    if choose(method) == "plain":
        return _plain(a, b, start, reverse)
    return _states(*map(reverse_mode_only, (a, b, start)), reverse, choose(method))


def pack(z: Inexact[Array, "*shape P"]) -> Float[Array, "*shape K P"]:
    """(..., P) to (..., K, P): real and imaginary part (K = 2), or the real part alone of a real array (K = 1)."""
    return jnp.stack([z.real, z.imag], -2) if jnp.iscomplexobj(z) else z[..., None, :]


def unpack(x: Float[Array, "*shape K P"]) -> Inexact[Array, "*shape P"]:
    """The inverse of `pack`."""
    return x[..., 0, :] if x.shape[-2] == 1 else jax.lax.complex(x[..., 0, :], x[..., 1, :])


def multiply(a: Float[Array, "..."], x: Float[Array, "..."]) -> Float[Array, "..."]:
    """a x of packed numbers (..., K, P), which have the same rank and broadcast."""
    return a * x if a.shape[-2] == 1 else a[..., :1, :] * x + a[..., 1:, :] * _times_i(x)


def conjugate(x: Float[Array, "*shape K P"]) -> Float[Array, "*shape K P"]:
    """The complex conjugate of packed numbers (..., K, P)."""
    return x if x.shape[-2] == 1 else x * _signs(1, -1, x)


def _times_i(x: Float[Array, "*shape 2 P"]) -> Float[Array, "*shape 2 P"]:
    """i x."""
    return x[..., ::-1, :] * _signs(-1, 1, x)


def _signs(re: int, im: int, x: Array) -> np.ndarray:
    return np.array([re, im], x.dtype).reshape((1,) * (x.ndim - 2) + (2, 1))


def run(
    a: Float[Array, "n l K P"],
    b: Float[Array, "N L d K P"],
    starts: Float[Array, "N D K P"],
    reverse: tuple[bool, ...],
    chunk: int,
    against: Float[Array, "N L D K P"] | None = None,
) -> tuple[Float[Array, "N L D K P"], Any]:
    """The loop of "sequential" and "chunked" for D recurrences at once. Returns all states, and a sum (K, P) or `None`.

    Args:
      a: as for `states`.
      b: inputs of each recurrence, or of all of them (d = 1).
      starts: the initial state of each recurrence.
      reverse: for each recurrence, whether it runs from the last step to the first.
      chunk: chunk length; it must divide L.
      against: z_k. If given, the loop also sums x_{k-1} conj(z_k) over k, N and D, without storing the products. With
        adjoint states x this sum is the gradient of a time-invariant a.
    """
    N, L, _, K, P = b.shape
    D, chunks = len(reverse), L // chunk
    b = b.reshape(N * chunks, chunk, *b.shape[2:])
    if chunks > 1 and a.shape[:2] != (1, 1):
        a = a.reshape(N * chunks, chunk, K, P) if a.shape[1] > 1 else jnp.repeat(a, chunks, 0)
    a = a[:, :, None]
    if chunks == 1:
        initial = list(jnp.moveaxis(starts, 1, 0))
    else:
        initial = [_chunk_starts(a, b, starts[:, d], chunks, d, r) for d, r in enumerate(reverse)]
    fixed = a[:, 0, 0] if a.shape[1] == 1 else None
    if against is not None:
        against = against.reshape(N * chunks, chunk, D, K, P)

    def step(t: Array, carry: tuple[list[Array], Array, list[Array]]) -> tuple[list[Array], Array, list[Array]]:
        x, all_x, sums = carry
        for d, r in enumerate(reverse if against is not None else ()):
            z = _at(against, d, t, r)  # type: ignore[arg-type]
            sums = [total + x[d] * part for total, part in zip(sums, [z, _times_i(z)][:K], strict=True)]
        a_t = [_at(a, 0, t, r) if fixed is None else fixed for r in reverse]
        x = [multiply(a_t[d], x[d]) + _at(b, d, t, r) for d, r in enumerate(reverse)]
        for d, r in enumerate(reverse):
            all_x = jax.lax.dynamic_update_slice(all_x, x[d][:, None, None], (0, _index(all_x, t, r), d, 0, 0))
        return x, all_x, sums

    sums = [] if against is None else [jnp.zeros_like(initial[0])] * K
    all_x = jnp.zeros((N * chunks, chunk, D, K, P), b.dtype)
    _, all_x, sums = jax.lax.fori_loop(0, chunk, step, (initial, all_x, sums))
    return all_x.reshape(N, L, D, K, P), jnp.stack([total.sum((0, 1)) for total in sums]) if sums else None


def _chunk_starts(a: Array, b: Array, start: Array, chunks: int, d: int, reverse: bool) -> Float[Array, "N_chunks K P"]:
    """The initial state of each chunk of b (N * chunks, T, d, K, P)."""
    N, T = start.shape[0], b.shape[1]
    own = jnp.zeros_like(b[:, 0, 0])  # final state of each chunk, started from zero
    if a.shape[1] == 1:
        fixed = a[:, 0, 0]
        own = jax.lax.fori_loop(0, T, lambda t, x: multiply(fixed, x) + _at(b, d, t, reverse), own)
        powers = jnp.broadcast_to(pack(jax.lax.integer_pow(unpack(fixed), T)), own.shape)
    else:
        one, step = own.at[:, 0].set(1), lambda t: (_at(a, 0, t, reverse), _at(b, d, t, reverse))
        powers, own = jax.lax.fori_loop(0, T, lambda t, maps: _combine(maps, step(t)), (one, own))

    def chain(x: Array, chunk: list[Array]) -> tuple[Array, Array]:
        return multiply(chunk[0], x) + chunk[1], x

    by_chunk = [jnp.moveaxis(x.reshape(N, chunks, *x.shape[1:]), 1, 0) for x in (powers, own)]
    _, starts = jax.lax.scan(chain, start, by_chunk, reverse=reverse)
    return jnp.moveaxis(starts, 0, 1).reshape(b.shape[0], *start.shape[1:])


def _combine(earlier: tuple[Array, Array], later: tuple[Array, Array]) -> tuple[Array, Array]:
    """Composition of two maps x -> a x + b: first `earlier`, then `later`."""
    return multiply(later[0], earlier[0]), multiply(later[0], earlier[1]) + later[1]


def _index(x: Array, t: Array, reverse: bool) -> Array:
    return x.shape[1] - 1 - t if reverse else t


def _at(x: Float[Array, "N T D K P"], d: int, t: Array, reverse: bool) -> Float[Array, "N K P"]:
    """Element t, in scan order, of recurrence d; an array with one recurrence is shared by all."""
    return jax.lax.dynamic_index_in_dim(x[:, :, d if x.shape[2] > 1 else 0], _index(x, t, reverse), 1, keepdims=False)


def _plain(a: Array, b: Array, start: Array, reverse: bool) -> Array:
    def step(x: Array, now: tuple[Array | None, Array]) -> tuple[Array, Array]:
        x = multiply(a[:, 0] if now[0] is None else now[0], x) + now[1]
        return x, x

    steps = (None if a.shape[1] == 1 else jnp.moveaxis(a, 1, 0), jnp.moveaxis(b, 1, 0))
    return jnp.moveaxis(jax.lax.scan(step, start, steps, reverse=reverse)[1], 0, 1)


def _solve(a: Array, b: Array, start: Array, reverse: bool, method: str) -> Array:
    L = b.shape[1]
    if method == "associative":
        first = -1 if reverse else 0
        b = b.at[:, first].add(multiply(a[:, first], start))
        return jax.lax.associative_scan(_combine, (jnp.broadcast_to(a, b.shape), b), reverse=reverse, axis=1)[1]
    chunk = math.isqrt(L) if method == "chunked" else L
    if missing := -L % chunk:  # pad after the last step, in scan order
        side = (missing, 0) if reverse else (0, missing)
        a, b = (x if x.shape[1] == 1 else jnp.pad(x, ((0, 0), side, (0, 0), (0, 0))) for x in (a, b))
    x = run(a, b[:, :, None], start[:, None], (reverse,), chunk)[0][:, :, 0]
    return x[:, missing:] if reverse else x[:, :L]


_states = jax.custom_vjp(_solve, nondiff_argnums=(3, 4))


def _states_fwd(a: Array, b: Array, start: Array, reverse: bool, method: str) -> tuple[Array, tuple[Array, ...]]:
    x = _solve(a, b, start, reverse, method)
    return x, (a, start, x)


def _states_bwd(reverse: bool, method: str, residuals: tuple[Array, ...], cotangent: Array) -> tuple[Array, ...]:
    """l_k = g_k + conj(a_{k+1}) l_{k+1};  db_k = l_k,  da_k = l_k conj(x_{k-1}),  dx_0 = conj(a_1) l_1."""
    a, start, x = residuals
    # The adjoint at a step uses the next step's multiplier; a multiplier's gradient uses the previous step's state.
    following = a if a.shape[1] == 1 else _shift(a, jnp.ones_like(a[:, :1]), not reverse)
    db = _solve(conjugate(following), cotangent, jnp.zeros_like(start), not reverse, method)
    da = multiply(conjugate(_shift(x, start[:, None], reverse)), db)
    da = jnp.sum(da, [i for i in (0, 1) if a.shape[i] == 1], keepdims=True)
    first = -1 if reverse else 0
    return da, db, multiply(conjugate(a[:, first]), db[:, first])


_states.defvjp(_states_fwd, _states_bwd)


def _shift(x: Array, filler: Array, left: bool) -> Array:
    """Shifts x by one step; `filler` fills the gap."""
    return jnp.concatenate([x[:, 1:], filler] if left else [filler, x[:, :-1]], 1)
