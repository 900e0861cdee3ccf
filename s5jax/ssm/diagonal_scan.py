"""All states of a diagonal system, by any of the methods of `scan`."""

import math
from typing import get_args

import jax.numpy as jnp
from jaxtyping import Array, Bool, Inexact

from s5jax.ssm import scan
from s5jax.ssm.parameters import with_rank


def diagonal_scan(
    a: Inexact[Array, "..."],
    b: Inexact[Array, "*batch L P"],
    *,
    initial_state: Inexact[Array, "..."] | None = None,
    mask: Bool[Array, "..."] | None = None,
    reverse: bool = False,
    method: str = "auto",
) -> tuple[Inexact[Array, "*batch L P"], Inexact[Array, "*batch P"]]:
    """All states of x_k = a_k * x_{k-1} + b_k, elementwise in P.

    Args:
      a: multipliers, of the dtype of b: (P,) for a time-invariant system, or any shape that broadcasts to b's.
      b: inputs, real or complex, (..., L, P), L >= 1.
      initial_state: the state before the first step, (P,) or (..., P); default: zero.
      mask: (..., L), true at steps that are applied; other steps leave the state unchanged. Default: all true. (The
        `mask` of mixers is the opposite: true where a sample is missing.)
      reverse: run from the last step to the first; `initial_state` is then the state after the last step.
      method: see `scan`; default "auto".

    Returns:
      The states (..., L, P), in the order of b, and the final state (..., P), that of the step computed last.

    Raises:
      ValueError: L = 0, the dtypes differ, or the method is unknown.
      TypeError: under forward-mode differentiation (`jax.jvp`, `jax.linearize`), unless the method is "plain".
    """
    *batch, L, P = b.shape
    if L == 0:
        raise ValueError("a sequence must have at least one step, got length 0")
    if method not in get_args(scan.Method):
        raise ValueError(f"scan method must be one of {', '.join(get_args(scan.Method))}; got {method!r}")
    if a.dtype != b.dtype:
        raise ValueError(f"a and b must have the same dtype, got {a.dtype} and {b.dtype}")
    a = with_rank(a, b.ndim)
    if mask is not None:
        counts = with_rank(mask, b.ndim - 1)[..., None]
        a, b = jnp.where(counts, a, jnp.ones((), a.dtype)), jnp.where(counts, b, jnp.zeros((), b.dtype))
    invariant = all(size == 1 for size in a.shape[:-1])
    a = jnp.broadcast_to(a, (*(a.shape[:-2] if invariant else batch), a.shape[-2], P))
    start = jnp.zeros((), b.dtype) if initial_state is None else initial_state.astype(b.dtype)
    start = jnp.broadcast_to(with_rank(start, b.ndim - 1), (*batch, P))
    N = math.prod(batch)
    a, b, start = a.reshape(1 if invariant else N, a.shape[-2], P), b.reshape(N, L, P), start.reshape(N, P)
    x = scan.unpack(scan.states(scan.pack(a), scan.pack(b), scan.pack(start), reverse=reverse, method=method)).reshape(
        *batch, L, P
    )
    return x, x[..., 0 if reverse else -1, :]
