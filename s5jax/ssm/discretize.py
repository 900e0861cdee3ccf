"""From continuous time to samples: x' = Lambda x + B u becomes x_k = Lambda_bar x_{k-1} + gamma B u_k.

Both rules return the pair (Lambda_bar, gamma) rather than a discrete B: gamma has the size of Lambda, so that B is
scaled where it is used and nothing grows when there is one step size per sample.
"""

from typing import Literal, get_args

import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

__all__ = ["Method", "bilinear", "discretize", "zoh"]

Method = Literal["zoh", "bilinear"]


def _phi1(z: Complex[Array, "*shape"]) -> Complex[Array, "*shape"]:
    """(exp(z) - 1) / z, exact to rounding, with its gradient, for every z including 0.

    The quotient loses all digits near 0, its derivative even more; there the power series sum z^k / (k+1)! takes
    over. With |z| < 1/2, fourteen terms leave less than 1e-16.
    """
    small = jnp.abs(z) < 0.5
    series_z = jnp.where(small, z, 0)  # the double `where` keeps infinities out of the gradient
    quotient_z = jnp.where(small, 1, z)
    series = jnp.ones_like(z)
    for k in range(14, 1, -1):
        series = 1 + series_z * series / k
    return jnp.where(small, series, (jnp.exp(quotient_z) - 1) / quotient_z)


def zoh(
    Lambda: Complex[Array, "*#shape"], Delta: Float[Array, "*#shape"]
) -> tuple[Complex[Array, "*shape"], Complex[Array, "*shape"]]:
    """Zero-order hold: Lambda_bar = exp(Lambda Delta), gamma = (Lambda_bar - 1) / Lambda (arXiv 2208.04933, eq. 6).

    Exact for an input that is constant between samples. At Lambda = 0, gamma is its limit Delta.

    Args:
      Lambda: eigenvalues, in 1/time.
      Delta: step sizes, in time; same shape as Lambda, or with axes of length 1, or more axes in front.
    """
    z = Lambda * Delta.astype(Lambda.dtype)
    return jnp.exp(z), Delta.astype(Lambda.dtype) * _phi1(z)


def bilinear(
    Lambda: Complex[Array, "*#shape"], Delta: Float[Array, "*#shape"]
) -> tuple[Complex[Array, "*shape"], Complex[Array, "*shape"]]:
    """Bilinear (Tustin): Lambda_bar = (1 + z/2) / (1 - z/2), gamma = Delta / (1 - z/2), z = Lambda Delta.

    As the published implementations have it: `scipy.signal.cont2discrete` gives the same A and B.
    Arguments as for `zoh`.
    """
    half = Lambda * Delta.astype(Lambda.dtype) / 2
    inverse = 1 / (1 - half)
    return (1 + half) * inverse, Delta.astype(Lambda.dtype) * inverse


def discretize(
    Lambda: Complex[Array, "*#shape"], Delta: Float[Array, "*#shape"], method: str = "zoh"
) -> tuple[Complex[Array, "*shape"], Complex[Array, "*shape"]]:
    """Applies the rule of that name, `zoh` or `bilinear`; see there.

    Raises:
      ValueError: no rule has this name.
    """
    if method == "zoh":
        return zoh(Lambda, Delta)
    if method == "bilinear":
        return bilinear(Lambda, Delta)
    raise ValueError(f"discretization {method!r} is none of {', '.join(get_args(Method))}")
