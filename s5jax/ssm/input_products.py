"""Products of inputs, for Liquid-S4 (arXiv 2209.12951)."""

import functools
import itertools
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer


def successive(
    u: Float[Array, "B L H"],
    degree: int,
    before: Float[Array, "B W H"] | None = None,
    starts: Bool[Array, "B L"] | None = None,
    lengths: Integer[Array, " B"] | None = None,
) -> tuple[list[Float[Array, "B L H"]], Float[Array, "B W H"]]:
    """The products u_k u_{k-1} ... u_{k-p+1} for p = 2..degree; and the last W = degree - 1 valid inputs.

    `before` has the inputs before the first one, default zero. Where `starts` is true a new sequence starts; inputs of
    an earlier sequence are zero in both results.
    """
    (B, L, H), W = u.shape, degree - 1
    history = jnp.concatenate([jnp.zeros((B, W, H), u.dtype) if before is None else before, u], axis=1)
    number = jnp.zeros((B, W + L), jnp.int32)  # which sequence of its row an input belongs to
    if starts is not None:
        number = jnp.pad(jnp.cumsum(starts, axis=1, dtype=jnp.int32), ((0, 0), (W, 0)))
    products = [u]
    for at in reversed(range(W)):
        same = number[:, at : at + L] == number[:, W:]
        products.append(products[-1] * jnp.where(same[..., None], history[:, at : at + L], 0))
    ends = jnp.full((B,), L, jnp.int32) if lengths is None else lengths.astype(jnp.int32)
    index = ends[:, None] + jnp.arange(W, dtype=jnp.int32)[None]
    last = jnp.take_along_axis(history, index[..., None], axis=1)
    number = jnp.take_along_axis(number, index, axis=1)
    return products[1:], jnp.where((number == number[:, -1:])[..., None], last, 0)


def combinations(u: Float[Array, "B L H"], p: int) -> Float[Array, "B L H"]:
    """The products of p of the last n inputs, in the order of `itertools.combinations`: the last L of them, with the
    least n that has L of them. If there are fewer than L, zeros follow."""
    L = u.shape[1]
    n = next((n for n in range(2, L) if math.comb(n, p) >= L), L)
    index = np.array(list(itertools.combinations(range(L - n, L), p))[-L:], np.int32).reshape(-1, p)
    # The gradient of `jnp.prod` would not export with a symbolic batch.
    products = functools.reduce(jnp.multiply, [jnp.take(u, column, axis=1) for column in index.T])
    return jnp.pad(products, ((0, 0), (0, L - len(index)), (0, 0)))
