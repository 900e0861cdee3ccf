"""The kernel of a diagonal system and its final state, as sums of powers of its multipliers.

Letters: H features, N stored states per feature, L length. No array has the size H N L.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Integer

from s5jax.ssm.discretize import Method

# Matrix products in full precision: some devices round the factors to ten bits by default.
_einsum = functools.partial(jnp.einsum, precision="highest")


def log_multiplier(
    Lambda: Complex[Array, "..."], Delta: Float[Array, "..."], method: Method = "zoh"
) -> Complex[Array, "..."]:
    """log(Lambda_bar) of `discretize.discretize`, with imaginary part in [-pi, pi].

    Its real part is that of z = Lambda Delta for `zoh`, and log|1 + z/2| - log|1 - z/2| for `bilinear`. The relative
    error of a power exp(l log Lambda_bar) is about |l Lambda Delta| ulp. Repeated products of a rounded Lambda_bar lose
    about l ulp, far more for the slow modes that still matter after l steps.
    """
    z = Lambda * Delta.astype(Lambda.dtype)
    if method == "zoh":
        return jax.lax.complex(z.real, jnp.arctan2(jnp.sin(z.imag), jnp.cos(z.imag)))
    x, y = z.real / 2, z.imag / 2
    numerator, denominator = (1 + x) ** 2 + y**2, (1 - x) ** 2 + y**2
    ratio = 4 * x / denominator  # |Lambda_bar|^2 - 1, without the cancellation
    near_one = jnp.abs(ratio) < 0.5
    # Where |1 + z/2| < 1e-18, take 1e-18 for it: the powers of Lambda_bar are negligible then, except the 0th, and the
    # square, 1e-36, is well above the subnormal numbers, which devices flush to 0.
    zero = numerator < 1e-36
    far = jnp.log(jnp.where(zero, 1e-36, numerator)) - jnp.log(denominator)
    modulus = jnp.where(near_one, jnp.log1p(jnp.where(near_one, ratio, 0)), far) / 2
    return jax.lax.complex(modulus, jnp.arctan2(2 * y, jnp.where(zero, 1, 1 - x**2 - y**2)))


def vandermonde(
    c: Complex[Array, "*batch H N"], log_a: Complex[Array, "H N"], length: int
) -> Float[Array, "*batch H {length}"]:
    """K_l = Re sum_n c_n a_n^l for l = 0..length-1 (arXiv 2206.11893, section 3.3).

    With l = q T + r and T about sqrt(length), a^l = (a^T)^q a^r: the sum is a matrix product of two factors, H x Q x N
    and H x N x T. Neither this function nor its gradient forms the array of all powers, H x N x length.
    """
    T, Q = _chunk(length)
    fine, coarse = _powers(log_a, 1, T), _powers(log_a, T, Q)
    coarse = jnp.expand_dims(c, -1) * jnp.expand_dims(coarse, tuple(range(c.ndim - 2)))
    K = _einsum("...hnq,hnr->...hqr", coarse.real, fine.real) - _einsum("...hnq,hnr->...hqr", coarse.imag, fine.imag)
    return K.reshape(*K.shape[:-2], Q * T)[..., :length]


def final_state(
    log_a: Complex[Array, "H N"], u: Float[Array, "*batch L H"], lengths: Integer[Array, "*batch"] | None = None
) -> Complex[Array, "*batch H N"]:
    """sum_k a_n^(l - 1 - k) u_k over the l valid steps: the last state of x_k = a x_{k-1} + u_k, started from zero. The
    transpose of `vandermonde`, with the same two factors."""
    L = u.shape[-2]
    T, Q = _chunk(L)
    back = jax.lax.broadcasted_iota(jnp.int32, u.shape[:-1], u.ndim - 2)  # number of steps before the last valid step
    last = jnp.full(u.shape[:-2], L - 1, jnp.int32) if lengths is None else lengths.astype(jnp.int32) - 1
    source = last[..., None] - back
    u = jnp.where(source[..., None] >= 0, jnp.take_along_axis(u, jnp.maximum(source, 0)[..., None], axis=-2), 0)
    u = jnp.pad(u, [(0, 0)] * (u.ndim - 2) + [(0, Q * T - L), (0, 0)]).reshape(*u.shape[:-2], Q, T, u.shape[-1])
    fine, coarse = _powers(log_a, 1, T), _powers(log_a, T, Q)
    inner = jax.lax.complex(_einsum("...qrh,hnr->...qhn", u, fine.real), _einsum("...qrh,hnr->...qhn", u, fine.imag))
    return _einsum("...qhn,hnq->...hn", inner, coarse)


def _powers(log_a: Complex[Array, "*shape"], step: int, count: int) -> Complex[Array, "*shape {count}"]:
    """a^0, a^step, ..., a^((count-1) step), as products of pairs from about 2 sqrt(count) exponentials."""
    inner, outer = _chunk(count)

    def exponentials(exponents: np.ndarray) -> Array:
        return jnp.exp(log_a[..., None] * jnp.asarray(exponents.reshape((1,) * log_a.ndim + (-1,)), log_a.dtype))

    factors = exponentials(step * np.arange(inner)), exponentials(step * inner * np.arange(outer))
    # Without the barrier XLA recomputes the exponentials for each power, which costs more than everything else.
    near, far = jax.lax.optimization_barrier(factors)
    return (far[..., :, None] * near[..., None, :]).reshape(*log_a.shape, -1)[..., :count]


def _chunk(length: int) -> tuple[int, int]:
    """T and Q with Q T >= length, both about sqrt(length)."""
    T = math.isqrt(length - 1) + 1
    return T, -(-length // T)
