"""Causal and two-sided convolution by real FFT.

By default a custom gradient rule (`jax.custom_vjp`) stores the spectra; it supports reverse mode only. With
`plain=True` JAX differentiates the FFTs themselves, in reverse and in forward mode.
"""

import functools

import jax
import jax.numpy as jnp
import scipy.fft
from jaxtyping import Array, Complex, Float

from s5jax.ssm.scan import reverse_mode_only
from s5jax.ssm.shares import by_shares


def convolve(
    u: Float[Array, "*batch L H"], K: Float[Array, "directions H K"], *, skip_current: bool = True, plain: bool = False
) -> Float[Array, "*batch L H"]:
    """y (..., L, H), of K's dtype, from one kernel per feature, of L lags or, with one direction, of at most L.

    With one direction y_k = sum_l K[0]_l u_{k-l}. With two, the sum also has K[1]_l u_{k+l+1}, as published for S4, or,
    without `skip_current`, K[1]_l u_{k+l}, as published for S5.
    """
    if len(K) == 1:
        return _multiply(u, K[0], plain)
    forward, back, L = K[0], K[1], u.shape[-2]
    if skip_current:
        return _multiply(u, jnp.concatenate([forward, back[:, ::-1]], axis=1), plain)
    wrapped = jnp.concatenate([back[:, :1], jnp.zeros_like(forward), back[:, :0:-1]], axis=1)
    return _multiply(u, wrapped + jnp.pad(forward, ((0, 0), (0, L))), plain)


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
    """The first L samples of the circular convolution of length `size` of u, padded with zeros, and K."""
    return _circular_fwd(u, K, size)[0]


def _circular_fwd(u: Array, K: Array, size: int) -> tuple[Array, tuple[Array, Array]]:
    spectra = _rfft(u, size), jnp.fft.rfft(K)
    return _irfft(spectra[0] * spectra[1][None], size)[..., : u.shape[-1]], spectra


def _circular_bwd(size: int, spectra: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    of_u, of_K = spectra
    of_y = _rfft(cotangent, size)
    du = _irfft(of_y * of_K.conj()[None], size)[..., : cotangent.shape[-1]]
    return du, jnp.fft.irfft(jnp.sum(of_y * of_u.conj(), axis=0), size)


def _rfft(x: Float[Array, "N H L"], size: int) -> Complex[Array, "N H F"]:
    return by_shares(lambda x: jnp.fft.rfft(x, size), [x], x.shape[0])


def _irfft(x: Complex[Array, "N H F"], size: int) -> Float[Array, "N H {size}"]:
    return by_shares(lambda x: jnp.fft.irfft(x, size), [x], x.shape[0])


_circular.defvjp(_circular_fwd, _circular_bwd)
