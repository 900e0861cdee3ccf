"""The selective scan (Gu, Dao 2023, arXiv 2312.00752): a diagonal system for each feature d, whose step size, B and C
may differ from sample to sample.

    h_k = exp(dt_k A) h_{k-1} + dt_k B_k x_k,    y_k = C_k h_k + D x_k,    dt_k = rate_k softplus(delta_k + delta_bias)

As in the published code, the factor of B is dt (Euler), and not that of zero-order hold. With a complex A,
y_k = 2 Re(C_k h_k) + D x_k. The methods:

- "sequential" loops over the sequence in chunks of about sqrt(L) steps and stores the states at their starts. The
  backward pass computes the states of one chunk at a time again.
- "associative" does the same with `jax.lax.associative_scan` inside the chunks, for fewer dependent steps.
- "plain" is a `jax.lax.scan` without a gradient rule of its own. It stores all states and supports forward mode
  (`jax.jvp`, `jax.linearize`), where the others raise TypeError.
- "auto": "sequential" on a CPU, otherwise "associative".

States are tuples of real arrays (B, N, G, P): the real and, if A is complex, the imaginary part. D = G P features are
in G groups that share B and C. A cotangent of a complex number holds the derivatives by its two parts.
"""

import functools
import math
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.export import is_symbolic_dim
from jaxtyping import Array, Bool, Float, Inexact, Integer

from s5jax.ssm import sequence
from s5jax.ssm.parameters import with_rank
from s5jax.ssm.scan import reverse_mode_only
from s5jax.ssm.sequence import Rate, Sequences

Method = Literal["auto", "sequential", "associative", "plain"]
Parts = tuple[Array, ...]


class System(NamedTuple):
    """Arguments of `_scan`; B and C have a part for each step, a constant part, or both."""

    x: Float[Array, "B L G P"]
    delta: Float[Array, "B L G P"]
    A: Parts  # (N, G, P)
    B: Parts  # (B, L, N, G)
    C: Parts
    B_fixed: Parts  # (N, G, P)
    C_fixed: Parts
    D: Float[Array, "G P"] | None
    delta_bias: Float[Array, "G P"] | None
    rate: Float[Array, "B L"] | None
    start: Parts  # (B, N, G, P)


class Static(NamedTuple):
    softplus: bool
    method: str
    chunk: Any
    """Steps in a chunk; the last chunk overlaps the one before it if this does not divide the length."""


def selective_scan(
    x: Float[Array, "B L D"],
    delta: Float[Array, "B L D"],
    A: Inexact[Array, "D N"],
    B: Inexact[Array, "..."],
    C: Inexact[Array, "..."],
    D: Float[Array, " D"] | None = None,
    *,
    B_bias: Inexact[Array, "D N"] | None = None,
    delta_bias: Float[Array, " D"] | None = None,
    softplus: bool = False,
    lengths: Integer[Array, " B"] | None = None,
    reset: Bool[Array, "B L"] | None = None,
    rate: Rate | None = None,
    state: Inexact[Array, "B D N"] | None = None,
    method: Method = "auto",
) -> tuple[Float[Array, "B L D"], Inexact[Array, "B D N"]]:
    """The outputs, and the state after the last valid step.

    Args:
      x: inputs.
      delta: step sizes, before `delta_bias`, softplus and `rate`.
      A: real or complex, in 1/time.
      B, C: of A's dtype, (D, N), or (B, L, G, N) with G groups of D / G successive features each.
      D: feedthrough, default none.
      B_bias: added to B.
      delta_bias: added to delta.
      softplus: whether dt is softplus(delta), or delta itself.
      lengths, reset, rate: see `s5jax.mixers`. The rate is a factor on dt.
      state: before the first step, default zero.
      method: see above.

    Raises:
      ValueError: unknown method, L = 0, or G does not divide D.
      TypeError: under forward-mode differentiation, unless the method is "plain".
    """
    (batch, L, features), N = x.shape, A.shape[1]
    varying = [M.shape[2] for M in (B, C) if M.ndim == 4]
    G = varying[0] if varying else 1
    if L == 0:
        raise ValueError("a sequence must have at least one step, got length 0")
    if method not in get_args(Method):
        raise ValueError(f"scan method must be one of {', '.join(get_args(Method))}; got {method!r}")
    if features % G or {*varying} - {G}:
        raise ValueError(f"groups of B and C must divide {features} features, got {', '.join(map(str, varying))}")
    P = features // G

    def by_feature(M: Array | None) -> Parts:
        return () if M is None else tuple(part.T.reshape(N, G, P) for part in _parts(M))

    def by_step(M: Array) -> Parts:
        return tuple(jnp.swapaxes(part, 2, 3) for part in _parts(M)) if M.ndim == 4 else ()

    def grouped(v: Array | None) -> Array | None:
        return None if v is None else v.reshape(G, P)

    fixed = B_bias if B.ndim == 4 else B if B_bias is None else B + B_bias
    factor = None
    if rate is not None or lengths is not None:
        factor = jnp.asarray(sequence.gaps(rate, lengths), x.dtype)
        factor = jnp.broadcast_to(factor[:, None] if factor.ndim == 1 else factor, (batch, L))
        if lengths is not None:
            factor = jnp.where(sequence.valid_steps(lengths, L), factor, 0)
    zero = jnp.zeros((batch, features, N), A.dtype)
    start = zero if state is None else state
    system = System(
        x.reshape(batch, L, G, P),
        delta.reshape(batch, L, G, P),
        by_feature(A),
        by_step(B),
        by_step(C),
        by_feature(fixed),
        by_feature(C if C.ndim == 2 else None),
        grouped(D),
        grouped(delta_bias),
        factor,
        tuple(jnp.swapaxes(part, 1, 2).reshape(batch, N, G, P) for part in _parts(start)),
    )
    starts = Sequences(lengths, None, reset).starts(L)
    static = choose(method, L, softplus)
    if static.method == "plain":
        y, last, _ = _forward(system, starts, static)
    else:
        y, last = _scan(jax.tree.map(reverse_mode_only, system), starts, static)
    last = tuple(jnp.swapaxes(part.reshape(batch, N, features), 1, 2) for part in last)
    return y.reshape(x.shape), last[0] if len(last) == 1 else jax.lax.complex(*last)


def choose(method: str, L: Any, softplus: bool = False) -> Static:
    """Resolves "auto", and the length of a chunk."""
    if is_symbolic_dim(L) or method == "plain":  # one chunk
        return Static(softplus, "sequential" if method == "auto" else method, L)
    if method == "auto":
        method = "sequential" if jax.default_backend() == "cpu" else "associative"
    return Static(softplus, method, math.isqrt(L) if method == "sequential" else max(math.isqrt(L), L // 64))


# --- numbers in parts; axes may come in front ---


def _parts(z: Array) -> Parts:
    return (z.real, z.imag) if jnp.iscomplexobj(z) else (z,)


def _times(a: Parts, x: Parts) -> Parts:
    return (a[0] * x[0],) if len(a) == 1 else (a[0] * x[0] - a[1] * x[1], a[0] * x[1] + a[1] * x[0])


def _conjugate(a: Parts) -> Parts:
    return (a[0], *(-part for part in a[1:]))


def _plus(a: Parts, b: Parts) -> Parts:
    return tuple(p + q for p, q in zip(a, b, strict=True))


def _each(v: Array, z: Parts) -> Parts:
    """v (..., G, P) times each part (..., N, G, P), or (N, G, P)."""
    return tuple(v[..., None, :, :] * with_rank(part, v.ndim + 1) for part in z)


def _sum(parts: Parts, *axes: int) -> Array:
    return functools.reduce(jnp.add, (part.sum(axes) for part in parts))


def _matrix(varying: Parts, fixed: Parts) -> Parts:
    """B or C (..., N, G, P)."""
    if not varying:
        return fixed
    wide = tuple(part[..., None] for part in varying)
    return tuple(v + with_rank(f, v.ndim) for v, f in zip(wide, fixed, strict=True)) if fixed else wide


def _multiplier(dt: Array, A: Parts) -> Parts:
    size, *turn = _each(dt, A)
    size = jnp.exp(size)
    return (size * jnp.cos(turn[0]), size * jnp.sin(turn[0])) if turn else (size,)


def _input(u: Array, B: Parts) -> Parts:
    return _each(u, B)


def _read_out(C: Parts, h: Parts) -> Array:
    """C h, or 2 Re(C h)."""
    product = _times(tuple(with_rank(part, h[0].ndim) for part in C), h)[0].sum(-3)
    return product if len(h) == 1 else 2 * product


def _kept(h: Parts, reset: Array | None) -> Parts:
    """h, or zero where a new sequence starts."""
    return h if reset is None else tuple(jnp.where(reset[..., None, None, None], 0, part) for part in h)


# --- chunks ---


def _step_inputs(static: Static, x: Array, delta: Array, bias: Array | None, rate: Array | None) -> tuple[Array, Array]:
    """dt and dt x."""
    dt = delta if bias is None else delta + with_rank(bias, delta.ndim)
    dt = jax.nn.softplus(dt) if static.softplus else dt
    dt = dt if rate is None else dt * rate[..., None, None]
    return dt, dt * x


def _cut(v: Any, first: Array, T: Any) -> Any:
    """T steps of each array, on the first axis."""
    return jax.tree.map(lambda v: jnp.moveaxis(jax.lax.dynamic_slice_in_dim(v, first, T, 1), 1, 0), v)


def _paste(whole: Any, piece: Any, first: Array) -> Any:
    def update(whole: Array, piece: Array) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(whole, jnp.moveaxis(piece, 0, 1), first, 1)

    return jax.tree.map(update, whole, piece)


def _place(c: Array, L: Any, T: Any) -> tuple[Array, Array | None]:
    """The first step of a chunk, and which of its steps belong to the chunk before it, if any do."""
    if is_symbolic_dim(L) or L % T == 0:
        return c * T, None
    first = jnp.minimum(c * T, L - T)
    return first, jnp.arange(T) < c * T - first


class Piece(NamedTuple):
    """What differs from step to step, in one chunk or at one step; the axes of time and batch come first."""

    dt: Float[Array, "*time B G P"]
    u: Float[Array, "*time B G P"]
    """dt x."""
    B: Parts
    C: Parts
    reset: Bool[Array, "*time B"] | None


def _chunk(system: System, reset: Array | None, static: Static, c: Array) -> tuple[Array, Array | None, Any, Any]:
    """The first step of a chunk, which steps do not count, (x, delta, rate), and B, C and reset. A step that does not
    count has the rate 0, so that the state stays what it is."""
    L, T = system.x.shape[1], static.chunk
    first, skip = _place(c, L, T)
    x, delta, rate, B, C, reset = _cut((system.x, system.delta, system.rate, system.B, system.C, reset), first, T)
    if skip is not None:
        rate = jnp.where(skip[:, None], 0, jnp.ones_like(x[:, :, 0, 0]) if rate is None else rate)
        reset = None if reset is None else reset & ~skip[:, None]
    return first, skip, (x, delta, rate), (B, C, reset)


def _forward(system: System, reset: Array | None, static: Static) -> tuple[Array, Parts, Parts]:
    """Outputs (B, L, G, P), the last state, and the states before each chunk."""

    def chunk(carry: tuple[Parts, Array], c: Array) -> tuple[tuple[Parts, Array], Parts]:
        h, all_y = carry
        first, skip, (x, delta, rate), rest = _chunk(system, reset, static, c)
        piece = Piece(*_step_inputs(static, x, delta, system.delta_bias, rate), *rest)
        if static.method == "associative":
            states = _all_states(system, piece, h)[0]
            y, last = _read_out(_matrix(piece.C, system.C_fixed), states), tuple(part[-1] for part in states)
        else:
            last, y = jax.lax.scan(functools.partial(_step, system), h, piece)
        y = y if system.D is None else y + with_rank(system.D, 4) * x
        y = y if skip is None else jnp.where(skip[:, None, None, None], _cut(all_y, first, static.chunk), y)
        return (last, _paste(all_y, y, first)), h

    (last, y), before = jax.lax.scan(chunk, (system.start, jnp.zeros_like(system.x)), _chunks(system, static))
    return y, last, before


def _chunks(system: System, static: Static) -> Array:
    L, T = system.x.shape[1], static.chunk
    return jnp.arange(1 if is_symbolic_dim(L) else -(-L // T), dtype=jnp.int32)


def _step(system: System, h: Parts, now: Piece) -> tuple[Parts, Array]:
    h = _advance(system, h, now)
    return h, _read_out(_matrix(now.C, system.C_fixed), h)


def _advance(system: System, h: Parts, now: Piece) -> Parts:
    moved = _times(_multiplier(now.dt, system.A), _kept(h, now.reset))
    return _plus(moved, _input(now.u, _matrix(now.B, system.B_fixed)))


def _all_states(system: System, piece: Piece, h: Parts) -> tuple[Parts, Parts]:
    """The states after all steps of a chunk, and the multipliers exp(dt A), (T, B, N, G, P)."""
    a, b = _multiplier(piece.dt, system.A), _input(piece.u, _matrix(piece.B, system.B_fixed))
    b = _add_to(b, 0, _times(tuple(part[0] for part in _kept(a, piece.reset)), h))
    return jax.lax.associative_scan(_combine, (_kept(a, piece.reset), b))[1], a


def _add_to(b: Parts, step: int, more: Parts) -> Parts:
    return tuple(part.at[step].add(other) for part, other in zip(b, more, strict=True))


def _combine(earlier: tuple[Parts, Parts], later: tuple[Parts, Parts]) -> tuple[Parts, Parts]:
    return _times(later[0], earlier[0]), _plus(_times(later[0], earlier[1]), later[1])


# --- the gradient ---


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _scan(system: System, reset: Array | None, static: Static) -> tuple[Array, Parts]:
    return _forward(system, reset, static)[:2]


def _scan_fwd(system: System, reset: Array | None, static: Static) -> tuple[tuple[Array, Parts], Any]:
    y, last, before = _forward(system, reset, static)
    y, before = checkpoint_name(y, "product"), tuple(checkpoint_name(part, "product") for part in before)
    return (y, last), (system, reset, before)


def _scan_bwd(static: Static, residuals: Any, cotangents: tuple[Array, Parts]) -> tuple[System, None]:
    """With l_k the cotangent of h_k, and f = 1, or 2 if A is complex: l_k = f conj(C_k) g_k + conj(a_{k+1}) l_{k+1};
    q_k = conj(a_k h_{k-1}) l_k is that of dt_k A."""
    system, reset, before = residuals
    g, last = cotangents

    def chunk(carry: Any, now: Any) -> tuple[Any, None]:
        l, by_step, total = carry
        (c, h), D = now, system.D
        first, skip, own, rest = _chunk(system, reset, static, c)
        g_c = _cut(g, first, static.chunk)
        g_c = g_c if skip is None else jnp.where(skip[:, None, None, None], 0, g_c)
        x, delta, rate = own
        (dt, u), back = jax.vjp(functools.partial(_step_inputs, static), x, delta, system.delta_bias, rate)
        way = _adjoints_at_once if static.method == "associative" else _adjoints
        l, (of_dt, of_u, of_B, of_C), sums = way(system, Piece(dt, u, *rest), h, g_c, l)
        of_x, of_delta, of_bias, of_rate = back((of_dt, of_u))
        of_x = of_x if D is None else of_x + with_rank(D, 4) * g_c
        of_D = None if D is None else (x * g_c).sum((0, 1))
        of_rate = None if system.rate is None else of_rate
        by_step = _paste(by_step, (of_x, of_delta, of_rate, of_B, of_C), first)
        return (l, by_step, jax.tree.map(jnp.add, total, (*sums, of_D, of_bias))), None

    varying = system.x, system.delta, system.rate, system.B, system.C
    fixed = system.A, system.B_fixed, system.C_fixed, system.D, system.delta_bias
    carry = last, *jax.tree.map(jnp.zeros_like, (varying, fixed))
    (l, by_step, total), _ = jax.lax.scan(chunk, carry, (_chunks(system, static), before), reverse=True)
    (of_x, of_delta, of_rate, of_B, of_C), (of_A, of_B_fixed, of_C_fixed, of_D, of_bias) = by_step, total
    return System(of_x, of_delta, of_A, of_B, of_C, of_B_fixed, of_C_fixed, of_D, of_bias, of_rate, l), None


_scan.defvjp(_scan_fwd, _scan_bwd)


def _adjoints(system: System, piece: Piece, h: Parts, g: Array, l: Parts) -> tuple[Parts, Any, Any]:
    """One chunk, step by step. l is the cotangent of the state after the chunk, then that of h, the state before it.
    Also returns cotangents of dt, u, B and C at all steps, and sums over the chunk for A and the fixed B and C."""
    last, states = jax.lax.scan(lambda h, now: (_advance(system, h, now), h), h, piece)

    def step(carry: Any, now: Any) -> tuple[Any, Any]:
        l, after, sums = carry
        h, now, g_k = now
        a = _multiplier(now.dt, system.A)
        l = _plus(l, _from_output(system, now, g_k))
        al, by_step, terms = _gradients(system, now, a, h, after, g_k, l)
        return (_kept(al, now.reset), h, jax.tree.map(jnp.add, sums, terms)), by_step

    zero = [tuple(jnp.zeros_like(l[0]) for _ in part) for part in (system.A, system.B_fixed, system.C_fixed)]
    (l, _, sums), by_step = jax.lax.scan(step, (l, last, tuple(zero)), (states, piece, g), reverse=True)
    return l, by_step, jax.tree.map(lambda part: part.sum(0), sums)


def _adjoints_at_once(system: System, piece: Piece, h: Parts, g: Array, l: Parts) -> tuple[Parts, Any, Any]:
    """The same by `jax.lax.associative_scan`."""
    after, a = _all_states(system, piece, h)
    states = tuple(jnp.concatenate([first[None], part[:-1]]) for first, part in zip(h, after, strict=True))
    back = _kept(_conjugate(a), piece.reset)
    following = tuple(jnp.concatenate([part[1:], jnp.zeros_like(part[:1])]) for part in back)
    direct = _add_to(_from_output(system, piece, g), -1, l)
    l = jax.lax.associative_scan(_combine, (following, direct), reverse=True)[1]
    al, by_step, terms = _gradients(system, piece, a, states, after, g, l)
    first = tuple(part[0] for part in _kept(al, piece.reset))
    return first, by_step, jax.tree.map(lambda part: part.sum((0, 1)), terms)


def _from_output(system: System, now: Piece, g: Array) -> Parts:
    """f conj(C) g, what an output adds to the cotangent of its state."""
    g = g if len(system.A) == 1 else 2 * g
    return _each(g, _conjugate(_matrix(now.C, system.C_fixed)))


def _gradients(
    system: System, now: Piece, a: Parts, h: Parts, after: Parts, g: Array, l: Parts
) -> tuple[Parts, Any, Any]:
    """conj(a) l; cotangents of dt, u, and the B and C of each step; and terms of the sums for A, and fixed B and C.

    h and `after` are the states before and after a step, l is the cotangent of the latter."""
    al = _times(_conjugate(a), l)
    q = _times(_conjugate(_kept(h, now.reset)), al)
    g = g if len(a) == 1 else 2 * g
    A, B = (tuple(with_rank(part, al[0].ndim) for part in M) for M in (system.A, _matrix(now.B, system.B_fixed)))
    of_dt = _sum(tuple(p * r for p, r in zip(A, q, strict=True)), -3)
    of_u = _sum(tuple(p * r for p, r in zip(B, l, strict=True)), -3)

    def over_group(z: Parts, v: Array) -> Parts:
        return tuple(jnp.einsum("...ngp,...gp->...ng", part, v) for part in z)

    of_B = over_group(l, now.u) if system.B else ()
    of_C = over_group(_conjugate(after), g) if system.C else ()
    of_fixed = _each(now.u, l) if system.B_fixed else (), _each(g, _conjugate(after)) if system.C_fixed else ()
    return al, (of_dt, of_u, of_B, of_C), (_each(now.dt, q), *of_fixed)
