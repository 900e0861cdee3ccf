import dense
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everyday import variants
from numerics import relative_error

from s5jax.ssm import fft_conv


def real(*shape, seed=2):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def convolved(u, K, K_back, skip):
    """By numpy, a feature of a sequence at a time: backwards is forwards in reversed time, a sample later."""
    L, y = u.shape[-2], np.zeros(u.shape, np.result_type(u, K, K_back))
    for *i, h in np.ndindex(*u.shape[:-2], u.shape[-1]):
        x = u[tuple(i)][:, h].astype(np.result_type(u, np.float64))
        back = np.convolve(x[::-1], K_back[h])[:L][::-1]
        y[tuple(i)][:, h] = np.convolve(x, K[h])[:L] + (np.append(back[1:], 0) if skip else back)
    return y


@variants(
    [
        ((1, 2), "overlapping", False),
        ((33, 1, 2), "causal", False),
        ((2,), "skipping", True),
        ((33, 1, 2), "skipping", False),
    ],
    shape=[(1, 2), (2,), (33, 1, 2)],
    kind=["causal", "skipping", "overlapping"],
    plain=[False, True],
)
def test_convolutions_against_numpy(shape, kind, plain):
    L, *batch = shape
    u, w = real(*batch, L, 2), real(*batch, L, 2, seed=5)
    kernels = [real(2, L, seed=3)] if kind == "causal" else [real(2, L, seed=3), real(2, L, seed=4)]
    skip = kind == "skipping"

    def loss(u, *kernels):
        y = fft_conv.convolve(u, jnp.stack(kernels), skip_current=skip, plain=plain)
        return jnp.sum(y * w), y

    def exact(u, K, K_back=np.zeros((2, L))):
        return convolved(u, K, K_back, skip)

    gradients, y = jax.jit(jax.grad(loss, argnums=tuple(range(1 + len(kernels))), has_aux=True))(u, *kernels)
    # An FFT rounds some times relative to all of the sequence.
    assert relative_error(y, exact(u, *kernels)) < 1e-6
    expected = dense.derivative(lambda x: (w * exact(*x.values())).sum(), dict(enumerate([u, *kernels])))
    for which, gradient in enumerate(gradients):
        assert relative_error(gradient, expected[which]) < 1e-6


@pytest.mark.parametrize("skip", [False, True])
def test_an_overlapping_kernel_counts_the_current_sample_twice(skip):
    u = np.array([[1.0], [10.0], [100.0]], np.float32)
    K, K_back = np.array([[1.0, 2.0, 3.0]], np.float32), np.array([[5.0, 7.0, 9.0]], np.float32)
    y = fft_conv.convolve(jnp.asarray(u), jnp.stack([K, K_back]), skip_current=skip)
    expected = [[1 + 50 + 700], [12 + 500], [123]] if skip else [[6 + 70 + 900], [12 + 50 + 700], [123 + 500]]
    np.testing.assert_allclose(y, expected, rtol=1e-6)


@pytest.mark.parametrize("skip", [None, False, True])
def test_forward_mode_of_the_plain_way(skip):
    """The convolution is bilinear, so its tangent is a sum of two convolutions."""
    u, du, K, dK = real(2, 9, 3), real(2, 9, 3, seed=3), real(2, 3, 9, seed=4), real(2, 3, 9, seed=5)

    def convolve(u, K):
        return fft_conv.convolve(u, K[:1] if skip is None else K, skip_current=bool(skip), plain=True)

    def exact(u, K):
        return convolved(u, K[0], 0 * K[1] if skip is None else K[1], skip)

    y, dy = jax.jit(lambda *args: jax.jvp(convolve, args[:2], args[2:]))(u, K, du, dK)
    assert relative_error(y, exact(u, K)) < 1e-6
    assert relative_error(dy, exact(du, K) + exact(u, dK)) < 1e-6


def test_double_precision():
    with jax.enable_x64(True):
        u, K = (np.random.default_rng(0).normal(size=s) for s in ((2, 33, 2), (2, 2, 33)))
        y = jax.jit(lambda u, K: fft_conv.convolve(u, K))(u, K)
        assert y.dtype == jnp.float64 and relative_error(y, convolved(u, *K, True)) < 1e-14
