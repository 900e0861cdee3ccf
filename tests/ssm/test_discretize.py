import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import scipy.signal
from numerics import relative_error

from s5jax.ssm import discretize


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


def test_unknown_rule():
    with pytest.raises(ValueError, match="zoh, bilinear"):
        discretize.discretize(jnp.ones(1, jnp.complex64), jnp.ones(1), "euler")
