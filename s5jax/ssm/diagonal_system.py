"""A diagonal system with many inputs and outputs: x_k = a_k x_{k-1} + gamma_k B u_k, y_k = Re(C x_k).

`apply` is for whole sequences, `cell` and `step` for one sample at a time. Where nothing varies in time, `response`
fuses the scan with the product that follows, with a gradient rule of its own, since what costs here is memory traffic:

- All arithmetic is real, on states packed as (re, im). A real output then takes two real products where a complex one
  takes four, and nothing of the length of the sequence is complex.
- The states are used at once, by the product with C, and not kept: the gradient makes them again. Those of a long
  sequence are made block by block, and only the ones between blocks are kept, for the gradient to start from. Two
  directions go through the blocks from both ends in one loop, which is one to compile.
- The adjoint of the recurrence is the recurrence the other way with the conjugate multiplier. The same loop collects
  the gradient of a, so that no product of states and adjoints is stored.
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
from s5jax.ssm.reverse_mode import reverse_mode_only
from s5jax.ssm.sequence import Rate, backward_gaps, end_before, gaps, in_shape, reset_state

BLOCKS = {"cpu": (2**26, 2**19)}
"""By platform, how many numbers the states of all steps may have without being made in blocks, and about how many those
of a block then have. On a CPU 256 MiB, since loops over larger arrays are far slower, and 2 MiB, which a cache holds
(results/benchmark-cpu.md, "Blocks of states"). Elsewhere both are 1 GiB, which was not measured."""

System = tuple[
    Callable[[Any], tuple[Complex[Array, "*gaps P"], Inexact[Array, "*#gaps P"]]],
    Complex[Array, "P H"],
    list[Complex[Array, "H P"]],
]
"""A function from gaps between samples, () or (B,) or (B, L), to multipliers a and the factors gamma on B, called with
the gaps that the states of a direction cross; B; and C of the forward and, if there is one, of the backward direction.
"""


def apply(
    system: System,
    u: Float[Array, "B L H"],
    lengths: Integer[Array, " B"] | None,
    reset: Bool[Array, "#B #L"] | None,
    rate: Rate | None,
    state: Complex[Array, "B P"] | None,
    method: str,
) -> tuple[Float[Array, "B L H"], Complex[Array, "B P"] | None]:
    """y without D u, and the last state if one was given. u is as from `sequence.clean` and of the dtype of the
    parameters, the rest as for a mixer.

    Raises:
      ValueError: a state is given to a system with two directions.
    """
    discretize, B, Cs = system
    rate, reset = in_shape(u, rate, reset)
    if state is not None and len(Cs) == 2:
        raise ValueError("a mixer with two directions has no state to start from")
    if state is None and reset is None and (rate is None or jnp.ndim(rate) == 0):
        a, gamma = discretize(gaps(rate, None))
        gamma = jax.lax.optimization_barrier(gamma)  # else it is computed anew for each element of the product
        return response(a, drive(gamma[:, None] * B, u), Cs, method=method), None
    L, y, Bu = u.shape[1], jnp.zeros((), u.dtype), drive(B, u)
    start = jnp.zeros_like(Bu[:, 0]) if state is None else scan.pack(state)
    start = reset_state(start, reset, lengths)
    x = start[:, None]
    for C, reverse in zip(Cs, (False, True), strict=False):
        gap = backward_gaps(rate, lengths, reset) if reverse else gaps(rate, lengths)
        a, gamma = (scan.pack(_in_time(z, jnp.ndim(gap))) for z in discretize(gap))
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


def _in_time(z: Array, ndim: int) -> Array:
    """(P,), (B, P) or (B, L, P), of gaps with `ndim` axes, as (1 or B, 1 or L, P)."""
    return z[:, None] if ndim == 1 and z.ndim == 2 else with_rank(z, 3)


def _read(x: Float[Array, "N L 2 P"], C: Complex[Array, "H P"]) -> Float[Array, "N L H"]:
    """Re(C x)."""
    return product(x.reshape(*x.shape[:2], 2 * C.shape[1]), _real_readout(C).T)


def _real_readout(C: Complex[Array, "H P"]) -> Float[Array, "H P2"]:
    """What multiplies (re x, im x) in Re(C x)."""
    return jnp.concatenate([C.real, -C.imag], axis=1)


def init_state(like: Float[Array, " P"], batch: int, *, two_directions: bool) -> Complex[Array, "B P"]:
    """Zero, of the precision of `like`. ValueError for two directions."""
    if two_directions:
        raise ValueError("a mixer with two directions has no recurrent mode")
    zero = jnp.zeros((batch, *like.shape), like.dtype)
    return jax.lax.complex(zero, zero)


def cell(system: System, D: Float[Array, " H"], rate: Rate | None) -> dict[str, Array]:
    """What `step` needs, computed once for many samples, for a rate () or (B,). ValueError for two directions."""
    discretize, B, Cs = system
    if len(Cs) == 2:
        raise ValueError("a mixer with two directions has no recurrent mode")
    a, gamma = discretize(gaps(rate, None))
    arrays = {"a": a, "C": _real_readout(Cs[0]).T, "D": D}
    if gamma.ndim == 1:
        B = gamma[:, None] * B
    else:
        arrays["gamma"] = gamma
    return arrays | {"B": jnp.concatenate([B.real, B.imag]).T}


def step(
    cell: dict[str, Array],
    state: Complex[Array, "B P"],
    x_k: Float[Array, "B H"],
    options: Any = None,
    *,
    mask: Bool[Array, " B"] | None = None,
    reset: Bool[Array, " B"] | None = None,
) -> tuple[Float[Array, "B H"], Complex[Array, "B P"]]:
    """One sample of what a mixer's `apply` computes: y_k and the next state. `options` are not used."""
    u = x_k.astype(cell["D"].dtype)
    u = u if mask is None else jnp.where(mask[:, None], 0, u)
    state = state if reset is None else jnp.where(reset[:, None], 0, state)
    Bu = jax.lax.complex(*jnp.split(u @ cell["B"], 2, axis=-1))
    state = with_rank(cell["a"], 2) * state + (cell["gamma"] * Bu if "gamma" in cell else Bu)
    y = jnp.concatenate([state.real, state.imag], axis=-1) @ cell["C"]
    return y + with_rank(cell["D"], 2) * u, state


def kernel(system: System, L: int, rate: Rate | None, method: str) -> Float[Array, "directions H H {L}"]:
    """Re(C a^l gamma B) for l < L, (output, input): what an input does l samples later or, second, earlier."""
    discretize, B, Cs = system
    a, gamma = discretize(gaps(rate, None))
    one = jnp.ones((1, *a.shape), a.dtype)
    powers, _ = scan.scan(a, jnp.pad(one, ((0, L - 1), (0, 0))), method=method)
    B = gamma[:, None] * B
    return jnp.stack([jnp.einsum("op,lp,pi->oil", C, powers, B, precision="highest").real for C in Cs])


def drive(B: Complex[Array, "P H"], u: Float[Array, "*batch L H"]) -> Float[Array, "*batch L 2 P"]:
    """B u, (re, im) on the second-last axis."""
    return product(u, jnp.concatenate([B.real, B.imag]).T).reshape(*u.shape[:-1], 2, B.shape[0])


def response(
    a: Complex[Array, " P"], b: Float[Array, "*batch L 2 P"], Cs: list[Complex[Array, "H P"]], *, method: str
) -> Float[Array, "*batch L H"]:
    """y_k = Re(C x_k), with x_k = a x_{k-1} + b_k from x = 0, and b as from `drive`.

    Where there is a second readout, what it makes of the states x_k = a x_{k+1} + b_k is added. The methods of `scan`
    "sequential" and "chunked" are fused, within a block; the others keep all states.
    """
    *batch, L, _, P = b.shape
    method = scan.choose(method)
    N, dtype = math.prod(batch), jnp.promote_types(b.dtype, a.real.dtype)
    b = b.reshape(N, L, 2, P).astype(dtype)
    packed, directions = scan.pack(a).astype(dtype)[None, None], (False, True)[: len(Cs)]
    if method in ("associative", "plain"):
        zero = jnp.zeros_like(b[:, 0])
        xs = [scan.states(packed, b, zero, reverse=r, method=method) for r in directions]
        y = functools.reduce(jnp.add, [_read(x, C) for x, C in zip(xs, Cs, strict=True)])
        return y.reshape(*batch, L, y.shape[-1])
    blocks = 1
    if not is_symbolic_dim(N):
        limit, block = BLOCKS.get(jax.default_backend(), (2**28, 2**28))
        numbers = 2 * len(Cs) * N * L * P
        blocks = 1 if numbers <= limit else min(L, -(-numbers // block))
        blocks = next((n for n in range(blocks, min(L, 2 * blocks) + 1) if L % n == 0), blocks)  # padding costs a copy
    size = -(-L // blocks)
    chunk = math.isqrt(size) if method == "chunked" else size
    size = -(-size // chunk) * chunk
    blocks = -(-L // size)
    if size * blocks > L:  # steps after the end: x is 0 there when read from the end, and otherwise read by nobody
        b = jnp.pad(b, ((0, 0), (0, size * blocks - L), (0, 0), (0, 0)))
    C = jnp.stack([_real_readout(C) for C in Cs], axis=1).astype(dtype)
    y = _response(*map(reverse_mode_only, (packed, b, C)), directions, size, chunk)
    return y[:, :L].reshape(*batch, L, C.shape[0])


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _response(a: Array, b: Array, C: Array, reverse: tuple[bool, ...], size: int, chunk: int) -> Array:
    """a (1, 1, 2, P), b (N, L, 2, P), C (H, D, 2 P) to y (N, L, H): D directions, true for one that runs backwards, in
    blocks of `size` steps, which is a multiple of `chunk`."""
    return _forward(a, b, C, reverse, size, chunk)[0]


def _block(
    a: Array, b: Array, start: Array, i: Array, reverse: tuple[bool, ...], size: int, chunk: int
) -> tuple[Array, list[Array]]:
    """States of the i-th block that each direction comes to, and which of the sequence's that is."""
    places = [b.shape[1] // size - 1 - i if r else i for r in reverse]
    return scan.run(a, jnp.stack([_take(b, p, size) for p in places], 2), start, reverse, chunk)[0], places


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
            y = _add(y, jnp.einsum("nlp,hp->nlh", states[:, :, d].reshape(N, size, 2 * P), C[:, d]), place, size)
        return (jnp.stack([states[:, 0 if r else -1, d] for d, r in enumerate(reverse)], 1), y), start

    (_, y), starts = jax.lax.scan(advance, (zero, jnp.zeros((N, L, C.shape[0]), b.dtype)), jnp.arange(blocks))
    return y, (a, b, C, starts)


def _backward(reverse: tuple[bool, ...], size: int, chunk: int, residuals: Any, cotangent: Array) -> tuple[Array, ...]:
    """l_k = g_k + conj(a) l_{k+1}, which are db, and da = sum_k l_{k+1} conj(x_k)."""
    a, b, C, starts = residuals
    N, L, _, P = b.shape
    D, blocks = len(reverse), L // size
    zero = jnp.zeros((N, D, 2, P), b.dtype)
    adjoint = functools.partial(scan.run, scan.conjugate(a), reverse=tuple(not r for r in reverse), chunk=chunk)
    if blocks == 1:
        states, _ = scan.run(a, b[:, :, None], zero, reverse, chunk)
        dC = weight_gradient(cotangent, states.reshape(N, L, D * 2 * P)).reshape(C.shape)
        by_state = jnp.einsum("nlh,hdp->nldp", cotangent, C).reshape(states.shape)
        adjoints, da = adjoint(by_state, zero, against=states)
        return da[None, None], adjoints.sum(2), dC

    def advance(carry: Any, step: tuple[Array, Array]) -> tuple[Any, None]:
        after, da, db, dC = carry
        i, start = step
        states, places = _block(a, b, start, i, reverse, size, chunk)
        by_state, dC_i = [], []
        for d, place in enumerate(places):
            part = _take(cotangent, place, size)
            by_state.append(jnp.einsum("nlh,hp->nlp", part, C[:, d]))
            dC_i.append(weight_gradient(part, states[:, :, d].reshape(N, size, 2 * P)))
        adjoints, da_i = adjoint(jnp.stack(by_state, 2).reshape(states.shape), after, against=states)
        for d, place in enumerate(places):
            db = _add(db, adjoints[:, :, d], place, size)
        after = jnp.stack([adjoints[:, -1 if r else 0, d] for d, r in enumerate(reverse)], 1)
        return (after, da + da_i[None, None], db, dC + jnp.stack(dC_i, 1)), None

    carry = (zero, jnp.zeros_like(a), jnp.zeros_like(b), jnp.zeros_like(C))
    (_, da, db, dC), _ = jax.lax.scan(advance, carry, (jnp.arange(blocks), starts), reverse=True)
    return da, db, dC


_response.defvjp(_forward, _backward)


def _take(x: Array, i: Array, size: int) -> Array:
    return jax.lax.dynamic_slice_in_dim(x, i * size, size, 1)


def _add(x: Array, block: Array, i: Array, size: int) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(x, _take(x, i, size) + block, i * size, 1)
