import dense
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numerics import relative_error

from s5jax.ssm import convolution


def multipliers(seed=0, H=2, N=5):
    """Logarithms, single precision: steady, slow, fast, turning and alternating modes."""
    rng = np.random.default_rng(seed)
    decay = np.broadcast_to([0.0, 1e-4, 2.0, 0.05, 0.01], (H, N))
    angle = np.where(np.arange(N) == 4, np.pi, rng.uniform(-3, 3, (H, N)))
    return (-decay + 1j * angle).astype(np.complex64)


def pairs(*shape, seed=1):
    return (np.random.default_rng(seed).normal(size=(*shape, 2)) @ [1, 1j]).astype(np.complex64)


def real(*shape, seed=2):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def tolerance(L):
    """An exponent of up to pi L is rounded, and the sums are of some modes."""
    return (8 + np.pi * L) * np.finfo(np.float32).eps


@pytest.mark.parametrize(("L", "batch"), [(L, ()) for L in (1, 2, 3, 16, 17, 100, 1000)] + [(17, (3, 2)), (100, (4,))])
def test_vandermonde_against_a_loop_of_powers(L, batch):
    log_a, c, w = multipliers(), pairs(*batch, 2, 5), real(*batch, 2, L)

    def loss(c, log_a):
        K = convolution.vandermonde(c, log_a, L)
        return jnp.sum(K * w), K

    (grad_c, grad_log_a), K = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(c, log_a)
    expected, d_c, d_log_a = np.zeros((*batch, 2, L)), np.zeros(c.shape, complex), np.zeros(log_a.shape, complex)
    a, power = np.exp(log_a.astype(complex)), np.ones(log_a.shape, complex)
    for k in range(L):
        expected[..., k] = (c * power).real.sum(-1)
        # K_l is the real part of an analytic function: jax gives its derivative.
        d_c += w[..., k, None] * power
        d_log_a += (w[..., k, None] * c * k * power).reshape(-1, *log_a.shape).sum(0)
        power = power * a
    assert relative_error(K, expected) < tolerance(L)
    assert relative_error(grad_c, d_c) < tolerance(L)
    if L > 1:
        assert relative_error(grad_log_a, d_log_a) < tolerance(L)
    else:
        assert not np.asarray(grad_log_a).any()


@pytest.mark.parametrize(("L", "batch"), [(1, (2,)), (2, ()), (17, (3, 2)), (100, ())])
def test_final_state_against_a_loop(L, batch):
    log_a, u, w = multipliers(), real(*batch, L, 2), pairs(*batch, 2, 5)
    lengths = np.random.default_rng(0).integers(0, L + 1, batch).astype(np.uint8) if batch else None

    def loss(log_a, u):
        x = convolution.final_state(log_a, u, None if lengths is None else jnp.asarray(lengths))
        return jnp.sum((w * x).real), x

    (grad_log_a, grad_u), x = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(log_a, u)
    a, d_log_a = np.exp(log_a.astype(complex)), np.zeros(log_a.shape, complex)
    expected, d_u = np.zeros(x.shape, complex), np.zeros(u.shape)
    for i in np.ndindex(batch):
        n = L if lengths is None else lengths[i]
        state, slope = np.zeros((2, 2, 5), complex)  # and its derivative by log a
        for k in range(n):
            state, slope = a * state + u[i][k, :, None].astype(float), a * (slope + state)
            d_u[i][k] = (w[i] * a ** (n - 1 - k)).real.sum(-1)
        expected[i] = state
        d_log_a += w[i] * slope
    assert relative_error(x, expected) < tolerance(L)
    assert relative_error(grad_u, d_u) < tolerance(L)
    if L > 1:
        assert relative_error(grad_log_a, d_log_a) < tolerance(L)


def convolved(u, K, K_back, skip):
    """By numpy, a feature of a sequence at a time: backwards is forwards in reversed time, a sample later."""
    L, y = u.shape[-2], np.zeros(u.shape, np.result_type(u, K, K_back))
    for *i, h in np.ndindex(*u.shape[:-2], u.shape[-1]):
        x = u[tuple(i)][:, h].astype(np.result_type(u, np.float64))
        back = np.convolve(x[::-1], K_back[h])[:L][::-1]
        y[tuple(i)][:, h] = np.convolve(x, K[h])[:L] + (np.append(back[1:], 0) if skip else back)
    return y


@pytest.mark.parametrize("kind", ["causal", "skipping", "overlapping"])
@pytest.mark.parametrize(("L", "batch"), [(1, (2,)), (2, ()), (33, (1, 2))])
def test_convolutions_against_numpy(L, batch, kind):
    u, w = real(*batch, L, 2), real(*batch, L, 2, seed=5)
    kernels = [real(2, L, seed=3)] if kind == "causal" else [real(2, L, seed=3), real(2, L, seed=4)]
    skip = kind == "skipping"

    def loss(u, *kernels):
        y = (
            convolution.causal(u, *kernels)
            if len(kernels) == 1
            else convolution.two_sided(u, *kernels, skip_current=skip)
        )
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
    y = convolution.two_sided(jnp.asarray(u), jnp.asarray(K), jnp.asarray(K_back), skip_current=skip)
    expected = [[1 + 50 + 700], [12 + 500], [123]] if skip else [[6 + 70 + 900], [12 + 50 + 700], [123 + 500]]
    np.testing.assert_allclose(y, expected, rtol=1e-6)
