"""A diagonal system with many inputs and outputs on a whole sequence: x_k = a x_{k-1} + b_k, y_k = Re(C x_k).

`response` is one operation with a gradient rule of its own, since what costs here is memory traffic:

- All arithmetic is real, on states packed as (re, im). A real output then takes two real products where a complex one
  takes four, and nothing of the length of the sequence is complex.
- The states are used at once, by the product with C, and not kept: the gradient makes them again. Those of a long
  sequence are made block by block, and only the ones between blocks are kept, for the gradient to start from. Two
  directions go through the blocks from both ends in one loop, which is one to compile.
- The adjoint of the recurrence is the recurrence the other way with the conjugate multiplier. The same loop collects
  the gradient of a, so that no product of states and adjoints is stored.

Within a block the states are made by the method "sequential" or "chunked" of `scan`, where the choice between the two
is explained; the published way, a tree, is there alone.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from s5jax.ssm.product import product, weight_gradient

__all__ = ["drive", "response"]

BLOCKS = {"cpu": (2**26, 2**19)}
"""By platform, how many numbers the states of all steps may have without being made in blocks, and about how many those
of a block then have. On a CPU 256 MiB: blocks make training steps of the Long Range Arena slower by some 7 %, but loops
over arrays of 512 MiB take ten times as long as over smaller ones. And 2 MiB, which a cache holds until they are used;
larger blocks are slower. Elsewhere both are 1 GiB, which was not measured."""


def drive(B: Complex[Array, "P H"], u: Float[Array, "*batch L H"]) -> Float[Array, "*batch L 2 P"]:
    """B u, (re, im) on the second-last axis."""
    return product(u, jnp.concatenate([B.real, B.imag]).T).reshape(*u.shape[:-1], 2, len(B))


def response(
    a: Complex[Array, " P"],
    b: Float[Array, "*batch L 2 P"],
    Cs: Sequence[Complex[Array, "H P"]],
    *,
    method: str,
) -> Float[Array, "*batch L H"]:
    """y_k = Re(C x_k), with x_k = a x_{k-1} + b_k from x = 0.

    Args:
      a: multipliers.
      b: as from `drive`.
      Cs: the readout; and where there is a second, what it makes of the states x_k = a x_{k+1} + b_k is added.
      method: "sequential" or "chunked"; see the head of this file.
    """
    *batch, L, _, P = b.shape
    N, dtype = math.prod(batch), jnp.promote_types(b.dtype, a.real.dtype)
    limit, block = BLOCKS.get(jax.default_backend(), (2**28, 2**28))
    numbers = 2 * len(Cs) * N * L * P
    blocks = 1 if numbers <= limit else min(L, -(-numbers // block))
    blocks = next((n for n in range(blocks, min(L, 2 * blocks) + 1) if L % n == 0), blocks)  # padding costs a copy
    size = -(-L // blocks)
    chunk = math.isqrt(size) if method == "chunked" else size
    size = -(-size // chunk) * chunk
    blocks = -(-L // size)
    b = b.reshape(N, L, 2, P).astype(dtype)
    if size * blocks > L:  # steps after the end: x is 0 there when read from the end, and otherwise read by nobody
        b = jnp.pad(b, ((0, 0), (0, size * blocks - L), (0, 0), (0, 0)))
    C = jnp.stack([jnp.concatenate([C.real, -C.imag], axis=1) for C in Cs], axis=1).astype(dtype)
    y = _response(jnp.stack([a.real, a.imag]).astype(dtype), b, C, (False, True)[: len(Cs)], size, chunk)
    return y[:, :L].reshape(*batch, L, len(C))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _response(
    a: Float[Array, "2 P"],
    b: Float[Array, "N L 2 P"],
    C: Float[Array, "H D P2"],
    reverse: tuple[bool, ...],
    size: int,
    chunk: int,
) -> Float[Array, "N L H"]:
    """For the directions `reverse`, in blocks of `size` steps, the last first for a reverse one."""
    return _forward(a, b, C, reverse, size, chunk)[0]


Residuals = tuple[Array, Array, Array, Array]
Carry = tuple[Array, Array, Array, Array]


def _forward(a: Array, b: Array, C: Array, reverse: tuple[bool, ...], size: int, chunk: int) -> tuple[Array, Residuals]:
    N, L, _, P = b.shape
    D, blocks = len(reverse), L // size
    zero = jnp.zeros((N, D, 2, P), b.dtype)
    if blocks == 1:  # one product for both directions
        states = _run(a, b[:, :, None], zero, reverse, chunk)
        return jnp.einsum("nldp,hdp->nlh", states.reshape(N, L, D, 2 * P), C), (a, b, C, zero[None])

    def advance(carry: tuple[Array, Array], i: Array) -> tuple[tuple[Array, Array], Array]:
        start, y = carry
        places = [blocks - 1 - i if r else i for r in reverse]  # the block that each direction has come to
        states = _run(a, jnp.stack([_take(b, place, size) for place in places], 2), start, reverse, chunk)
        for d, place in enumerate(places):
            y = _add(y, jnp.einsum("nlp,hp->nlh", states[:, :, d].reshape(N, size, -1), C[:, d]), place, size)
        return (jnp.stack([states[:, 0 if r else -1, d] for d, r in enumerate(reverse)], 1), y), start

    (_, y), starts = jax.lax.scan(advance, (zero, jnp.zeros((N, L, len(C)), b.dtype)), jnp.arange(blocks))
    return y, (a, b, C, starts)


def _backward(
    reverse: tuple[bool, ...], size: int, chunk: int, residuals: Residuals, cotangent: Array
) -> tuple[Array, Array, Array]:
    a, b, C, starts = residuals
    N, L, _, P = b.shape
    D, blocks = len(reverse), L // size
    zero = jnp.zeros((N, D, 2, P), b.dtype)
    if blocks == 1:
        states = _run(a, b[:, :, None], zero, reverse, chunk)
        dC = weight_gradient(cotangent, states.reshape(N, L, D * 2 * P)).reshape(C.shape)
        by_state = jnp.einsum("nlh,hdp->nldp", cotangent, C).reshape(states.shape)
        adjoints, da = _adjoint(a, by_state, states, zero, reverse, chunk)
        return da, adjoints.sum(2), dC

    def advance(carry: Carry, step: tuple[Array, Array]) -> tuple[Carry, None]:
        after, da, db, dC = carry
        i, start = step
        places = [blocks - 1 - i if r else i for r in reverse]
        states = _run(a, jnp.stack([_take(b, place, size) for place in places], 2), start, reverse, chunk)
        by_state, dC_i = [], []
        for d, place in enumerate(places):
            part = _take(cotangent, place, size)
            by_state.append(jnp.einsum("nlh,hp->nlp", part, C[:, d]))
            dC_i.append(weight_gradient(part, states[:, :, d].reshape(N, size, -1)))
        adjoints, da_i = _adjoint(a, jnp.stack(by_state, 2).reshape(states.shape), states, after, reverse, chunk)
        for d, place in enumerate(places):
            db = _add(db, adjoints[:, :, d], place, size)
        after = jnp.stack([adjoints[:, -1 if r else 0, d] for d, r in enumerate(reverse)], 1)
        return (after, da + da_i, db, dC + jnp.stack(dC_i, 1)), None

    carry = (zero, jnp.zeros_like(a), jnp.zeros_like(b), jnp.zeros_like(C))
    (_, da, db, dC), _ = jax.lax.scan(advance, carry, (jnp.arange(blocks), starts), reverse=True)
    return da, db, dC


_response.defvjp(_forward, _backward)


def _run(a: Array, b: Array, starts: Array, reverse: tuple[bool, ...], chunk: int) -> Float[Array, "N L D 2 P"]:
    """States of the directions, each from its start (N, D, 2, P); b (N, L, D, 2, P), or one for all."""
    N, L, _, _, P = b.shape
    D = len(reverse)
    b = b.reshape(-1, chunk, *b.shape[2:])
    initial = [_chunk_starts(a, b, starts[:, d], d, reverse[d]) for d in range(D)]

    def step(t: Array, carry: tuple[list[Array], Array]) -> tuple[list[Array], Array]:
        x, states = carry
        x = [_multiply(a, x[d]) + _at(b, d, t, reverse[d]) for d in range(D)]
        for d in range(D):
            states = _set(states, x[d], d, t, reverse[d])
        return x, states

    _, states = jax.lax.fori_loop(0, chunk, step, (initial, jnp.zeros((len(b), chunk, D, 2, P), b.dtype)))
    return states.reshape(N, L, D, 2, P)


def _adjoint(
    a: Array, cotangent: Array, states: Array, after: Array, reverse: tuple[bool, ...], chunk: int
) -> tuple[Float[Array, "N L D 2 P"], Float[Array, "2 P"]]:
    """Adjoint states l_k = g_k + conj(a) l_{k+1}, which are db, and da = sum_k l_{k+1} conj(x_k)."""
    shape, D = states.shape, len(reverse)
    cotangent, states = (x.reshape(-1, chunk, *shape[2:]) for x in (cotangent, states))
    conjugate = a * jnp.array([[1.0], [-1.0]], a.dtype)
    initial = [_chunk_starts(conjugate, cotangent, after[:, d], d, not reverse[d]) for d in range(D)]

    def step(t: Array, carry: tuple[list[Array], Array, Array, Array]) -> tuple[list[Array], Array, Array, Array]:
        adjoint, adjoints, by_re, by_im = carry
        for d in range(D):
            x = _at(states, d, t, not reverse[d])
            by_re, by_im = by_re + adjoint[d] * x, by_im + adjoint[d] * _turn(x)
        adjoint = [_multiply(conjugate, adjoint[d]) + _at(cotangent, d, t, not reverse[d]) for d in range(D)]
        for d in range(D):
            adjoints = _set(adjoints, adjoint[d], d, t, not reverse[d])
        return adjoint, adjoints, by_re, by_im

    zero = jnp.zeros_like(initial[0])
    _, adjoints, by_re, by_im = jax.lax.fori_loop(0, chunk, step, (initial, jnp.zeros_like(states), zero, zero))
    return adjoints.reshape(shape), jnp.stack([by_re.sum((0, 1)), by_im.sum((0, 1))])


def _chunk_starts(a: Array, b: Array, start: Array, d: int, reverse: bool) -> Float[Array, "chunks 2 P"]:
    """The state that each chunk of b (chunks, T, D, 2, P) starts from; some of them make a sequence of the N."""
    N, T = len(start), b.shape[1]
    if len(b) == N:
        return start
    own = jnp.zeros_like(b[:, 0, 0])  # the state at a chunk's end, had it started from zero
    own = jax.lax.fori_loop(0, T, lambda t, x: _multiply(a, x) + _at(b, d, t, reverse), own)
    power = jax.lax.integer_pow(jax.lax.complex(a[0], a[1]), T)
    power = jnp.stack([power.real, power.imag])
    own = jnp.moveaxis(own.reshape(N, -1, *own.shape[1:]), 1, 0)
    _, starts = jax.lax.scan(lambda x, own: (_multiply(power, x) + own, x), start, own, reverse=reverse)
    return jnp.moveaxis(starts, 0, 1).reshape(len(b), *start.shape[1:])


def _multiply(a: Float[Array, "2 P"], x: Float[Array, "N 2 P"]) -> Float[Array, "N 2 P"]:
    return a[:1, None] * x + a[1:, None] * _turn(x)


def _turn(x: Float[Array, "N 2 P"]) -> Float[Array, "N 2 P"]:
    """i x."""
    return x[:, ::-1] * jnp.array([[[-1.0], [1.0]]], x.dtype)


def _at(x: Float[Array, "N T D 2 P"], d: int, t: Array, reverse: bool) -> Float[Array, "N 2 P"]:
    """Step t of a direction; what there is one of, serves all directions."""
    x = x[:, :, d if x.shape[2] > 1 else 0]
    return jax.lax.dynamic_index_in_dim(x, x.shape[1] - 1 - t if reverse else t, 1, keepdims=False)


def _set(x: Float[Array, "N T D 2 P"], value: Float[Array, "N 2 P"], d: int, t: Array, reverse: bool) -> Array:
    k = x.shape[1] - 1 - t if reverse else t
    return jax.lax.dynamic_update_slice(x, value[:, None, None], (0, k, d, 0, 0))


def _take(x: Array, i: Array, size: int) -> Array:
    return jax.lax.dynamic_slice_in_dim(x, i * size, size, 1)


def _add(x: Array, block: Array, i: Array, size: int) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(x, _take(x, i, size) + block, i * size, 1)
