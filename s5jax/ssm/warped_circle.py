"""Circular convolution with filters that are polynomials on a circle with warped angles, as published for HOPE (arXiv
2405.13975, algorithm 1 and its code).

For M angles over the whole circle and two sequences h, h' of complex coefficients with their step sizes,

    theta_m = 2 atan(tan(pi m/M) / Delta),    K_m = sum_{j=1..n} h_j exp(-i j theta_m),    K' likewise

and of a sequence of 2 M steps, with the discrete Fourier transform U, the output is the real part of the inverse
transform of K_m U_m in bins m = 0..M-1 and K'_m U_(2M-1-m) in bins 2M-1-m. On real inputs this is the real convolution
with the filter

    G_m = (K_m + conj K'_(m-1)) / 2,    m = 0..M,    with K'_(-1) = K_0 and K_M = K'_(M-1)

The M angles go once round the circle while the bins go half-way, so that bin m has the angle that the causal filter has
at twice its frequency. The filters are not causal.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from s5jax.ssm import vandermonde
from s5jax.ssm.shares import by_shares


def convolve(x: Float[Array, "B L H"], h: Float[Array, "2 H n 2"], Delta: Float[Array, "2 H"]) -> Float[Array, "B L H"]:
    """The circular convolution of x, of an even length, with the filter of h (complex, as pairs)."""
    B, L, _ = x.shape
    of_x = by_shares(lambda x: jnp.fft.rfft(x, axis=1), [x], B)
    of_y = of_x * spectrum(h, Delta, L // 2).T[None]
    return by_shares(lambda y: jnp.fft.irfft(y, L, axis=1), [of_y], B)


def spectrum(h: Float[Array, "2 H n 2"], Delta: Float[Array, "2 H"], M: int) -> Complex[Array, "H bins"]:
    """G of bins 0..M, (H, M + 1)."""
    m = np.arange(M)
    half = np.pi / M * np.where(2 * m <= M, m, m - M)  # from -pi/2 to pi/2
    sin, cos = (jnp.asarray(f(half), h.dtype)[None] for f in (np.sin, np.cos))
    first, second = (_on_circle(*pair, sin, cos) for pair in zip(h, Delta, strict=True))
    forward = jnp.concatenate([first, second[:, -1:]], axis=1)
    backward = jnp.concatenate([first[:, :1], second], axis=1)
    return (forward + backward.conj()) / 2


def _on_circle(
    h: Float[Array, "H n 2"], Delta: Float[Array, " H"], sin: Float[Array, "1 M"], cos: Float[Array, "1 M"]
) -> Complex[Array, "H M"]:
    """K, from the sine and cosine of half of the angles before warping."""
    cos = jnp.where(sin == 0, 1, Delta[:, None] * cos)  # the angle is 0 there, even if Delta is
    theta = 2 * jnp.arctan2(jnp.broadcast_to(sin, cos.shape), cos)
    log_inverse = jax.lax.complex(jnp.zeros_like(theta), -theta)
    # The sum of h_j a^(j-1) is the last state of x_k = a x_{k-1} + u_k for the coefficients in reverse order.
    real, imag = vandermonde.final_state(log_inverse, h.T[:, ::-1])
    return jnp.exp(log_inverse) * (real + 1j * imag)
