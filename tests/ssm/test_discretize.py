import functools

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import scipy.signal
from numerics import relative_error

from s5jax.ssm import discretize, vandermonde


@pytest.mark.parametrize("method", ["zoh", "bilinear"])
def test_against_scipy(method):
    rng = np.random.default_rng(0)
    Lambda = -rng.uniform(0.01, 2, 6) + 1j * rng.uniform(-50, 50, 6)
    Delta = np.exp(rng.uniform(np.log(1e-3), np.log(0.3), 6))
    Lambda_bar, gamma = discretize.discretize(
        jnp.asarray(Lambda, jnp.complex64), jnp.asarray(Delta, jnp.float32), method
    )
    for i in range(6):
        # As a real system of two states, which is what scipy takes.
        A = np.array([[Lambda[i].real, -Lambda[i].imag], [Lambda[i].imag, Lambda[i].real]])
        A_bar, B_bar, *_ = scipy.signal.cont2discrete((A, np.eye(2), np.eye(2), np.zeros((2, 2))), Delta[i], method)
        assert relative_error(Lambda_bar[i], A_bar[0, 0] + 1j * A_bar[1, 0]) < 2e-6
        assert relative_error(gamma[i], B_bar[0, 0] + 1j * B_bar[1, 0]) < 2e-6


@pytest.mark.parametrize("z", [0, 1e-30, 1e-9j, -1e-6, 1e-4 + 1e-4j, 0.49j, -0.5, 0.51j, -3 + 40j, -80.0])
def test_zero_order_hold_is_exact_around_zero_with_its_gradient(z):
    z = mpmath.mpmathify(complex(np.complex64(z)))
    with mpmath.workdps(120):
        value = (mpmath.exp(z) - 1) / z if z else mpmath.mpf(1)
        slope = (z * mpmath.exp(z) - mpmath.exp(z) + 1) / z**2 if z else mpmath.mpf("0.5")
    gamma = lambda Lambda: discretize.zoh(Lambda, jnp.float32(1))[1]  # noqa: E731
    actual, gradient = gamma(jnp.complex64(complex(z))), jax.grad(gamma, holomorphic=True)(jnp.complex64(complex(z)))
    assert abs(complex(actual) - complex(value)) <= 5e-7 * abs(complex(value))
    assert abs(complex(gradient) - complex(slope)) <= 2e-6 * abs(complex(slope))


def test_one_step_size_per_sample():
    Lambda = jnp.asarray([-0.5 + 3j, -1 + 0j], jnp.complex64)
    Delta = jnp.asarray([[0.1, 0.2], [0.0, 0.3], [1.0, 2.0]], jnp.float32)
    for method in ("zoh", "bilinear"):
        Lambda_bar, gamma = discretize.discretize(Lambda[None], Delta, method)
        for k in range(3):
            for expected, actual in zip(
                discretize.discretize(Lambda, Delta[k], method), (Lambda_bar[k], gamma[k]), strict=True
            ):
                np.testing.assert_allclose(actual, expected, rtol=1e-6)


EXACT = {
    "zoh": lambda z: mpmath.mpmathify(z),
    "bilinear": lambda z: mpmath.log((1 + mpmath.mpmathify(z) / 2) / (1 - mpmath.mpmathify(z) / 2)),
}
SMALL = [1e-6j, -1e-6, 1e-6 - 1e-6j, -1e-3 + 3e-3j]
LARGE = [-0.5, -0.05 + 0.7j, 2j, -0.01 + 3.1j, 0.1 + 1j, -30, -1e4, -3 - 40j, -1e-4 + 300j]
NEXT_TO_ZERO = [-1.9, -2 + 1e-5j, -2.1]  # the bilinear multiplier
Z = np.array([*SMALL, *LARGE, *NEXT_TO_ZERO], np.complex64)
log_multiplier = functools.cache(lambda rule: jax.jit(lambda *args: vandermonde.log_multiplier(*args, rule)))


@pytest.mark.parametrize("method", ["zoh", "bilinear"])
def test_log_multiplier_with_its_derivative(method):
    log_a, vjp = jax.vjp(log_multiplier(method), Z, np.ones(len(Z), np.float32))
    (of_real, steps), (of_imag, _) = (vjp(np.full(len(Z), unit, np.complex64)) for unit in (1, 1j))
    assert (np.abs(log_a.imag) <= np.float32(np.pi)).all()
    for i, z in enumerate(complex(z) for z in Z):
        exact, slope = EXACT[method](z), complex(mpmath.diff(EXACT[method], z, h=1e-9 * abs(z)))
        # The real part to rounding; the angle to that of the angle itself, less whole turns.
        assert float(log_a[i].real) == pytest.approx(float(exact.real), rel=1e-6, abs=1e-13), z
        turns = (float(log_a[i].imag) - float(exact.imag)) / (2 * np.pi)
        assert abs(turns - round(turns)) < 1e-7 * max(1, abs(z.imag) if method == "zoh" else 1), z
        # An analytic function takes a cotangent to its product with the derivative.
        assert complex(of_real[i]) == pytest.approx(slope, rel=2e-6), z
        assert complex(of_imag[i]) == pytest.approx(1j * slope, rel=2e-6), z
        assert float(steps[i]) == pytest.approx((slope * z).real, rel=2e-6, abs=2e-6 * abs(slope * z)), z


@pytest.mark.parametrize("method", ["zoh", "bilinear"])
def test_exp_of_log_multiplier_is_that_of_scipy(method):
    a = np.exp(log_multiplier(method)(Z, np.full(len(Z), 0.5, np.float32)))
    for actual, z in zip(a, Z.astype(complex) / 2, strict=True):
        A = np.array([[z.real, -z.imag], [z.imag, z.real]])
        A_bar, *_ = scipy.signal.cont2discrete((A, np.eye(2), np.eye(2), np.zeros((2, 2))), 1, method)
        # exp and the angle round once each, the angle of zoh before its whole turns are taken off.
        assert abs(actual - (A_bar[0, 0] + 1j * A_bar[1, 0])) < 3e-7 * max(1, abs(z) if method == "zoh" else 1)


@pytest.mark.parametrize("method", ["zoh", "bilinear"])
def test_powers_by_the_logarithm_are_off_by_roundings_of_the_exponent(method):
    Delta, powers = np.float32(0.01), np.arange(1, 4097)
    z = Z.astype(complex) * float(Delta)
    exact = np.array([complex(mpmath.exp(EXACT[method](v))) for v in z])[:, None] ** powers
    log_a = log_multiplier(method)(Z, np.full(len(Z), Delta))
    exponents = np.asarray(log_a)[:, None] * powers.astype(np.complex64)
    relative = np.abs(np.exp(exponents) - exact) / np.maximum(np.abs(exact), 1e-30)
    # zoh rounds Lambda Delta before it takes whole turns off, bilinear nothing larger than the logarithm.
    size = powers * (np.abs(z) if method == "zoh" else np.abs(log_a))[:, None]
    assert (relative < (4 + 4 * size) * np.finfo(np.float32).eps).all()


def test_log_multiplier_where_the_bilinear_multiplier_is_zero():
    """Lambda Delta = -2: whatever stands for the logarithm of 0, powers are 0 but for the 0th, which is 1."""
    log_a = log_multiplier("bilinear")(np.full(1, -2, np.complex64), np.ones(1, np.float32))
    power = jax.jit(lambda log_a, l: jnp.exp(log_a * l))
    assert [abs(complex(power(log_a, np.complex64(l))[0])) for l in (1, 2, 100)] == pytest.approx([0, 0, 0], abs=1e-15)
    assert complex(power(log_a, np.complex64(0))[0]) == 1
    gradient = jax.vjp(log_multiplier("bilinear"), np.full(1, -2, np.complex64), np.ones(1, np.float32))[1]
    assert all(np.isfinite(g).all() for g in gradient(np.ones(1, np.complex64)))


def test_unknown_rule():
    with pytest.raises(ValueError, match="must be one of zoh, bilinear; got 'euler'"):
        discretize.discretize(jnp.ones(1, jnp.complex64), jnp.ones(1), "euler")
