import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
from numerics import load_case, relative_error
from scipy.special import eval_legendre

from s5jax.ssm import hippo, measures

every_measure = pytest.mark.parametrize("measure", measures.MEASURES)


@every_measure
def test_recorded_matrices(measure):
    meta, data = load_case("hippo")
    recorded = data["fourier" if measure == "fout" else measure]
    A, B, P = measures.MEASURES[measure](meta["N"])
    assert relative_error(A, recorded["A"]) < 1e-12
    assert relative_error(B, recorded["B"]) < 1e-12
    assert relative_error(P, recorded["P"]) < 1e-6  # recorded in single precision
    Lambda, V = hippo.conjugate_half(*hippo.normal_part(A, P))
    assert V.shape == (16, 8)
    if measure != "legt":  # not recorded
        # Those of the Fourier measure carry the rounding of a recorded P in single precision.
        expected = recorded["Lambda"] - recorded["Lambda"].real.mean() + Lambda.real.mean()
        assert np.abs(recorded["Lambda"].real - Lambda.real.mean()).max() < 1e-7
        assert relative_error(np.sort_complex(1j * Lambda), np.sort_complex(1j * expected)) < 1e-9


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


def window_basis(measure, n, age):
    """The functions of a sample's age in [0, 2], orthonormal there in the mean, that the coefficients stand for."""
    if measure == "legt":
        return np.array([np.sqrt(2 * i + 1) * eval_legendre(i, 1 - age) for i in range(n)])
    waves = [f(np.pi * k * age) * np.sqrt(2) for k in range((n + 1) // 2) for f in (np.cos, np.sin)]
    return np.array([np.ones_like(age), *waves[1:n]])


@pytest.mark.parametrize(
    ("measure", "u"),
    [("legt", lambda t: 1 - 2 * t + t**4), ("fout", lambda t: 1 + np.cos(np.pi * t) - 3 * np.cos(2 * np.pi * t + 1))],
)
def test_windows_of_length_2_are_remembered_exactly_in_the_span_of_the_basis(measure, u):
    """c(t) = mean over the window of u times the basis solves c' = A c + B u."""
    n = 6
    A, B, _ = measures.MEASURES[measure](n)

    def coefficients(t):
        return np.array(
            [
                scipy.integrate.quad(lambda age, i=i: u(t - age) * window_basis(measure, n, age)[i], 0, 2)[0] / 2
                for i in range(n)
            ]
        )

    t, h = 0.6, 1e-4
    derivative = (coefficients(t + h) - coefficients(t - h)) / (2 * h)
    # Central differences are off by h^2 times a third derivative of some hundreds.
    np.testing.assert_allclose(derivative, A @ coefficients(t) + B * u(t), atol=1e-5)


@pytest.mark.parametrize("measure", ["legt", "fout"])
def test_the_impulse_response_of_a_window_is_its_basis_and_then_nothing(measure):
    A, B, _ = measures.MEASURES[measure](64)
    for t in (0.2, 0.7, 1.3, 1.8, 2.2, 3.0):
        expected = window_basis(measure, 5, np.float64(t)) / 2 if t < 2 else np.zeros(5)
        # Functions of size one are cut at the window's end, near which 64 coefficients leave some percent.
        np.testing.assert_allclose((scipy.linalg.expm(A * t) @ B)[:5], expected, atol=0.08)


@every_measure
@pytest.mark.parametrize("n", [1, 2, 7, 64])
def test_normal_part_in_double_precision(measure, n):
    A, _, P = measures.MEASURES[measure](n)
    S, shift = A + P.T @ P, {"legs": -0.5, "legt": 0, "fout": 0}[measure]
    np.testing.assert_allclose(S + S.T, 2 * shift * np.eye(n), atol=1e-10 * n)
    Lambda, V = hippo.normal_part(A, P)
    np.testing.assert_allclose(V @ np.diag(Lambda) @ V.conj().T, S, atol=1e-10 * n**2)
    np.testing.assert_allclose(V.conj().T @ V, np.eye(n), atol=1e-12)
    np.testing.assert_allclose(Lambda.real, shift, atol=1e-10)


@every_measure
@pytest.mark.parametrize("n", [2, 6, 64])
def test_conjugate_halves_rebuild_the_matrix(measure, n):
    """This includes the Fourier measure, whose double eigenvalue 0 has one real plane of eigenvectors."""
    A, _, P = measures.MEASURES[measure](n)
    Lambda, V = hippo.conjugate_half(*hippo.normal_part(A, P))
    assert Lambda.shape == (n // 2,) and V.shape == (n, n // 2)
    assert (Lambda.imag <= 0).all()
    np.testing.assert_allclose(2 * (V @ np.diag(Lambda) @ V.conj().T).real, A + P.T @ P, atol=1e-10 * n)
    np.testing.assert_allclose(np.c_[V, V.conj()].conj().T @ np.c_[V, V.conj()], np.eye(n), atol=1e-12)


@every_measure
@pytest.mark.parametrize("n", [2, 16])
def test_normal_plus_low_rank_is_the_real_system_in_other_coordinates(measure, n):
    """Inner products of its trajectories from B and from every P are those of the real system's."""
    A, B, P = measures.MEASURES[measure](n)
    Lambda, b, p = measures.normal_plus_low_rank(A, B, P)
    whole = [np.concatenate([x, x.conj()], -1) for x in (Lambda, b, p)]
    half = np.diag(whole[0]) - whole[2].T @ whole[2].conj()

    def trajectories(A, B, P):
        return np.stack([scipy.linalg.expm(A * t) @ v for t in (0, 0.1, 0.7, 2) for v in (B, *P)], 1)

    expected, actual = trajectories(A, B, P), trajectories(half, whole[1], whole[2])
    np.testing.assert_allclose(actual.conj().T @ actual, expected.T @ expected, atol=1e-9 * n)


@every_measure
def test_the_phases_of_eigenvectors_are_no_matter_of_the_solver(measure, monkeypatch):
    system = measures.MEASURES[measure](8)
    expected, rng, eigh = measures.normal_plus_low_rank(*system), np.random.default_rng(0), np.linalg.eigh

    def turned(matrix):
        w, V = eigh(matrix)
        if np.isrealobj(V):  # the plane of a double eigenvalue: any basis of it
            angle = rng.uniform(0, 2 * np.pi)
            V[:, -2:] = V[:, -2:] @ [[np.cos(angle), np.sin(angle)], [np.sin(angle), -np.cos(angle)]]
            return w, V
        return w, V * np.exp(1j * rng.uniform(0, 2 * np.pi, len(w)))

    monkeypatch.setattr(np.linalg, "eigh", turned)
    for _ in range(3):
        for actual, value in zip(measures.normal_plus_low_rank(*system), expected, strict=True):
            np.testing.assert_allclose(actual, value, atol=1e-12)


def test_the_first_component_of_each_eigenvector_is_positive():
    """Read off by unit vectors for B: V^* e_i is a row of V, conjugated."""
    A, _, P = measures.fout(6)  # the cosine of frequency k is component 2 k
    rows = np.stack([measures.normal_plus_low_rank(A, e, P)[1] for e in np.eye(6)])
    np.testing.assert_allclose(rows[[4, 2, 0], [0, 1, 2]], np.sqrt(0.5), atol=1e-12)
    A, _, P = hippo.legs(6)
    first = measures.normal_plus_low_rank(A, np.eye(6)[0], P)[1]
    np.testing.assert_allclose(first, np.abs(first), atol=1e-12)


def test_what_cannot_be_done_is_said():
    with pytest.raises(ValueError, match="skew-symmetric"):
        hippo.normal_part(hippo.legs(3)[0], np.zeros((1, 3)))
    for measure in (hippo.legs, measures.legt, measures.fout):
        with pytest.raises(ValueError, match="conjugate pairs"):
            hippo.conjugate_half(*hippo.normal_part(*measure(3)[::2]))
