"""x W for sequences x, whose gradient of W is a sum of products instead of one long one."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

__all__ = ["product", "rows", "weight_gradient"]

ROWS = 1024
"""Least number of samples that a partial product of `weight_gradient` sums over, on a CPU."""


@jax.custom_vjp
def product(x: Float[Array, "*batch L H"], W: Float[Array, "H P"]) -> Float[Array, "*batch L P"]:
    """x W."""
    return x @ W


def _forward(x: Array, W: Array) -> tuple[Array, tuple[Array, Array]]:
    return x @ W, (x, W)


def _backward(residuals: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    x, W = residuals  # of narrower types than their product, perhaps
    return (cotangent @ W.T).astype(x.dtype), weight_gradient(x, cotangent).astype(W.dtype)


product.defvjp(_forward, _backward)


@jax.custom_vjp
def rows(W: Float[Array, "H P"], k: Integer[Array, "*batch L"]) -> Float[Array, "*batch L P"]:
    """The product of one-hot vectors and W: rows k of W, and zero where there is none."""
    k = k.astype(jnp.int32)  # a narrow integer may hold every k, but not their number
    valid = (k >= 0) & (k < len(W))
    return jnp.where(valid[..., None], W[jnp.where(valid, k, 0)], 0)


def _rows_forward(W: Array, k: Array) -> tuple[Array, tuple[Array, Array]]:
    return rows(W, k), (W, k)


def _rows_backward(residuals: tuple[Array, Array], cotangent: Array) -> tuple[Array, None]:
    W, k = residuals
    return weight_gradient(jax.nn.one_hot(k.astype(jnp.int32), len(W), dtype=W.dtype), cotangent), None


rows.defvjp(_rows_forward, _rows_backward)


def weight_gradient(x: Float[Array, "*batch L H"], y: Float[Array, "*batch L P"]) -> Float[Array, "H P"]:
    """The sum over all samples of x_k y_k^T.

    On a CPU it is taken over a few sequences at a time: for one product over all of them the compiler transposes x
    first, and multiplies more slowly.
    """
    *batch, L, H = x.shape
    N = math.prod(batch)
    groups = 1
    if jax.default_backend() == "cpu":
        groups = max((n for n in range(1, N + 1) if N % n == 0 and N // n * L >= ROWS), default=1)
    x, y = x.reshape(groups, -1, H), y.reshape(groups, -1, y.shape[-1])
    return jnp.einsum("nkh,nkp->nhp", x, y).sum(0)
