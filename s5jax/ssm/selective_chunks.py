"""The selective scan chunk by chunk: outputs, and the states before each chunk. See `selective_scan`.

States are tuples of real arrays (B, G, N, P): the real and, if A is complex, the imaginary part. The features are in G
groups of P that share B and C. Most functions take arrays of one step, or of all T steps of a chunk, whose axis of time
is then the first.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim
from jaxtyping import Array, Bool, Float

from s5jax.ssm.parameters import with_rank

Parts = tuple[Array, ...]


class System(NamedTuple):
    """Arguments of `selective_gradient.scan`; B and C have a part for each step, a constant part, or both."""

    x: Float[Array, "B L G P"]
    delta: Float[Array, "B L G P"]
    A: Parts  # (G, N, P)
    B: Parts  # (B, L, G, N)
    C: Parts
    B_fixed: Parts  # (G, N, P)
    C_fixed: Parts
    D: Float[Array, "G P"] | None
    delta_bias: Float[Array, "G P"] | None
    rate: Float[Array, "B L"] | None
    start: Parts  # (B, G, N, P)


class Static(NamedTuple):
    softplus: bool
    method: str
    chunk: Any
    """Steps in a chunk; the last chunk overlaps the one before it if this does not divide the length."""


# --- numbers in parts; axes may come in front ---


def parts_of(z: Array) -> Parts:
    return (z.real, z.imag) if jnp.iscomplexobj(z) else (z,)


def times(a: Parts, x: Parts) -> Parts:
    return (a[0] * x[0],) if len(a) == 1 else (a[0] * x[0] - a[1] * x[1], a[0] * x[1] + a[1] * x[0])


def conjugate(a: Parts) -> Parts:
    return (a[0], *(-part for part in a[1:]))


def plus(a: Parts, b: Parts) -> Parts:
    return tuple(p + q for p, q in zip(a, b, strict=True))


def scaled(v: Array, z: Parts) -> Parts:
    """v (..., G, P) times each part (..., G, N, P), or (G, N, P)."""
    return tuple(v[..., None, :] * with_rank(part, v.ndim + 1) for part in z)


def matrix(varying: Parts, fixed: Parts) -> Parts:
    """B or C, (..., G, N, P), (..., G, N, 1), or (G, N, P)."""
    if not varying:
        return fixed
    wide = tuple(part[..., None] for part in varying)
    return tuple(v + with_rank(f, v.ndim) for v, f in zip(wide, fixed, strict=True)) if fixed else wide


def multiplier(dt: Array, A: Parts) -> Parts:
    size, *turn = scaled(dt, A)
    size = jnp.exp(size)
    return tuple(size * part for part in cos_sin(turn[0])) if turn else (size,)


def cos_sin(x: Array) -> tuple[Array, Array]:
    """cos(x) and sin(x). On a CPU, in float32, XLA would compute one number at a time; these polynomials, those of the
    Cephes library, are computed for many at once. Their error is that of float32 while |x| is below 6,000;
    beyond it they are inexact, but bounded."""
    if x.dtype != jnp.float32 or jax.default_backend() != "cpu":
        return jnp.cos(x), jnp.sin(x)
    turns = jnp.round(x * (2 / math.pi))
    for part in (1.5703125, 4.837512969970703125e-4, 7.54978995489188216e-8):  # pi / 2 in three parts
        x = x - turns * part
    x = jnp.clip(x, -1, 1)
    z = x * x
    sin = x + x * z * (-1.6666654611e-1 + z * (8.3321608736e-3 - z * 1.9515295891e-4))
    cos = 1 - z / 2 + z * z * (4.166664568298827e-2 + z * (2.443315711809948e-5 * z - 1.388731625493765e-3))
    quarter = turns.astype(jnp.int32)
    odd = (quarter & 1) == 1
    cos, sin = jnp.where(odd, sin, cos), jnp.where(odd, cos, sin)
    return jnp.where(((quarter + 1) & 2) != 0, -cos, cos), jnp.where((quarter & 2) != 0, -sin, sin)


def _read_out(C: Parts, h: Parts) -> Array:
    """C h, or 2 Re(C h)."""
    product = times(tuple(with_rank(part, h[0].ndim) for part in C), h)[0].sum(-2)
    return product if len(h) == 1 else 2 * product


def kept(h: Parts, reset: Array | None) -> Parts:
    """h, or zero where a new sequence starts."""
    return h if reset is None else tuple(jnp.where(reset[..., None, None, None], 0, part) for part in h)


# --- chunks ---


def step_inputs(static: Static, x: Array, delta: Array, bias: Array | None, rate: Array | None) -> tuple[Array, Array]:
    """dt and dt x."""
    dt = delta if bias is None else delta + with_rank(bias, delta.ndim)
    dt = jax.nn.softplus(dt) if static.softplus else dt
    dt = dt if rate is None else dt * rate[..., None, None]
    return dt, dt * x


def cut(v: Any, first: Array, T: Any) -> Any:
    """T steps of each array, on the first axis."""
    return jax.tree.map(lambda v: jnp.moveaxis(jax.lax.dynamic_slice_in_dim(v, first, T, 1), 1, 0), v)


def paste(whole: Any, piece: Any, first: Array) -> Any:
    def update(whole: Array, piece: Array) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(whole, jnp.moveaxis(piece, 0, 1), first, 1)

    return jax.tree.map(update, whole, piece)


def _place(c: Array, L: Any, T: Any) -> tuple[Array, Array | None]:
    """The first step of a chunk, and which of its steps belong to the chunk before it, if any do."""
    if is_symbolic_dim(L) or L % T == 0:
        return c * T, None
    first = jnp.minimum(c * T, L - T)
    return first, jnp.arange(T, dtype=jnp.int32) < c * T - first


class Piece(NamedTuple):
    """What differs from step to step, in one chunk or at one step; the axes of time and batch come first."""

    dt: Float[Array, "*time B G P"]
    u: Float[Array, "*time B G P"]
    """dt x."""
    B: Parts
    C: Parts
    reset: Bool[Array, "*time B"] | None


def inputs(system: System, reset: Array | None, static: Static, c: Array) -> tuple[Array, Array | None, Any, Any]:
    """The first step of a chunk, which steps do not count, (x, delta, rate), and B, C and reset. A step that does not
    count has the rate 0, so that the state stays what it is."""
    L, T = system.x.shape[1], static.chunk
    first, skip = _place(c, L, T)
    x, delta, rate, B, C, reset = cut((system.x, system.delta, system.rate, system.B, system.C, reset), first, T)
    if skip is not None:
        rate = jnp.where(skip[:, None], 0, jnp.ones_like(x[:, :, 0, 0]) if rate is None else rate)
        reset = None if reset is None else reset & ~skip[:, None]
    return first, skip, (x, delta, rate), (B, C, reset)


def forward(system: System, reset: Array | None, static: Static) -> tuple[Array, Parts, Parts]:
    """Outputs (B, L, G, P), the last state, and the states before each chunk."""

    def chunk(carry: tuple[Parts, Array], c: Array) -> tuple[tuple[Parts, Array], Parts]:
        h, all_y = carry
        first, skip, (x, delta, rate), rest = inputs(system, reset, static, c)
        piece = Piece(*step_inputs(static, x, delta, system.delta_bias, rate), *rest)
        if static.method == "associative":
            states = all_states(system, piece, h)[0]
            y, last = _read_out(matrix(piece.C, system.C_fixed), states), tuple(part[-1] for part in states)
        else:
            last, y = jax.lax.scan(functools.partial(_step, system), h, piece)
        y = y if system.D is None else y + with_rank(system.D, 4) * x
        y = y if skip is None else jnp.where(skip[:, None, None, None], cut(all_y, first, static.chunk), y)
        return (last, paste(all_y, y, first)), h

    (last, y), before = jax.lax.scan(chunk, (system.start, jnp.zeros_like(system.x)), numbers(system, static))
    return y, last, before


def numbers(system: System, static: Static) -> Array:
    L, T = system.x.shape[1], static.chunk
    return jnp.arange(1 if is_symbolic_dim(L) else -(-L // T), dtype=jnp.int32)


def _step(system: System, h: Parts, now: Piece) -> tuple[Parts, Array]:
    h = advance(system, h, now)
    return h, _read_out(matrix(now.C, system.C_fixed), h)


def advance(system: System, h: Parts, now: Piece) -> Parts:
    moved = times(multiplier(now.dt, system.A), kept(h, now.reset))
    return plus(moved, scaled(now.u, matrix(now.B, system.B_fixed)))


def all_states(system: System, piece: Piece, h: Parts) -> tuple[Parts, Parts]:
    """The states after all steps of a chunk, and the multipliers exp(dt A), (T, B, G, N, P)."""
    a, b = multiplier(piece.dt, system.A), scaled(piece.u, matrix(piece.B, system.B_fixed))
    b = add_at(b, 0, times(tuple(part[0] for part in kept(a, piece.reset)), h))
    return jax.lax.associative_scan(combine, (kept(a, piece.reset), b))[1], a


def add_at(b: Parts, step: int, more: Parts) -> Parts:
    return tuple(part.at[step].add(other) for part, other in zip(b, more, strict=True))


def combine(earlier: tuple[Parts, Parts], later: tuple[Parts, Parts]) -> tuple[Parts, Parts]:
    return times(later[0], earlier[0]), plus(times(later[0], earlier[1]), later[1])
