"""Convolution kernels of diagonal systems, and causal and two-sided convolution by real FFT.

Letters: H features, N stored states of each, L length. Nothing here is ever of size H N L.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft
from jaxtyping import Array, Complex, Float, Integer

__all__ = ["causal", "final_state", "two_sided", "vandermonde"]

# Products of matrices in full single precision: some devices round their factors to ten bits unless told otherwise.
_einsum = functools.partial(jnp.einsum, precision="highest")


def _powers(log_a: Complex[Array, "*shape"], step: int, count: int) -> Complex[Array, "*shape {count}"]:
    """a^0, a^step, ..., a^((count-1) step), each the product of two of some 2 sqrt(count) exponentials."""
    inner, outer = _chunk(count)

    def exponentials(exponents: np.ndarray) -> Array:
        return jnp.exp(log_a[..., None] * jnp.asarray(exponents.reshape((1,) * log_a.ndim + (-1,)), log_a.dtype))

    factors = exponentials(step * np.arange(inner)), exponentials(step * inner * np.arange(outer))
    # Without the barrier each use of a power is compiled into exponentials of its own, which cost more than the rest.
    near, far = jax.lax.optimization_barrier(factors)
    return (far[..., :, None] * near[..., None, :]).reshape(*log_a.shape, -1)[..., :count]


def _chunk(length: int) -> tuple[int, int]:
    """T and Q with Q T >= length, both about its square root."""
    T = math.isqrt(length - 1) + 1
    return T, -(-length // T)


def vandermonde(
    c: Complex[Array, "*batch H N"], log_a: Complex[Array, "H N"], length: int
) -> Float[Array, "*batch H {length}"]:
    """K_l = Re sum_n c_n a_n^l for l = 0..length-1 (arXiv 2206.11893, section 3.3).

    With l = q T + r and T about sqrt(length), a^l = (a^T)^q a^r: the sum is a matrix product of two factors, H x Q x N
    and H x N x T, and the array of all powers, H x N x length, is never there, nor in the gradient.

    Args:
      c: coefficients, (..., H, N).
      log_a: logarithms of the multipliers, (H, N), as from `discretize.log_multiplier`.
      length: at least 1.
    """
    T, Q = _chunk(length)
    fine, coarse = _powers(log_a, 1, T), _powers(log_a, T, Q)
    coarse = jnp.expand_dims(c, -1) * jnp.expand_dims(coarse, tuple(range(c.ndim - 2)))
    K = _einsum("...hnq,hnr->...hqr", coarse.real, fine.real) - _einsum("...hnq,hnr->...hqr", coarse.imag, fine.imag)
    return K.reshape(*K.shape[:-2], Q * T)[..., :length]


def final_state(
    log_a: Complex[Array, "H N"], u: Float[Array, "*batch L H"], lengths: Integer[Array, "*batch"] | None = None
) -> Complex[Array, "*batch H N"]:
    """sum_k a_n^(l - 1 - k) u_k over the l valid steps: the last state of x_k = a x_{k-1} + u_k, started from zero.

    The transpose of `vandermonde`, in the same two factors.

    Args:
      log_a: logarithms of the multipliers, (H, N).
      u: inputs (..., L, H).
      lengths: (...), valid steps l of each sequence; default: all.
    """
    L = u.shape[-2]
    T, Q = _chunk(L)
    back = jax.lax.broadcasted_iota(jnp.int32, u.shape[:-1], u.ndim - 2)  # steps back from the last valid one
    last = jnp.full(u.shape[:-2], L - 1) if lengths is None else lengths.astype(jnp.int32) - 1
    source = last[..., None] - back
    u = jnp.where(source[..., None] >= 0, jnp.take_along_axis(u, jnp.maximum(source, 0)[..., None], axis=-2), 0)
    u = jnp.pad(u, [(0, 0)] * (u.ndim - 2) + [(0, Q * T - L), (0, 0)]).reshape(*u.shape[:-2], Q, T, u.shape[-1])
    fine, coarse = _powers(log_a, 1, T), _powers(log_a, T, Q)
    inner = jax.lax.complex(_einsum("...qrh,hnr->...qhn", u, fine.real), _einsum("...qrh,hnr->...qhn", u, fine.imag))
    return _einsum("...qhn,hnq->...hn", inner, coarse)


def causal(u: Float[Array, "*batch L H"], K: Float[Array, "H L"]) -> Float[Array, "*batch L H"]:
    """y_k = sum_l K_l u_{k-l}."""
    return _multiply(u, K)


def two_sided(
    u: Float[Array, "*batch L H"], K: Float[Array, "H L"], K_back: Float[Array, "H L"], *, skip_current: bool
) -> Float[Array, "*batch L H"]:
    """y_k = sum_l K_l u_{k-l} + K_back_l u_{k+l+1}; without `skip_current`, u_{k+l}.

    The published S4 code starts the backward kernel at the next sample, the published S5 code at the current one.
    """
    L = u.shape[-2]
    if skip_current:
        return _multiply(u, jnp.concatenate([K, K_back[:, ::-1]], axis=1))
    wrapped = jnp.concatenate([K_back[:, :1], jnp.zeros_like(K), K_back[:, :0:-1]], axis=1)
    return _multiply(u, wrapped + jnp.pad(K, ((0, 0), (0, L))))


def _multiply(u: Float[Array, "*batch L H"], K: Float[Array, "H K"]) -> Float[Array, "*batch L H"]:
    """Circular convolution long enough for nothing to wrap: negative lags stand at the end of a K of length 2 L."""
    L, span, u = u.shape[-2], K.shape[1], u.astype(K.dtype)
    size = scipy.fft.next_fast_len(2 * L, real=True)
    if span > L:  # what is to be added goes between lags and negative lags
        K = jnp.concatenate([K[:, :L], jnp.zeros((K.shape[0], size - 2 * L), K.dtype), K[:, L:]], axis=1)
    else:
        K = jnp.pad(K, ((0, 0), (0, size - span)))
    series = jnp.swapaxes(u.reshape(-1, *u.shape[-2:]), 1, 2)
    return jnp.swapaxes(_circular(series, K, size), 1, 2).reshape(u.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _circular(u: Float[Array, "N H L"], K: Float[Array, "H K"], size: int) -> Float[Array, "N H L"]:
    """The first L samples of the circular convolution, of length `size`, of u and K filled up with zeros.

    The gradient uses the spectra of both again, and takes one transform for itself and one back for each of them.
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
