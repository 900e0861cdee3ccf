"""Discretisation: x' = Lambda x + B u in continuous time becomes x_k = Lambda_bar x_{k-1} + gamma B u_k.

Both rules return (Lambda_bar, gamma) rather than a discrete B: gamma has no input axis, so that the array stays small
even with one step size per sample. Lambda (1/time) and Delta (time) broadcast against each other.
"""

import math
from typing import Literal, get_args

import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

Method = Literal["zoh", "bilinear"]

Discrete = tuple[Complex[Array, "..."], Complex[Array, "..."]]  # jaxtyping cannot broadcast a symbolic batch size


def _phi1(z: Complex[Array, "*shape"]) -> Complex[Array, "*shape"]:
    """(exp(z) - 1) / z; it and its gradient are exact to rounding for every z, including 0.

    Near 0 the quotient cancels; for |z| < 1/2 a power series replaces it: sum z^k / (k+1)!, of which fourteen
    terms leave an error below 1e-16.
    """
    small = jnp.abs(z) < 0.5
    series_z = jnp.where(small, z, 0)  # the double `where` keeps infinities out of the gradient
    quotient_z = jnp.where(small, 1, z)
    series = jnp.zeros_like(z)
    for k in range(14, 0, -1):
        series = series_z * series + 1 / math.factorial(k)
    return jnp.where(small, series, (jnp.exp(quotient_z) - 1) / quotient_z)


def zoh(Lambda: Complex[Array, "..."], Delta: Float[Array, "..."]) -> Discrete:
    """Zero-order hold: Lambda_bar = exp(Lambda Delta), gamma = (Lambda_bar - 1) / Lambda (arXiv 2208.04933, eq. 6).

    Exact for an input that is constant between samples. At Lambda = 0, gamma is its limit Delta.
    """
    z = Lambda * Delta.astype(Lambda.dtype)
    return jnp.exp(z), Delta.astype(Lambda.dtype) * _phi1(z)


def discretize(Lambda: Complex[Array, "..."], Delta: Float[Array, "..."], method: str = "zoh") -> Discrete:
    """(Lambda_bar, gamma) by zero-order hold, or bilinear (Tustin): with z = Lambda Delta, Lambda_bar = (1 + z/2) /
    (1 - z/2) and gamma = Delta / (1 - z/2). ValueError for another method."""
    if method == "zoh":
        return zoh(Lambda, Delta)
    if method != "bilinear":
        raise ValueError(f"discretization must be one of {', '.join(get_args(Method))}; got {method!r}")
    half = Lambda * Delta.astype(Lambda.dtype) / 2
    inverse = 1 / (1 - half)
    return (1 + half) * inverse, Delta.astype(Lambda.dtype) * inverse
