"""x W for sequences x, whose gradient of W is a sum of products instead of one long one."""

import math

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.export import is_symbolic_dim
from jaxtyping import Array, Float, Integer

ROWS = 1024
"""Least number of samples that a partial product of `weight_gradient` sums over, on a CPU."""


@jax.custom_jvp
def product(x: Float[Array, "*batch L H"], W: Float[Array, "H P"]) -> Float[Array, "*batch L P"]:
    """x W."""
    return x @ W


def _product_jvp(primals: tuple[Array, Array], tangents: tuple) -> tuple[Array, Array]:
    (x, W), (dx, dW) = primals, tangents
    y = x @ W
    dy = jnp.zeros_like(y) if isinstance(dx, SymbolicZero) else dx @ W
    return y, dy if isinstance(dW, SymbolicZero) else dy + _grouped(x, dW)


product.defjvp(_product_jvp, symbolic_zeros=True)


@jax.custom_jvp
def rows(W: Float[Array, "H P"], k: Integer[Array, "*batch L"]) -> Float[Array, "*batch L P"]:
    """The product of one-hot vectors and W: rows k of W, and zero where there is none."""
    k = k.astype(jnp.int32)  # a narrow integer may hold every k, but not their number
    valid = (k >= 0) & (k < len(W))
    return jnp.where(valid[..., None], W[jnp.where(valid, k, 0)], 0)


@rows.defjvp
def _rows_jvp(primals: tuple[Array, Array], tangents: tuple) -> tuple[Array, Array]:
    (W, k), (dW, _) = primals, tangents
    return rows(W, k), _grouped(jax.nn.one_hot(k.astype(jnp.int32), len(W), dtype=W.dtype), dW)


def _grouped(x: Float[Array, "*batch L H"], W: Float[Array, "H P"]) -> Float[Array, "*batch L P"]:
    """x W, such that the transpose in W is `weight_gradient`."""
    n = _groups(x)
    W = jnp.broadcast_to(W, (n, *W.shape))
    return jnp.einsum("nkh,nhp->nkp", _in_groups(x, n), W).reshape(*x.shape[:-1], W.shape[-1])


def weight_gradient(x: Float[Array, "*batch L H"], y: Float[Array, "*batch L P"]) -> Float[Array, "H P"]:
    """The sum over all samples of x_k y_k^T.

    Some sequences at a time on a CPU, where the compiler transposes x for one product over all, which is slower."""
    n = _groups(x)
    return jnp.einsum("nkh,nkp->nhp", _in_groups(x, n), _in_groups(y, n)).sum(0)


def _groups(x: Float[Array, "*batch L H"]) -> int:
    """Into how many groups the sequences are taken apart."""
    *batch, L, _ = x.shape
    N = math.prod(batch)
    if is_symbolic_dim(N) or is_symbolic_dim(L) or jax.default_backend() != "cpu":
        return 1
    return max((n for n in range(1, N + 1) if N % n == 0 and N // n * L >= ROWS), default=1)


def _in_groups(x: Float[Array, "*batch L H"], n: int) -> Float[Array, "{n} _ H"]:
    return x.reshape(n, math.prod(x.shape[:-1]) // n, x.shape[-1])
