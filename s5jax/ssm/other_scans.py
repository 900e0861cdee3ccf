"""The parts of "chunked", "associative" and "plain" that are not in `scan`, on packed arrays, and the choice of a
method on accelerators."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim
from jaxtyping import Array, Float

from s5jax.ssm.scan import element, multiply, pack, unpack


def choose(method: str, N: Any, L: Any) -> str:
    """`scan.choose` on accelerators, and for symbolic N or L. ValueError if the method cannot compute these."""
    platform, symbolic = jax.default_backend(), is_symbolic_dim(N) or is_symbolic_dim(L)
    if method == "auto" and (symbolic or platform == "cpu"):
        return "sequential" if is_symbolic_dim(L) or platform == "cpu" else "associative"
    if method == "auto":
        from s5jax.ssm import scan_kernel

        return "chunked" if platform != "gpu" else "kernel" if scan_kernel.compiles() else "associative"
    if is_symbolic_dim(L) and method not in ("sequential", "plain"):
        raise ValueError(f'a symbolic length needs the scan method "sequential" or "plain", not {method!r}')
    if symbolic and method == "kernel":
        raise ValueError('a symbolic batch needs another scan method than "kernel"')
    return method


def associative(a: Array, b: Array, start: Array, reverse: bool) -> Array:
    """All states, by `jax.lax.associative_scan`."""
    first = -1 if reverse else 0
    b = b.at[:, first].add(multiply(a[:, first], start))
    return jax.lax.associative_scan(_combine, (jnp.broadcast_to(a, b.shape), b), reverse=reverse, axis=1)[1]


def chunk_starts(a: Array, b: Array, start: Array, chunks: int, d: int, reverse: bool) -> Float[Array, "N_chunks K P"]:
    """The initial state of each chunk of b (N * chunks, T, d, K, P)."""
    N, T = start.shape[0], b.shape[1]
    own = jnp.zeros_like(b[:, 0, 0])  # final state of each chunk, started from zero
    if a.shape[1] == 1:
        fixed = a[:, 0, 0]
        own = jax.lax.fori_loop(0, T, lambda t, x: multiply(fixed, x) + element(b, d, t, reverse), own)
        powers = jnp.broadcast_to(pack(jax.lax.integer_pow(unpack(fixed), T)), own.shape)
    else:
        one, step = own.at[:, 0].set(1), lambda t: (element(a, 0, t, reverse), element(b, d, t, reverse))
        powers, own = jax.lax.fori_loop(0, T, lambda t, maps: _combine(maps, step(t)), (one, own))

    def chain(x: Array, chunk: list[Array]) -> tuple[Array, Array]:
        return multiply(chunk[0], x) + chunk[1], x

    by_chunk = [jnp.moveaxis(x.reshape(N, chunks, *x.shape[1:]), 1, 0) for x in (powers, own)]
    _, starts = jax.lax.scan(chain, start, by_chunk, reverse=reverse)
    return jnp.moveaxis(starts, 0, 1).reshape(b.shape[0], *start.shape[1:])


def _combine(earlier: tuple[Array, Array], later: tuple[Array, Array]) -> tuple[Array, Array]:
    """Composition of two maps x -> a x + b: first `earlier`, then `later`."""
    return multiply(later[0], earlier[0]), multiply(later[0], earlier[1]) + later[1]


def plain(a: Array, b: Array, start: Array, reverse: bool) -> Array:
    """All states, by `jax.lax.scan`."""

    def step(x: Array, now: tuple[Array | None, Array]) -> tuple[Array, Array]:
        x = multiply(a[:, 0] if now[0] is None else now[0], x) + now[1]
        return x, x

    steps = (None if a.shape[1] == 1 else jnp.moveaxis(a, 1, 0), jnp.moveaxis(b, 1, 0))
    return jnp.moveaxis(jax.lax.scan(step, start, steps, reverse=reverse)[1], 0, 1)
