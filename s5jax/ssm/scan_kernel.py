"""The linear recurrence x_k = a_k x_{k-1} + b_k as a GPU kernel: the method "kernel" of `scan`.

A program is one warp. It walks along one piece of one sequence, for one direction and a tile of states, which it keeps
in registers: it reads each input of the piece once, except a few at its end, and writes each state once. If two
directions share inputs, each reads them. Where there are fewer sequences than the GPU can work on at a time, sequences
are cut into pieces. A first kernel then reads the inputs once more and finds the map x -> m x + e of each piece; a
program of the second begins with the maps of the pieces before its own.

On a CPU the kernel is interpreted, which is slow and meant for tests.
"""

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float

from s5jax.ssm.scan import conjugate, multiply, shift, solve
from s5jax.ssm.shares import by_shares

TILE = 32
"""Maximum number of states per program, one per thread."""
PROGRAMS = 2048
"""Programs that fill a GPU: 132 multiprocessors of an H100, about 16 warps each."""
SHORTEST = 32
"""Minimum number of steps per piece, if a sequence is cut; its last piece may be shorter."""
AHEAD = 8
"""Steps whose inputs are read before the first of them is used, so that they wait for memory together."""

Parts = list[Array]
"""A tile of packed numbers: [real part, imaginary part], or [real number], each (t,)."""

warnings.filterwarnings("ignore", "The Pallas Triton backend is deprecated", DeprecationWarning)  # when it is lowered


@functools.cache
def compiles() -> bool:
    """Whether the kernel can be compiled for the default device, tried once with one small sequence."""
    a, b, start = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1, 1, 2, 1), (1, 2, 1, 2, 1), (1, 1, 2, 1)))
    try:
        jax.jit(functools.partial(run, reverse=(False,))).lower(a, b, start).compile()
    except Exception as error:  # of whatever kind: the kernel language has no promise of what it raises
        print(f"the scan kernel cannot be compiled here, so scan_method auto is associative: {error!r}"[:200])
        return False
    return True


def run(
    a: Float[Array, "n l K P"],
    b: Float[Array, "N L d K P"],
    starts: Float[Array, "N D K P"],
    reverse: tuple[bool, ...],
    against: Float[Array, "N L D K P"] | None = None,
) -> tuple[Float[Array, "N L D K P"], Any]:
    """See `scan.run`. There is one direction, or there are two opposite ones."""
    return _run(reverse, a, b, starts, against)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _run(reverse: tuple[bool, ...], a: Array, b: Array, starts: Array, against: Array | None) -> tuple[Array, Any]:
    given = [a, b, starts, *([] if against is None else [against])]
    found = by_shares(functools.partial(_share, reverse), given, b.shape[0])
    return found[0], None if against is None else found[1].sum((0, 1))


def _share(reverse: tuple[bool, ...], a: Array, b: Array, starts: Array, against: Array | None = None) -> Any:
    """The states of the sequences of one device and, with `against`, the sums that each program makes."""
    N, L, _, K, P = b.shape
    D, t = len(reverse), math.gcd(P, TILE)
    pieces = _pieces(L, N * D * (P // t))
    length = -(-L // pieces)
    pieces = -(-L // length)
    walk = functools.partial(_walk, L=L, length=length, pieces=pieces, flip=reverse[0])
    call = functools.partial(_call, grid=(N, P // t, D * pieces))

    def steps(directions: int) -> pl.BlockSpec:
        """All steps of one sequence, for one direction."""
        return pl.BlockSpec((None, L, None, K, t), lambda n, p, z: (n, 0, z // pieces if directions > 1 else 0, 0, p))

    fixed, own = a.shape[1] == 1, a.shape[0] > 1
    a_spec = pl.BlockSpec((None, a.shape[1], K, t), lambda n, p, z: (n if own else 0, 0, 0, p))
    start_spec = pl.BlockSpec((None, None, K, t), lambda n, p, z: (n, z // pieces, 0, p))
    each_spec = pl.BlockSpec((None, None, K, t), lambda n, p, z: (n, z, 0, p))
    each = jax.ShapeDtypeStruct((N, D * pieces, K, P), b.dtype)

    maps: list[Array] = []
    if pieces > 1:
        kernel = functools.partial(_map_kernel, walk=walk, fixed=fixed)
        maps = call(kernel, in_specs=[a_spec, steps(b.shape[2])], out_specs=[each_spec] * 2, out_shape=[each] * 2)(a, b)
        maps = [m.reshape(N, D, pieces, K, P) for m in maps]
    map_spec = pl.BlockSpec((None, None, pieces, K, t), lambda n, p, z: (n, z // pieces, 0, 0, p))
    states = jax.ShapeDtypeStruct((N, L, D, K, P), b.dtype)
    others = [] if against is None else [against]
    kernel = functools.partial(_state_kernel, walk=walk, fixed=fixed, cut=pieces > 1, summed=against is not None)
    return call(
        kernel,
        in_specs=[a_spec, start_spec, steps(b.shape[2]), *[map_spec] * len(maps), *[steps(D)] * len(others)],
        out_specs=[steps(D), *[each_spec] * len(others)],
        out_shape=[states, *[each] * len(others)],
    )(a, starts, b, *maps, *others)


@_run.defjvp
def _run_jvp(reverse: tuple[bool, ...], primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
    """For derivatives of gradients: dx_k = a_k dx_{k-1} + (da_k x_{k-1} + db_k), by the method "chunked"."""
    (a, _, starts, against), (da, db, dstarts, dagainst) = primals, tangents
    x, total = _run(reverse, *primals)
    dx, parts = [], []
    for d, r in enumerate(reverse):
        before = shift(x[:, :, d], starts[:, None, d], r)
        inputs = multiply(da, before) + db[:, :, d if db.shape[2] > 1 else 0]
        dx.append(solve(a, inputs, dstarts[:, d], r, "chunked"))
        if against is not None:
            dbefore = shift(dx[d], dstarts[:, None, d], r)
            product = multiply(dbefore, conjugate(against[:, :, d])) + multiply(before, conjugate(dagainst[:, :, d]))
            parts.append(product.sum((0, 1)))
    return (x, total), (jnp.stack(dx, 2), functools.reduce(jnp.add, parts) if parts else None)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def response(
    a: Float[Array, "1 1 2 P"], b: Float[Array, "N L 2 P"], C: Float[Array, "H D 2*P"], reverse: tuple[bool, ...]
) -> Float[Array, "N L H"]:
    """See `diagonal_system.response`. The states of all steps are written for the product with C, and kept for the
    backward pass."""
    return _forward(a, b, C, reverse)[0]


def _forward(a: Array, b: Array, C: Array, reverse: tuple[bool, ...]) -> tuple[Array, tuple[Array, ...]]:
    N, L, _, P = b.shape
    states, _ = run(a, b[:, :, None], jnp.zeros((N, len(reverse), 2, P), b.dtype), reverse)
    return jnp.einsum("nldp,hdp->nlh", states.reshape(N, L, len(reverse), 2 * P), C), (a, states, C)


def _backward(reverse: tuple[bool, ...], residuals: tuple[Array, ...], cotangent: Array) -> tuple[Array, ...]:
    """With cotangents g of the states: db_k = l_k = g_k + conj(a) l_{k+1}, and da = sum_k l_{k+1} conj(x_k)."""
    a, states, C = residuals
    N, L, D, _, P = states.shape
    dC = jnp.einsum("nlh,nldp->hdp", cotangent, states.reshape(N, L, D, 2 * P))
    dstates = jnp.einsum("nlh,hdp->nldp", cotangent, C).reshape(states.shape)
    zero, other_way = jnp.zeros((N, D, 2, P), states.dtype), tuple(not r for r in reverse)
    adjoints, da = run(conjugate(a), dstates, zero, other_way, against=states)
    return da[None, None], adjoints.sum(2), dC


response.defvjp(_forward, _backward)


def _pieces(L: int, programs: int) -> int:
    """Number of pieces of a sequence, given the number of programs that uncut sequences have."""
    return max(1, min(PROGRAMS // max(1, programs), L // SHORTEST))


def _call(kernel: Callable[..., None], **given: Any) -> Callable[..., Any]:
    if jax.default_backend() == "cpu":
        return pl.pallas_call(kernel, interpret=True, **given)
    from jax.experimental.pallas import triton

    return pl.pallas_call(kernel, compiler_params=triton.CompilerParams(num_warps=1, num_stages=1), **given)


def _walk(
    step: Callable[[Any, Array, list[Parts]], Any],
    carry: Any,
    *refs: Any,
    L: int,
    length: int,
    pieces: int,
    flip: bool,
) -> Any:
    """Calls carry = step(carry, place, [a tile of each ref at that place]) for each step of the program's piece."""
    direction, piece = pl.program_id(2) // pieces, pl.program_id(2) % pieces
    backward = 1 - direction if flip else direction
    first, sign = backward * (L - 1), 1 - 2 * backward
    begin = piece * length
    count = length if length * pieces == L else jnp.minimum(length, L - begin)

    def place(i: Any) -> Array:
        return first + sign * (begin + i)

    def load(i: Any) -> list[list[Parts]]:
        """The tiles of AHEAD steps; beyond the end of the sequence, the tiles of its last step are repeated."""
        places = [first + sign * jnp.minimum(begin + i + j, L - 1) for j in range(AHEAD)]
        return [[_load(ref, k) for ref in refs] for k in places]

    def several(i: Array, carry: Any) -> Any:
        carry, tiles = carry
        following = load((i + 1) * AHEAD)
        for j in range(AHEAD):
            carry = step(carry, place(i * AHEAD + j), tiles[j])
        return carry, following

    def single(i: Array, carry: Any) -> Any:
        return step(carry, place(i), [_load(ref, place(i)) for ref in refs])

    carry, _ = jax.lax.fori_loop(0, count // AHEAD, several, (carry, load(0)))
    return jax.lax.fori_loop(count // AHEAD * AHEAD, count, single, carry)


def _map_kernel(a_ref: Any, b_ref: Any, m_ref: Any, e_ref: Any, *, walk: Any, fixed: bool) -> None:
    """The map x -> m x + e of a piece."""
    constant = _load(a_ref, 0)
    one, zero = _constant(constant, 1), _constant(constant, 0)

    def step(carry: tuple[Parts, Parts], k: Array, tiles: list[Parts]) -> tuple[Parts, Parts]:
        m, e = carry
        a = constant if fixed else tiles[1]
        return _times(a, m), _plus(_times(a, e), tiles[0])

    m, e = walk(step, (one, zero), b_ref, *([] if fixed else [a_ref]))
    _store(m_ref, m)
    _store(e_ref, e)


def _state_kernel(
    a_ref: Any, start_ref: Any, b_ref: Any, *refs: Any, walk: Any, fixed: bool, cut: bool, summed: bool
) -> None:
    """The states of a piece and, if asked for, the sum of x_{k-1} conj(z_k)."""
    (m_ref, e_ref), refs = (refs[:2], refs[2:]) if cut else ((None, None), refs)
    (z_ref, x_ref, sum_ref) = refs if summed else (None, refs[0], None)
    constant, x = _load(a_ref, 0), _load(start_ref)
    if cut:
        piece = pl.program_id(2) % walk.keywords["pieces"]

        def advance(c: Array, x: Parts) -> Parts:
            return _plus(_times(_load(m_ref, c), x), _load(e_ref, c))

        x = jax.lax.fori_loop(0, piece, advance, x)

    def step(carry: tuple[Parts, Parts], k: Array, tiles: list[Parts]) -> tuple[Parts, Parts]:
        x, total = carry
        if summed:
            total = _plus(total, _times_conjugate(x, tiles[-1]))
        x = _plus(_times(constant if fixed else tiles[1], x), tiles[0])
        _store(x_ref, x, k)
        return x, total

    sources = [b_ref, *([] if fixed else [a_ref]), *([z_ref] if summed else [])]
    _, total = walk(step, (x, _constant(x, 0) if summed else []), *sources)
    if summed:
        _store(sum_ref, total)


def _load(ref: Any, *place: Any) -> Parts:
    return [ref[(*place, i, slice(None))] for i in range(ref.shape[-2])]


def _store(ref: Any, x: Parts, *place: Any) -> None:
    for i, part in enumerate(x):
        ref[(*place, i, slice(None))] = part


def _constant(x: Parts, value: int) -> Parts:
    return [jnp.full_like(part, 0 if i else value) for i, part in enumerate(x)]


def _plus(x: Parts, y: Parts) -> Parts:
    return [p + q for p, q in zip(x, y, strict=True)]


def _times(a: Parts, x: Parts) -> Parts:
    if len(a) == 1:
        return [a[0] * x[0]]
    return [a[0] * x[0] - a[1] * x[1], a[0] * x[1] + a[1] * x[0]]


def _times_conjugate(x: Parts, z: Parts) -> Parts:
    """x conj(z)."""
    return _times([z[0], *(-part for part in z[1:])], x)
