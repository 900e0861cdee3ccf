"""The ways to diagonalize HiPPO-LegS that are compared, and their transfer functions."""

import numpy as np
import pytest
from numerics import relative_error

from projects.ptd import methods
from projects.ptd.methods import diagonalize
from s5jax.ssm import hippo, measures
from s5jax.ssm.perturbation import BARRIER, SMOOTHING, Unreachable


def distance_from_hippo(M, B, omega):
    """|G - G_A| for the first state, whose equation in HiPPO-LegS is x' = -x + u."""
    return np.array([abs(np.linalg.solve(1j * w * np.eye(len(M)) - M, B)[0] - 1 / (1 + 1j * w)) for w in omega])


@pytest.mark.parametrize(("n", "kappa"), [(8, 4.66), (16, 6.35), (32, 7.73), (64, 8.66), (128, 9.21)])
def test_condition_numbers_with_columns_of_norm_1(n, kappa):
    """Below those of the published matrices at the same scaling."""
    found = diagonalize(hippo.legs(n)[0], "ptd-conjugate")
    assert methods.unit_kappa(found.V) == pytest.approx(kappa, abs=0.005)
    assert methods.unit_kappa(found.V) == pytest.approx(np.linalg.cond(np.linalg.eig(found.A + found.E)[1]), rel=1e-6)
    published = {8: 5.11, 16: 6.56, 32: 8.31, 64: 9.17}
    assert n not in published or kappa < published[n]


@pytest.mark.parametrize("n", [8, 16, 32, 64, 128])
def test_the_transfer_error_is_the_largest_distance_from_hippo(n):
    A, B, _ = hippo.legs(n)
    found = diagonalize(A, "ptd-conjugate")
    end = 1.3 * n**2 / np.pi
    omega = np.concatenate([np.linspace(0, end, 150), np.linspace(0, 20, 150), np.abs(found.Lambda.imag)])
    value, at = found.transfer_error()
    assert distance_from_hippo(A + found.E, B, omega).max() <= 1.01 * value and value <= 0.1 and 0 <= at <= end
    assert distance_from_hippo(A + found.E, B, [at])[0] == pytest.approx(value, rel=1e-8)


@pytest.mark.parametrize(("n", "peak"), [(16, 80.97), (32, 325.43), (64, 1303.27), (128, 5214.67)])
def test_the_normal_part_is_far_from_hippo_at_a_spike(n, peak):
    A, B, P = hippo.legs(n)
    found = diagonalize(A, "normal")
    assert relative_error(A + found.E, A + P.T @ P) < 1e-12 and found.kappa == pytest.approx(1)
    assert relative_error(found.V * found.Lambda @ found.V.conj().T, A + found.E) < 1e-12
    near = np.linspace(peak - 0.5, peak + 0.5, 101)
    errors = distance_from_hippo(A + P.T @ P, B / 2, near)
    assert 0.61 < errors.max() < 0.66
    assert near[errors.argmax()] == pytest.approx(peak, rel=2e-4)
    value, at = found.transfer_error()
    assert value == pytest.approx(errors.max(), rel=1e-3) and at == pytest.approx(peak, rel=1e-5, abs=0.005)
    assert distance_from_hippo(A + P.T @ P, B / 2, np.linspace(0, 1.3 * n**2 / np.pi, 50)).max() <= value


def test_the_frequency_response_is_that_of_a_linear_solve():
    rng = np.random.default_rng(0)
    for A in (hippo.legs(7)[0], rng.normal(size=(5, 5)), -np.eye(1)):
        B, C, omega = rng.normal(size=len(A)), rng.normal(size=len(A)), np.array([0.0, 0.3, 20.0])
        expected = [C @ np.linalg.solve(1j * w * np.eye(len(A)) - A, B) for w in omega]
        np.testing.assert_allclose(methods.frequency_response(A, B, C, omega), expected, rtol=1e-11)
    A, B, C = measures.legt(6)[0], *rng.normal(size=(2, 6))
    found = diagonalize(A, "ptd-conjugate", 20.0)
    expected = [C @ np.linalg.solve(1j * w * np.eye(6) - A - found.E, B) for w in omega]
    assert relative_error(found.response(B, C, omega), expected) < 1e-12
    value, at = found.transfer_error(B, C)
    apart = found.response(B, C, np.array([at])) - methods.frequency_response(A, B, C, np.array([at]))
    assert value == pytest.approx(abs(apart[0]), rel=1e-9)


@pytest.mark.parametrize("method", ["random", "dense"])
def test_a_seed_is_a_random_start(method):
    A = hippo.legs(6)[0]
    first, again, other = (
        methods.random(A, 0.1, seed) if method == "random" else methods.dense(A, seed=seed) for seed in (0, 0, 1)
    )
    assert all(np.array_equal(getattr(first, name), getattr(again, name)) for name in ("Lambda", "V", "E"))
    assert relative_error(other.E, first.E) > 1e-3
    for found in (first, other):
        assert np.iscomplexobj(found.E) == (method == "dense")
        assert relative_error(found.V @ np.diag(found.Lambda) @ np.linalg.inv(found.V), A + found.E) < 1e-12


@pytest.mark.slow
def test_bounds_are_met():
    A = hippo.legs(8)[0]
    assert 0.98 * 4.0 <= diagonalize(A, "dense", 4.0).kappa <= 4.0
    found = diagonalize(A, "random", 0.3)
    assert np.linalg.norm(found.E) / np.linalg.norm(A, 2) == pytest.approx(0.3)
    with pytest.raises(Unreachable, match=r"kappa\(V\) <= 0.9 was found"):
        diagonalize(A, "dense", 0.9)


def test_the_dense_objective_and_its_gradient():
    rng = np.random.default_rng(0)
    A, E = hippo.legs(6)[0], rng.normal(size=(6, 6)) + 1j * rng.normal(size=(6, 6))
    objective = methods.DenseObjective(A)
    x = objective.vector(E)
    assert x.shape == (72 + 6,)
    x[-6:] += rng.normal(size=6) / 3
    (kappa, norm, barrier), slopes = objective.terms(x)
    Lambda, V = np.linalg.eig(A + E)
    s = np.linalg.svd(V[:, np.argsort(Lambda.imag)] * np.exp(x[-6:]), compute_uv=False)
    q = SMOOTHING
    assert kappa == pytest.approx(np.sum(s**q) ** (1 / q) * np.sum(s**-q) ** (1 / q), rel=1e-9)
    assert norm == pytest.approx(np.linalg.norm(E) / np.linalg.norm(A, 2), rel=1e-12)
    assert barrier == 0 and BARRIER > 0
    h = 1e-6
    moved = [(objective.terms(x + h * e)[0] - objective.terms(x - h * e)[0]) / (2 * h) for e in np.eye(len(x))]
    for slope, expected in zip(slopes, np.array(moved).T, strict=True):
        assert relative_error(slope, expected) < 1e-6
