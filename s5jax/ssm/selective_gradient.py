"""The gradient of the selective scan, which computes the states of one chunk at a time again. See `selective_scan`.

A cotangent of a complex number holds the derivatives by its real and its imaginary part.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array

from s5jax.ssm.parameters import with_rank
from s5jax.ssm.selective_chunks import (
    Parts,
    Piece,
    Static,
    System,
    add_at,
    advance,
    all_states,
    combine,
    conjugate,
    cut,
    forward,
    inputs,
    kept,
    matrix,
    multiplier,
    numbers,
    paste,
    plus,
    scaled,
    step_inputs,
    times,
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def scan(system: System, reset: Array | None, static: Static) -> tuple[Array, Parts]:
    return forward(system, reset, static)[:2]


def _scan_fwd(system: System, reset: Array | None, static: Static) -> tuple[tuple[Array, Parts], Any]:
    y, last, before = forward(system, reset, static)
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
        first, skip, own, rest = inputs(system, reset, static, c)
        g_c = cut(g, first, static.chunk)
        g_c = g_c if skip is None else jnp.where(skip[:, None, None, None], 0, g_c)
        x, delta, rate = own
        (dt, u), back = jax.vjp(functools.partial(step_inputs, static), x, delta, system.delta_bias, rate)
        way = _adjoints_at_once if static.method == "associative" else _adjoints
        l, (of_dt, of_u, of_B, of_C), sums = way(system, Piece(dt, u, *rest), h, g_c, l)
        of_x, of_delta, of_bias, of_rate = back((of_dt, of_u))
        of_x = of_x if D is None else of_x + with_rank(D, 4) * g_c
        of_D = None if D is None else (x * g_c).sum((0, 1))
        of_rate = None if system.rate is None else of_rate
        by_step = paste(by_step, (of_x, of_delta, of_rate, of_B, of_C), first)
        return (l, by_step, jax.tree.map(jnp.add, total, (*sums, of_D, of_bias))), None

    varying = system.x, system.delta, system.rate, system.B, system.C
    fixed = system.A, system.B_fixed, system.C_fixed, system.D, system.delta_bias
    carry = last, *jax.tree.map(jnp.zeros_like, (varying, fixed))
    (l, by_step, total), _ = jax.lax.scan(chunk, carry, (numbers(system, static), before), reverse=True)
    (of_x, of_delta, of_rate, of_B, of_C), (of_A, of_B_fixed, of_C_fixed, of_D, of_bias) = by_step, total
    return System(of_x, of_delta, of_A, of_B, of_C, of_B_fixed, of_C_fixed, of_D, of_bias, of_rate, l), None


scan.defvjp(_scan_fwd, _scan_bwd)


def _adjoints(system: System, piece: Piece, h: Parts, g: Array, l: Parts) -> tuple[Parts, Any, Any]:
    """One chunk, step by step. l is the cotangent of the state after the chunk, then that of h, the state before it.
    Also returns cotangents of dt, u, B and C at all steps, and sums over the chunk for A and the fixed B and C."""
    last, states = jax.lax.scan(lambda h, now: (advance(system, h, now), h), h, piece)

    def step(carry: Any, now: Any) -> tuple[Any, Any]:
        l, after, sums = carry
        h, now, g_k = now
        a = multiplier(now.dt, system.A)
        l = plus(l, _from_output(system, now, g_k))
        al, by_step, terms = _gradients(system, now, a, h, after, g_k, l)
        return (kept(al, now.reset), h, jax.tree.map(jnp.add, sums, terms)), by_step

    zero = [tuple(jnp.zeros_like(l[0]) for _ in part) for part in (system.A, system.B_fixed, system.C_fixed)]
    (l, _, sums), by_step = jax.lax.scan(step, (l, last, tuple(zero)), (states, piece, g), reverse=True)
    return l, by_step, jax.tree.map(lambda part: part.sum(0), sums)


def _adjoints_at_once(system: System, piece: Piece, h: Parts, g: Array, l: Parts) -> tuple[Parts, Any, Any]:
    """The same by `jax.lax.associative_scan`."""
    after, a = all_states(system, piece, h)
    states = tuple(jnp.concatenate([first[None], part[:-1]]) for first, part in zip(h, after, strict=True))
    back = kept(conjugate(a), piece.reset)
    following = tuple(jnp.concatenate([part[1:], jnp.zeros_like(part[:1])]) for part in back)
    direct = add_at(_from_output(system, piece, g), -1, l)
    l = jax.lax.associative_scan(combine, (following, direct), reverse=True)[1]
    al, by_step, terms = _gradients(system, piece, a, states, after, g, l)
    first = tuple(part[0] for part in kept(al, piece.reset))
    return first, by_step, jax.tree.map(lambda part: part.sum((0, 1)), terms)


def _from_output(system: System, now: Piece, g: Array) -> Parts:
    """f conj(C) g, what an output adds to the cotangent of its state."""
    g = g if len(system.A) == 1 else 2 * g
    return scaled(g, conjugate(matrix(now.C, system.C_fixed)))


def _gradients(
    system: System, now: Piece, a: Parts, h: Parts, after: Parts, g: Array, l: Parts
) -> tuple[Parts, Any, Any]:
    """conj(a) l; cotangents of dt, u, and the B and C of each step; and terms of the sums for A, and fixed B and C.

    h and `after` are the states before and after a step, l is the cotangent of the latter."""
    al = times(conjugate(a), l)
    q = times(conjugate(kept(h, now.reset)), al)
    g = g if len(a) == 1 else 2 * g
    A, B = (tuple(with_rank(part, al[0].ndim) for part in M) for M in (system.A, matrix(now.B, system.B_fixed)))
    of_dt = _sum(tuple(p * r for p, r in zip(A, q, strict=True)), -2)
    of_u = _sum(tuple(p * r for p, r in zip(B, l, strict=True)), -2)

    def over_group(z: Parts, v: Array) -> Parts:
        return tuple(jnp.einsum("...np,...p->...n", part, v) for part in z)

    of_B = over_group(l, now.u) if system.B else ()
    of_C = over_group(conjugate(after), g) if system.C else ()
    of_fixed = scaled(now.u, l) if system.B_fixed else (), scaled(g, conjugate(after)) if system.C_fixed else ()
    return al, (of_dt, of_u, of_B, of_C), (scaled(now.dt, q), *of_fixed)


def _sum(parts: Parts, *axes: int) -> Array:
    return functools.reduce(jnp.add, (part.sum(axes) for part in parts))
