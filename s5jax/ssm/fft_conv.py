"""Causal and two-sided convolution by real FFT.

By default a custom gradient rule (`jax.custom_vjp`) stores the spectra; it supports reverse mode only. With
`plain=True` JAX differentiates the FFTs themselves, in reverse and in forward mode.
"""

import functools

import jax
import jax.numpy as jnp
import scipy.fft
from jaxtyping import Array, Complex, Float

from s5jax.ssm.reverse_mode import reverse_mode_only

__all__ = ["causal", "two_sided"]


def causal(u: Float[Array, "*batch L H"], K: Float[Array, "H L"], *, plain: bool = False) -> Float[Array, "*batch L H"]:
    """y_k = sum_l K_l u_{k-l}.

    Args:
      u: inputs (..., L, H); cast to K's dtype.
      K: one kernel per feature, (H, L), lags 0 to L - 1.
      plain: differentiate the FFTs instead of using the custom gradient rule; required for forward mode.

    Returns:
      y (..., L, H), with K's dtype.
    """
    return _multiply(u, K, plain)


def two_sided(
    u: Float[Array, "*batch L H"],
    K: Float[Array, "H L"],
    K_back: Float[Array, "H L"],
    *,
    skip_current: bool,
    plain: bool = False,
) -> Float[Array, "*batch L H"]:
    """y_k = sum_l K_l u_{k-l} + K_back_l u_{k+l+1}; without `skip_current`, u_{k+l} instead of u_{k+l+1}.

    The published S4 code starts the backward kernel at the next sample (`skip_current`), the published S5 code at the
    current one. K_back is (H, L), like K; the other arguments and the result are those of `causal`.
    """
    L = u.shape[-2]
    if skip_current:
        return _multiply(u, jnp.concatenate([K, K_back[:, ::-1]], axis=1), plain)
    wrapped = jnp.concatenate([K_back[:, :1], jnp.zeros_like(K), K_back[:, :0:-1]], axis=1)
    return _multiply(u, wrapped + jnp.pad(K, ((0, 0), (0, L))), plain)


def _multiply(u: Float[Array, "*batch L H"], K: Float[Array, "H K"], plain: bool) -> Float[Array, "*batch L H"]:
    """Linear convolution as a circular one without wrap-around; a K of length 2 L ends with the negative lags."""
    L, span, u = u.shape[-2], K.shape[1], u.astype(K.dtype)
    size = scipy.fft.next_fast_len(2 * L, real=True)
    if span > L:  # zeros between the lags and the negative lags
        K = jnp.concatenate([K[:, :L], jnp.zeros((K.shape[0], size - 2 * L), K.dtype), K[:, L:]], axis=1)
    else:
        K = jnp.pad(K, ((0, 0), (0, size - span)))
    series = jnp.swapaxes(u.reshape(-1, *u.shape[-2:]), 1, 2)
    y = _circular_fwd(series, K, size)[0] if plain else _circular(*map(reverse_mode_only, (series, K)), size)
    return jnp.swapaxes(y, 1, 2).reshape(u.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _circular(u: Float[Array, "N H L"], K: Float[Array, "H K"], size: int) -> Float[Array, "N H L"]:
    """The first L samples of the circular convolution of length `size` of u, padded with zeros, and K.

    The backward pass reuses the spectra of u and K: it takes one FFT of the cotangent, and one inverse FFT each for du
    and dK.
    """
    return _circular_fwd(u, K, size)[0]


Spectra = tuple[Complex[Array, "N H F"], Complex[Array, "H F"]]


def _circular_fwd(u: Array, K: Array, size: int) -> tuple[Array, Spectra]:
    spectra = jnp.fft.rfft(u, size), jnp.fft.rfft(K)
    return jnp.fft.irfft(spectra[0] * spectra[1][None], size)[..., : u.shape[-1]], spectra


def _circular_bwd(size: int, spectra: Spectra, cotangent: Array) -> tuple[Array, Array]:
    of_u, of_K = spectra
    of_y = jnp.fft.rfft(cotangent, size)
    du = jnp.fft.irfft(of_y * of_K.conj()[None], size)[..., : cotangent.shape[-1]]
    return du, jnp.fft.irfft(jnp.sum(of_y * of_u.conj(), axis=0), size)


_circular.defvjp(_circular_fwd, _circular_bwd)
