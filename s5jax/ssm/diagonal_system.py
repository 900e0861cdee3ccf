"""A diagonal system with many inputs and outputs: x_k = a_k x_{k-1} + gamma_k B u_k, y_k = Re(C x_k).

With the methods "sequential" and "chunked", `response` fuses the scan of a time-invariant system with the product by C
and has its own gradient rule, because memory traffic dominates the cost (the other methods store all states):

- States are real arrays, packed as (re, im). A real output then takes two real products instead of the four
  of a complex one, and no array with a time axis is complex.
- States are multiplied by C block by block and not kept; the backward pass recomputes them. For a long
  sequence they are computed block by block, and only the states at block boundaries are stored, from which the
  backward pass restarts. One loop runs both directions, each from its own end, so that only one loop is compiled.
- The adjoint of the recurrence is the reversed recurrence with the conjugate multiplier. The same loop accumulates the
  gradient of a, so that products of states and adjoints are not stored.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim
from jaxtyping import Array, Bool, Complex, Float, Inexact, Integer

from s5jax.ssm import scan
from s5jax.ssm.parameters import with_rank
from s5jax.ssm.product import product, weight_gradient
from s5jax.ssm.sequence import Rate, backward_gaps, end_before, gaps, reset_state

BLOCKS = {"cpu": (2**26, 2**19)}
"""For each platform (threshold, block size), counted in real numbers: a complex state is two. A state array above the
threshold is computed in blocks of about the block size. On a CPU, loops over more than 256 MiB (float32) are far
slower, and a block of 2 MiB fits into a cache. On other platforms both are 1 GiB."""

System = tuple[
    Callable[[Any], tuple[Complex[Array, "*gaps P"], Inexact[Array, "*#gaps P"]]],
    Complex[Array, "P H"],
    list[Complex[Array, "H P"]],
]
"""(discretize, B, Cs). `discretize(gap)` maps the time between samples, in step sizes and of shape (), (B,) or (B, L),
to the multipliers a and the factors gamma of B. `Cs` holds C of the forward and, if there are two directions, of the
backward direction."""


def apply(
    system: System,
    u: Float[Array, "B L H"],
    lengths: Integer[Array, " B"] | None,
    reset: Bool[Array, "B L"] | None,
    rate: Rate | None,
    state: Complex[Array, "B P"] | None,
    method: str,
) -> tuple[Float[Array, "B L H"], Complex[Array, "B P"] | None]:
    """A mixer's `apply` without the feedthrough D u, on arguments from `sequence.border`, u in the parameters' dtype.

    With a state, a reset or a rate that is not a scalar, all states (B, L, P) are stored; otherwise see `response`.
    ValueError: a state is given to a system with two directions.
    """
    discretize, B, Cs = system
    if state is not None and len(Cs) == 2:
        raise ValueError("a mixer with two directions cannot start from a state")
    if state is None and reset is None and (rate is None or jnp.ndim(rate) == 0):
        a, gamma = discretize(gaps(rate, None))
        gamma = jax.lax.optimization_barrier(gamma)  # otherwise XLA recomputes it for each element of the product
        return response(a, drive(gamma[:, None] * B, u), Cs, method=method), None
    L, y, Bu = u.shape[1], jnp.zeros((), u.dtype), drive(B, u)
    start = jnp.zeros_like(Bu[:, 0]) if state is None else scan.pack(state)
    start = reset_state(start, reset, lengths)
    x = start[:, None]
    for C, reverse in zip(Cs, (False, True), strict=False):
        gap = backward_gaps(rate, lengths, reset) if reverse else gaps(rate, lengths)
        # (P,), (B, P) or (B, L, P) as (1 or B, 1 or L, P)
        discrete = (z[:, None] if jnp.ndim(gap) == 1 and z.ndim == 2 else with_rank(z, 3) for z in discretize(gap))
        a, gamma = map(scan.pack, discrete)
        if reset is not None:
            cut = end_before(reset, lengths, L) if reverse else reset
            a = jnp.where(cut[..., None, None], 0, a)
        x = scan.states(a, scan.multiply(gamma, Bu), start, reverse=reverse, method=method)
        y = y + _read(x, C)
    if state is None:
        return y, None
    x = jnp.concatenate([start[:, None], x], 1)
    if lengths is None:
        return y, scan.unpack(x[:, -1])
    last = lengths.astype(jnp.int32)[:, None, None, None]
    return y, scan.unpack(jnp.take_along_axis(x, last, axis=1)[:, 0])


def _read(x: Float[Array, "N L 2 P"], C: Complex[Array, "H P"]) -> Float[Array, "N L H"]:
    """Re(C x)."""
    return product(x.reshape(*x.shape[:2], 2 * C.shape[1]), real_readout(C).T)


def real_readout(C: Complex[Array, "H P"]) -> Float[Array, "H P2"]:
    """The real matrix [Re C, -Im C]: applied to (Re x, Im x) it gives Re(C x)."""
    return jnp.concatenate([C.real, -C.imag], axis=1)


def drive(B: Complex[Array, "P H"], u: Float[Array, "N L H"]) -> Float[Array, "N L 2 P"]:
    """B u."""
    return product(u, jnp.concatenate([B.real, B.imag]).T).reshape(*u.shape[:-1], 2, B.shape[0])


def response(
    a: Complex[Array, " P"], b: Float[Array, "N L 2 P"], Cs: list[Complex[Array, "H P"]], *, method: str
) -> Float[Array, "N L H"]:
    """y_k = Re(C x_k), with x_k = a x_{k-1} + b_k from x = 0, and b from `drive`.

    A second readout, if given, is applied to the backward states x_k = a x_{k+1} + b_k, and the outputs are added. With
    the `scan` methods "sequential" and "chunked" the scan is fused with the product, block by block; the other methods
    store all states.
    """
    N, L, _, P = b.shape
    method = scan.choose(method, N, L)
    dtype = jnp.promote_types(b.dtype, a.real.dtype)
    b, packed, directions = b.astype(dtype), scan.pack(a).astype(dtype)[None, None], (False, True)[: len(Cs)]
    if method in ("associative", "plain"):
        zero = jnp.zeros_like(b[:, 0])
        xs = [scan.states(packed, b, zero, reverse=r, method=method) for r in directions]
        return functools.reduce(jnp.add, [_read(x, C) for x, C in zip(xs, Cs, strict=True)])
    C = jnp.stack([real_readout(C) for C in Cs], axis=1).astype(dtype)
    operands = tuple(map(scan.reverse_mode_only, (packed, b, C)))
    if method == "kernel":
        from s5jax.ssm import scan_kernel

        return scan_kernel.response(*operands, directions)
    blocks = 1
    if not (is_symbolic_dim(N) or is_symbolic_dim(L)):
        limit, block = BLOCKS.get(jax.default_backend(), (2**28, 2**28))
        numbers = 2 * len(Cs) * N * L * P
        blocks = 1 if numbers <= limit else min(L, -(-numbers // block))
        blocks = next((n for n in range(blocks, min(L, 2 * blocks) + 1) if L % n == 0), blocks)  # padding costs a copy
    size = -(-L // blocks)
    chunk = math.isqrt(size) if method == "chunked" else size
    size = -(-size // chunk) * chunk
    blocks = -(-L // size)
    if size * blocks > L:  # padding does no harm: backward states are 0 there, and forward states are not used
        operands = packed, jnp.pad(operands[1], ((0, 0), (0, size * blocks - L), (0, 0), (0, 0))), operands[2]
    return _response(*operands, directions, size, chunk)[:, :L]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _response(a: Array, b: Array, C: Array, reverse: tuple[bool, ...], size: int, chunk: int) -> Array:
    """y (N, L, H) from a (1, 1, 2, P), b (N, L, 2, P), C (H, D, 2 P): D directions, `reverse` true for a backward one,
    in blocks of `size` steps, a multiple of `chunk`."""
    return _forward(a, b, C, reverse, size, chunk)[0]


def _block(
    a: Array, b: Array, start: Array, i: Array, reverse: tuple[bool, ...], size: int, chunk: int
) -> tuple[Array, list[Array]]:
    """For each direction, the states of the i-th block that it processes, and the place of that block."""
    places = [b.shape[1] // size - 1 - i if r else i for r in reverse]
    return scan.run(a, jnp.stack([_get_block(b, p, size) for p in places], 2), start, reverse, chunk)[0], places


def _forward(a: Array, b: Array, C: Array, reverse: tuple[bool, ...], size: int, chunk: int) -> tuple[Array, Any]:
    N, L, _, P = b.shape
    D, blocks = len(reverse), L // size
    zero = jnp.zeros((N, D, 2, P), b.dtype)
    if blocks == 1:  # one product for both directions
        states, _ = scan.run(a, b[:, :, None], zero, reverse, chunk)
        return jnp.einsum("nldp,hdp->nlh", states.reshape(N, L, D, 2 * P), C), (a, b, C, zero[None])

    def advance(carry: tuple[Array, Array], i: Array) -> tuple[tuple[Array, Array], Array]:
        start, y = carry
        states, places = _block(a, b, start, i, reverse, size, chunk)
        for d, place in enumerate(places):
            y = _add_block(y, jnp.einsum("nlp,hp->nlh", states[:, :, d].reshape(N, size, 2 * P), C[:, d]), place, size)
        return (jnp.stack([states[:, 0 if r else -1, d] for d, r in enumerate(reverse)], 1), y), start

    (_, y), starts = jax.lax.scan(advance, (zero, jnp.zeros((N, L, C.shape[0]), b.dtype)), jnp.arange(blocks))
    return y, (a, b, C, starts)


def _backward(reverse: tuple[bool, ...], size: int, chunk: int, residuals: Any, cotangent: Array) -> tuple[Array, ...]:
    """With cotangents g of the states: db_k = l_k = g_k + conj(a) l_{k+1}, and da = sum_k l_{k+1} conj(x_k)."""
    a, b, C, starts = residuals
    N, L, _, P = b.shape
    D, blocks = len(reverse), L // size
    zero = jnp.zeros((N, D, 2, P), b.dtype)
    adjoint = functools.partial(scan.run, scan.conjugate(a), reverse=tuple(not r for r in reverse), chunk=chunk)
    if blocks == 1:
        states, _ = scan.run(a, b[:, :, None], zero, reverse, chunk)
        dC = weight_gradient(cotangent, states.reshape(N, L, D * 2 * P)).reshape(C.shape)
        dstates = jnp.einsum("nlh,hdp->nldp", cotangent, C).reshape(states.shape)
        adjoints, da = adjoint(dstates, zero, against=states)
        return da[None, None], adjoints.sum(2), dC

    def advance(carry: Any, step: tuple[Array, Array]) -> tuple[Any, None]:
        after, da, db, dC = carry
        i, start = step
        states, places = _block(a, b, start, i, reverse, size, chunk)
        dstates, dC_i = [], []
        for d, place in enumerate(places):
            part = _get_block(cotangent, place, size)
            dstates.append(jnp.einsum("nlh,hp->nlp", part, C[:, d]))
            dC_i.append(weight_gradient(part, states[:, :, d].reshape(N, size, 2 * P)))
        adjoints, da_i = adjoint(jnp.stack(dstates, 2).reshape(states.shape), after, against=states)
        for d, place in enumerate(places):
            db = _add_block(db, adjoints[:, :, d], place, size)
        after = jnp.stack([adjoints[:, -1 if r else 0, d] for d, r in enumerate(reverse)], 1)
        return (after, da + da_i[None, None], db, dC + jnp.stack(dC_i, 1)), None

    carry = (zero, jnp.zeros_like(a), jnp.zeros_like(b), jnp.zeros_like(C))
    (_, da, db, dC), _ = jax.lax.scan(advance, carry, (jnp.arange(blocks), starts), reverse=True)
    return da, db, dC


_response.defvjp(_forward, _backward)


def _get_block(x: Array, i: Array, size: int) -> Array:
    return jax.lax.dynamic_slice_in_dim(x, i * size, size, 1)


def _add_block(x: Array, block: Array, i: Array, size: int) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(x, _get_block(x, i, size) + block, i * size, 1)
