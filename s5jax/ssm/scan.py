"""The linear recurrence x_k = a_k x_{k-1} + b_k, with a choice of methods:

- "sequential" loops over the sequence once: least work, L dependent steps.
- "chunked" splits the sequence into about sqrt(L) chunks and scans all chunks in parallel, twice: first to find each
  chunk's initial state, then to compute the states. Twice the work, 3 sqrt(L) dependent steps.
- "associative" combines the maps x -> a x + b in a tree (Blelloch 1990; arXiv 2208.04933, section 2.2 and appendix H):
  about twice the work, log2 L dependent levels, but each level reads and writes memory.
- "plain" is a `jax.lax.scan` without a custom gradient rule, and the only method that supports forward mode
  (`jax.jvp`, `jax.linearize`); the others raise TypeError. `jax.jvp` of `jax.grad` works with all of them.
- "kernel" is a GPU kernel (`scan_kernel`): each direction reads its inputs once or twice, and writes its states once.
- "auto": "sequential" on a CPU; "kernel" on a GPU, or "associative" where it does not compile; "chunked" elsewhere.

The adjoint of the recurrence is the reversed recurrence, so that the backward pass needs only a and the states. States
are real arrays, packed as (..., K, P): K = 2 holds the real and the imaginary part, K = 1 a real state.
"""

import math
from typing import Any, Literal, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.export import is_symbolic_dim
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float, Inexact, Shaped

Method = Literal["auto", "sequential", "chunked", "associative", "kernel", "plain"]


def choose(method: str, N: Any, L: Any) -> str:
    """Resolves "auto" for N sequences of length L, which may be symbolic under `jax.export`. On a CPU a loop iteration
    has little overhead ("Methods" in results/benchmark-cpu.md)."""
    if is_symbolic_dim(N) or is_symbolic_dim(L) or (method == "auto" and jax.default_backend() != "cpu"):
        from s5jax.ssm import other_scans

        return other_scans.choose(method, N, L)
    return "sequential" if method == "auto" else method


def states(
    a: Float[Array, "n l K P"], b: Float[Array, "N L K P"], start: Float[Array, "N K P"], *, reverse: bool, method: str
) -> Float[Array, "N L K P"]:
    """The scan on packed arrays: a is (1, 1, K, P), (N, 1, K, P) or (N, L, K, P). Returns all states, (N, L, K, P)."""
    method = choose(method, *b.shape[:2])
    if method == "plain":
        from s5jax.ssm.other_scans import plain

        return plain(a, b, start, reverse)
    return _states(*map(reverse_mode_only, (a, b, start)), reverse, method)


def pack(z: Inexact[Array, "*shape P"]) -> Float[Array, "*shape K P"]:
    """(..., P) to (..., K, P): K = 2 for a complex array, K = 1 for a real one."""
    return jnp.stack([z.real, z.imag], -2) if jnp.iscomplexobj(z) else z[..., None, :]


def unpack(x: Float[Array, "*shape K P"]) -> Inexact[Array, "*shape P"]:
    """The inverse of `pack`."""
    return x[..., 0, :] if x.shape[-2] == 1 else jax.lax.complex(x[..., 0, :], x[..., 1, :])


def multiply(a: Float[Array, "..."], x: Float[Array, "..."]) -> Float[Array, "..."]:
    """a x of packed numbers (..., K, P), which have the same rank and broadcast."""
    return a * x if a.shape[-2] == 1 else a[..., :1, :] * x + a[..., 1:, :] * _times_i(x)


def conjugate(x: Float[Array, "*shape K P"]) -> Float[Array, "*shape K P"]:
    return x if x.shape[-2] == 1 else x * _signs(1, -1, x)


def _times_i(x: Float[Array, "*shape 2 P"]) -> Float[Array, "*shape 2 P"]:
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
      b: one set of inputs for each recurrence (d = D), or one for all (d = 1).
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
        from s5jax.ssm.other_scans import chunk_starts

        initial = [chunk_starts(a, b, starts[:, d], chunks, d, r) for d, r in enumerate(reverse)]
    fixed = a[:, 0, 0] if a.shape[1] == 1 else None
    if against is not None:
        against = against.reshape(N * chunks, chunk, D, K, P)

    def step(t: Array, carry: tuple[list[Array], Array, list[Array]]) -> tuple[list[Array], Array, list[Array]]:
        x, all_x, sums = carry
        for d, r in enumerate(reverse if against is not None else ()):
            z = element(against, d, t, r)  # type: ignore[arg-type]
            sums = [total + x[d] * part for total, part in zip(sums, [z, _times_i(z)][:K], strict=True)]
        a_t = [element(a, 0, t, r) if fixed is None else fixed for r in reverse]
        x = [multiply(a_t[d], x[d]) + element(b, d, t, r) for d, r in enumerate(reverse)]
        for d, r in enumerate(reverse):
            all_x = jax.lax.dynamic_update_slice(all_x, x[d][:, None, None], (0, _index(all_x, t, r), d, 0, 0))
        return x, all_x, sums

    sums = [] if against is None else [jnp.zeros_like(initial[0])] * K
    all_x = jnp.zeros((N * chunks, chunk, D, K, P), b.dtype)
    _, all_x, sums = jax.lax.fori_loop(0, chunk, step, (initial, all_x, sums))
    return all_x.reshape(N, L, D, K, P), jnp.stack([total.sum((0, 1)) for total in sums]) if sums else None


def _index(x: Array, t: Array, reverse: bool) -> Array:
    return x.shape[1] - 1 - t if reverse else t


def element(x: Float[Array, "N T D K P"], d: int, t: Array, reverse: bool) -> Float[Array, "N K P"]:
    """Element t, in scan order, of recurrence d; an array with one recurrence is shared by all."""
    return jax.lax.dynamic_index_in_dim(x[:, :, d if x.shape[2] > 1 else 0], _index(x, t, reverse), 1, keepdims=False)


def solve(a: Array, b: Array, start: Array, reverse: bool, method: str) -> Array:
    """All states, without a gradient rule of their own."""
    L = b.shape[1]
    if method == "associative":
        from s5jax.ssm.other_scans import associative

        return associative(a, b, start, reverse)
    if method == "kernel":
        from s5jax.ssm import scan_kernel

        return scan_kernel.run(a, b[:, :, None], start[:, None], (reverse,))[0][:, :, 0]
    chunk = math.isqrt(L) if method == "chunked" else L
    if missing := -L % chunk:  # pad after the last step, in scan order
        side = (missing, 0) if reverse else (0, missing)
        a, b = (x if x.shape[1] == 1 else jnp.pad(x, ((0, 0), side, (0, 0), (0, 0))) for x in (a, b))
    x = run(a, b[:, :, None], start[:, None], (reverse,), chunk)[0][:, :, 0]
    return x[:, missing:] if reverse else x[:, :L]


_states = jax.custom_vjp(solve, nondiff_argnums=(3, 4))


def _states_fwd(a: Array, b: Array, start: Array, reverse: bool, method: str) -> tuple[Array, tuple[Array, ...]]:
    x = solve(a, b, start, reverse, method)
    return x, (a, start, x)


def _states_bwd(reverse: bool, method: str, residuals: tuple[Array, ...], cotangent: Array) -> tuple[Array, ...]:
    """l_k = g_k + conj(a_{k+1}) l_{k+1};  db_k = l_k,  da_k = l_k conj(x_{k-1}),  dx_0 = conj(a_1) l_1."""
    a, start, x = residuals
    # The adjoint at a step uses the next step's multiplier; a multiplier's gradient uses the previous step's state.
    following = a if a.shape[1] == 1 else shift(a, jnp.ones_like(a[:, :1]), not reverse)
    db = solve(conjugate(following), cotangent, jnp.zeros_like(start), not reverse, method)
    da = multiply(conjugate(shift(x, start[:, None], reverse)), db)
    da = jnp.sum(da, [i for i in (0, 1) if a.shape[i] == 1], keepdims=True)
    first = -1 if reverse else 0
    return da, db, multiply(conjugate(a[:, first]), db[:, first])


_states.defvjp(_states_fwd, _states_bwd)


def shift(x: Array, filler: Array, left: bool) -> Array:
    """x moved by one step along the second axis, with `filler` (N, 1, ...) where one is missing."""
    return jnp.concatenate([x[:, 1:], filler] if left else [filler, x[:, :-1]], 1)


@jax.custom_jvp
def reverse_mode_only(x: Shaped[Array, "*shape"]) -> Shaped[Array, "*shape"]:
    """Returns x. Raises TypeError in forward mode, for example under `jax.jvp` or `jax.linearize`: the tangent is a
    primitive that cannot be evaluated, but can be transposed, so that reverse mode passes cotangents through."""
    return x


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise TypeError(
        "this scan or convolution has a gradient rule for reverse mode only;"
        ' for forward mode (jax.jvp, jax.linearize) use scan_method="plain" or conv_method="plain"'
    )


tangent_p = Primitive("tangent_for_reverse_mode")
tangent_p.def_impl(_refuse)
tangent_p.def_abstract_eval(lambda tangent: tangent)
ad.deflinear2(tangent_p, lambda cotangent, _: [cotangent])
batching.primitive_batchers[tangent_p] = lambda tangents, axes: (tangent_p.bind(*tangents), *axes)
mlir.register_lowering(tangent_p, _refuse)
reverse_mode_only.defjvp(lambda primals, tangents: (*primals, tangent_p.bind(*tangents)))
