import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numerics import relative_error

from s5jax.ssm import vandermonde


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
        K = vandermonde.vandermonde(c, log_a, L)
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
        x = vandermonde.final_state(log_a, u, None if lengths is None else jnp.asarray(lengths))
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


def test_double_precision():
    with jax.enable_x64(True):
        log_a, c, u = multipliers().astype(complex), pairs(2, 5).astype(complex), real(3, 100, 2).astype(float)
        K, x = jax.jit(
            lambda *args: (vandermonde.vandermonde(args[1], args[0], 100), vandermonde.final_state(*args[::2]))
        )(log_a, c, u)
        powers = np.exp(log_a)[..., None] ** np.arange(100)
        assert relative_error(K, (c[..., None] * powers).real.sum(1)) < 1e-12
        assert relative_error(x, np.einsum("bkh,hnk->bhn", u, powers[..., ::-1])) < 1e-12
