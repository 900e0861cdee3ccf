"""From continuous time to samples: x' = Lambda x + B u becomes x_k = Lambda_bar x_{k-1} + gamma B u_k.

Both rules return the pair (Lambda_bar, gamma) rather than a discrete B: gamma has the size of Lambda, so that B is
scaled where it is used and nothing grows when there is one step size per sample. Lambda and Delta broadcast; their
annotations do not say how, since jaxtyping cannot broadcast a symbolic batch size.
"""

import math
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

__all__ = ["Method", "bilinear", "discretize", "log_multiplier", "zoh"]

Method = Literal["zoh", "bilinear"]


def _phi1(z: Complex[Array, "*shape"]) -> Complex[Array, "*shape"]:
    """(exp(z) - 1) / z, exact to rounding, with its gradient, for every z including 0.

    The quotient loses all digits near 0, its derivative even more; there the power series sum z^k / (k+1)! takes
    over. With |z| < 1/2, fourteen terms leave less than 1e-16.
    """
    small = jnp.abs(z) < 0.5
    series_z = jnp.where(small, z, 0)  # the double `where` keeps infinities out of the gradient
    quotient_z = jnp.where(small, 1, z)
    series = jnp.zeros_like(z)
    for k in range(14, 0, -1):
        series = series_z * series + 1 / math.factorial(k)
    return jnp.where(small, series, (jnp.exp(quotient_z) - 1) / quotient_z)


def zoh(
    Lambda: Complex[Array, "..."], Delta: Float[Array, "..."]
) -> tuple[Complex[Array, "..."], Complex[Array, "..."]]:
    """Zero-order hold: Lambda_bar = exp(Lambda Delta), gamma = (Lambda_bar - 1) / Lambda (arXiv 2208.04933, eq. 6).

    Exact for an input that is constant between samples. At Lambda = 0, gamma is its limit Delta.

    Args:
      Lambda: eigenvalues, in 1/time.
      Delta: step sizes, in time; same shape as Lambda, or with axes of length 1, or more axes in front.
    """
    z = Lambda * Delta.astype(Lambda.dtype)
    return jnp.exp(z), Delta.astype(Lambda.dtype) * _phi1(z)


def bilinear(
    Lambda: Complex[Array, "..."], Delta: Float[Array, "..."]
) -> tuple[Complex[Array, "..."], Complex[Array, "..."]]:
    """Bilinear (Tustin): Lambda_bar = (1 + z/2) / (1 - z/2), gamma = Delta / (1 - z/2), z = Lambda Delta.

    As the published implementations have it: `scipy.signal.cont2discrete` gives the same A and B.
    Arguments as for `zoh`.
    """
    half = Lambda * Delta.astype(Lambda.dtype) / 2
    inverse = 1 / (1 - half)
    return (1 + half) * inverse, Delta.astype(Lambda.dtype) * inverse


def discretize(
    Lambda: Complex[Array, "..."], Delta: Float[Array, "..."], method: str = "zoh"
) -> tuple[Complex[Array, "..."], Complex[Array, "..."]]:
    """Applies the rule of that name, `zoh` or `bilinear`; see there.

    Raises:
      ValueError: no rule has this name.
    """
    if method == "zoh":
        return zoh(Lambda, Delta)
    if method == "bilinear":
        return bilinear(Lambda, Delta)
    raise ValueError(f"discretization must be one of {', '.join(get_args(Method))}; got {method!r}")


def log_multiplier(
    Lambda: Complex[Array, "..."], Delta: Float[Array, "..."], method: str = "zoh"
) -> Complex[Array, "..."]:
    """log(Lambda_bar), imaginary part in [-pi, pi], from which powers follow as exp(l log Lambda_bar).

    Its real part is that of z = Lambda Delta for `zoh`, and log|1 + z/2| - log|1 - z/2| for `bilinear`. Powers so taken
    are off by |l Lambda Delta| roundings; products of a rounded Lambda_bar by l of them, which is far more for the
    slow modes that matter at length l. Arguments and errors as for `discretize`.
    """
    z = Lambda * Delta.astype(Lambda.dtype)
    if method == "zoh":
        return jax.lax.complex(z.real, jnp.arctan2(jnp.sin(z.imag), jnp.cos(z.imag)))
    if method != "bilinear":
        raise ValueError(f"discretization must be one of {', '.join(get_args(Method))}; got {method!r}")
    x, y = z.real / 2, z.imag / 2
    numerator, denominator = (1 + x) ** 2 + y**2, (1 - x) ** 2 + y**2
    ratio = 4 * x / denominator  # |Lambda_bar|^2 - 1, without the cancellation
    near_one = jnp.abs(ratio) < 0.5
    # Where Lambda_bar is 0 its logarithm is taken as that of 1e-18, which is 0 at any power but the 0th, and constant.
    # (Its square is well above the subnormal numbers, which devices take for 0.)
    zero = numerator < 1e-36
    far = jnp.log(jnp.where(zero, 1e-36, numerator)) - jnp.log(denominator)
    modulus = jnp.where(near_one, jnp.log1p(jnp.where(near_one, ratio, 0)), far) / 2
    return jax.lax.complex(modulus, jnp.arctan2(2 * y, jnp.where(zero, 1, 1 - x**2 - y**2)))
