import numpy as np
import pytest
import scipy.integrate
from numerics import load_case, relative_error
from scipy.special import eval_legendre

from s5jax.ssm import diagonalize, hippo


def test_recorded_matrices():
    meta, data = load_case("hippo")
    A, B, P = hippo.legs(meta["N"])
    assert relative_error(A, data["legs"]["A"]) < 1e-12
    assert relative_error(B, data["legs"]["B"]) < 1e-12
    assert relative_error(P, data["legs"]["P"]) < 1e-6  # recorded in single precision
    Lambda, V = diagonalize.conjugate_half(*diagonalize.normal_part(A, P))
    assert relative_error(np.sort_complex(1j * Lambda), np.sort_complex(1j * data["legs"]["Lambda"])) < 1e-9
    assert V.shape == (16, 8)


def test_legs_remembers_by_legendre_polynomials():
    """c(t) = projection of u on [0, t] on orthonormal Legendre polynomials solves t c' = A c + B u."""
    A, B, _ = hippo.legs(4)
    u = np.cos

    def coefficients(t):
        return [
            scipy.integrate.quad(lambda x, i=i: u(x) * np.sqrt(2 * i + 1) * eval_legendre(i, 2 * x / t - 1), 0, t)[0]
            / t
            for i in range(4)
        ]

    t, h = 1.7, 1e-4
    derivative = (np.array(coefficients(t + h)) - coefficients(t - h)) / (2 * h)
    np.testing.assert_allclose(t * derivative, A @ coefficients(t) + B * u(t), atol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 7, 64, 256])
def test_normal_part_in_double_precision(n):
    A, _, P = hippo.legs(n)
    Lambda, V = diagonalize.normal_part(A, P)
    np.testing.assert_allclose(V @ np.diag(Lambda) @ V.conj().T, A + P.T @ P, atol=1e-10 * n**2)
    np.testing.assert_allclose(V.conj().T @ V, np.eye(n), atol=1e-12)
    np.testing.assert_allclose(Lambda.real, -0.5, atol=1e-10)


def test_halves_and_blocks_rebuild_the_matrix():
    A, _, P = hippo.legs(6)
    Lambda, V = diagonalize.blocks(*diagonalize.conjugate_half(*diagonalize.normal_part(A, P)), 3)
    assert Lambda.shape == (9,) and V.shape == (18, 9)
    np.testing.assert_allclose(2 * (V @ np.diag(Lambda) @ V.conj().T).real, np.kron(np.eye(3), A + P.T @ P), atol=1e-10)


def test_what_cannot_be_done_is_said():
    with pytest.raises(ValueError, match="skew-symmetric"):
        diagonalize.normal_part(hippo.legs(3)[0], np.zeros((1, 3)))
    with pytest.raises(ValueError, match="conjugate pairs"):
        diagonalize.conjugate_half(*diagonalize.normal_part(*hippo.legs(3)[::2]))
