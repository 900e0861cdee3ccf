"""Products x W of sequences x, with the gradient of W computed as a sum of smaller products."""

import math

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.export import is_symbolic_dim
from jaxtyping import Array, Float

ROWS = 1024
"""Minimum number of samples in each group of `weight_gradient`, on a CPU."""


@jax.custom_jvp
def product(x: Float[Array, "*batch L H"], W: Float[Array, "H P"]) -> Float[Array, "*batch L P"]:
    """x W; the gradient of W is computed by `weight_gradient`."""
    return x @ W


def _product_jvp(primals: tuple[Array, Array], tangents: tuple) -> tuple[Array, Array]:
    (x, W), (dx, dW) = primals, tangents
    y = x @ W
    dy = jnp.zeros_like(y) if isinstance(dx, SymbolicZero) else dx @ W
    return y, dy if isinstance(dW, SymbolicZero) else dy + grouped(x, dW)


product.defjvp(_product_jvp, symbolic_zeros=True)


def grouped(x: Float[Array, "*batch L H"], W: Float[Array, "H P"]) -> Float[Array, "*batch L P"]:
    """x W, computed such that its transpose with respect to W is `weight_gradient`."""
    n = _groups(x)
    W = jnp.broadcast_to(W, (n, *W.shape))
    return jnp.einsum("nkh,nhp->nkp", _in_groups(x, n), W).reshape(*x.shape[:-1], W.shape[-1])


def weight_gradient(x: Float[Array, "*batch L H"], y: Float[Array, "*batch L P"]) -> Float[Array, "H P"]:
    """The sum over all samples of x_k y_k^T, on a CPU in groups of sequences: for a single product over all samples XLA
    would transpose x first, which is slower."""
    n = _groups(x)
    return jnp.einsum("nkh,nkp->nhp", _in_groups(x, n), _in_groups(y, n)).sum(0)


def _groups(x: Float[Array, "*batch L H"]) -> int:
    *batch, L, _ = x.shape
    N = math.prod(batch)
    if is_symbolic_dim(N) or is_symbolic_dim(L) or jax.default_backend() != "cpu":
        return 1
    return max((n for n in range(1, N + 1) if N % n == 0 and N // n * L >= ROWS), default=1)


def _in_groups(x: Float[Array, "*batch L H"], n: int) -> Float[Array, "{n} _ H"]:
    return x.reshape(n, math.prod(x.shape[:-1]) // n, x.shape[-1])
