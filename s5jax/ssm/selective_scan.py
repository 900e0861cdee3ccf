"""The selective scan (Gu, Dao 2023, arXiv 2312.00752): a diagonal system for each feature d, whose step size, B and C
may differ from sample to sample.

    h_k = exp(dt_k A) h_{k-1} + dt_k B_k x_k,    y_k = C_k h_k + D x_k,    dt_k = rate_k f(delta_k + delta_bias)

where f is the identity or softplus. As in the published code, the factor of B is dt (Euler), and not that of zero-order
hold. With a complex A, y_k = 2 Re(C_k h_k) + D x_k. The methods:

- "sequential" loops over the sequence in chunks of about sqrt(L) steps and stores the states at their starts. The
  backward pass computes the states of one chunk at a time again.
- "associative" does the same with `jax.lax.associative_scan` inside the chunks, for fewer dependent steps.
- "plain" is a `jax.lax.scan` without a gradient rule of its own. It stores all states and supports forward mode
  (`jax.jvp`, `jax.linearize`), where the others raise TypeError.
- "auto": "sequential" on a CPU, otherwise "associative".

"""

import math
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim
from jaxtyping import Array, Bool, Float, Inexact, Integer

from s5jax.ssm import sequence
from s5jax.ssm.scan import reverse_mode_only
from s5jax.ssm.selective_chunks import Parts, Static, System, forward, parts_of
from s5jax.ssm.selective_gradient import scan
from s5jax.ssm.sequence import Rate, Sequences

Method = Literal["auto", "sequential", "associative", "plain"]


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
    method: str = "auto",
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
        return () if M is None else tuple(jnp.swapaxes(part.reshape(G, P, N), 1, 2) for part in parts_of(M))

    def by_step(M: Array) -> Parts:
        return parts_of(M) if M.ndim == 4 else ()

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
        tuple(jnp.swapaxes(part.reshape(batch, G, P, N), 2, 3) for part in parts_of(start)),
    )
    starts = Sequences(lengths, None, reset).starts(L)
    static = choose(method, L, softplus)
    if static.method == "plain":
        y, last, _ = forward(system, starts, static)
    else:
        y, last = scan(jax.tree.map(reverse_mode_only, system), starts, static)
    last = tuple(jnp.swapaxes(part, 2, 3).reshape(batch, features, N) for part in last)
    return y.reshape(x.shape), last[0] if len(last) == 1 else jax.lax.complex(*last)


def choose(method: str, L: Any, softplus: bool = False) -> Static:
    """Resolves "auto", and the length of a chunk."""
    if is_symbolic_dim(L) and method == "associative":
        raise ValueError('a symbolic length needs the scan method "sequential" or "plain", not "associative"')
    if is_symbolic_dim(L) or method == "plain":  # one chunk
        return Static(softplus, "sequential" if method == "auto" else method, L)
    if method == "auto":
        method = "sequential" if jax.default_backend() == "cpu" else "associative"
    return Static(softplus, method, math.isqrt(L))
