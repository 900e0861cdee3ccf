"""Perturb-then-diagonalize: its table and its optimiser."""

import functools
import itertools
import os
import pathlib
import subprocess
import sys

import jaxtyping
import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
from dense import exponential
from everyday import variants
from numerics import relative_error

from s5jax.ssm import hippo, measures, perturbation, ptd

ROOT = pathlib.Path(__file__).parents[2]
SHIPPED = (2, 4, 8, 16, 32, 64, 128)


@functools.cache
def perturbed(n, **options):
    """HiPPO-LegS perturbed."""
    return ptd.perturb_then_diagonalize(hippo.legs(n)[0], **options)


def identical(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def size(result, order="fro"):
    return np.linalg.norm(result.E, order) / np.linalg.norm(result.A, 2)


def check_decomposition(A, result, tolerance=1e-12):
    Lambda, V, E = result
    half = len(A) // 2
    assert E.dtype == np.float64 and Lambda.dtype == V.dtype == np.complex128
    assert relative_error(V @ np.diag(Lambda) @ np.linalg.inv(V), A + E) < tolerance
    assert (Lambda[:half].imag < 0).all()
    np.testing.assert_array_equal(Lambda[half:], Lambda[:half].conj())
    np.testing.assert_array_equal(V[:, half:], V[:, :half].conj())
    assert np.linalg.norm(V) ** 2 == pytest.approx(len(A))
    first = V[np.argmax(np.abs(V) > 1e-6 * np.abs(V).max(0), axis=0), range(len(A))]
    np.testing.assert_allclose(first, np.abs(first), atol=1e-14)
    assert result.kappa == pytest.approx(np.linalg.cond(V)) and result.max_real == Lambda.real.max()
    assert result.norm == pytest.approx(size(result, 2))


def distance_from_hippo(M, B, omega):
    """|G - G_A| for the first state, whose equation in HiPPO-LegS is x' = -x + u."""
    return np.array([abs(np.linalg.solve(1j * w * np.eye(len(M)) - M, B)[0] - 1 / (1 + 1j * w)) for w in omega])


# --- HiPPO-LegS ---


@pytest.mark.parametrize(
    ("n", "kappa", "norm"),
    [
        (8, 5.1, 0.098),
        (16, 6.6, 0.051),
        (32, 8.3, 0.038),
        (64, 9.2, 0.034),
        (128, 9.2, 0.034),
    ],
)
def test_a_small_perturbation_makes_hippo_well_conditioned_and_stays_close_to_it(n, kappa, norm):
    A, B, _ = hippo.legs(n)
    result = perturbed(n)
    check_decomposition(A, result)
    assert np.linalg.cond(result.V) <= kappa and size(result, 2) <= norm
    assert np.linalg.matrix_rank(result.E) == 1
    poles = np.linalg.eigvals(A + result.E)
    assert poles.real.max() <= -0.25 and (poles.imag != 0).all()

    omega = np.concatenate([np.linspace(0, 1.3 * n**2 / np.pi, 150), np.linspace(0, 20, 150), np.abs(poles.imag)])
    assert distance_from_hippo(A + result.E, B, omega).max() <= 0.1


@pytest.mark.parametrize(
    "n", [2, 4, 8, 16, 32, pytest.param(64, marks=pytest.mark.slow), pytest.param(128, marks=pytest.mark.slow)]
)
def test_the_table_holds_what_the_optimiser_finds(n):
    A = hippo.legs(n)[0]
    Lambda, V, E = perturbation.optimize(A, "kappa", ptd.default_kappa(n), ptd.MAX_REAL)
    result = perturbed(n)
    assert relative_error(result.E, E) < 1e-9 and relative_error(result.Lambda, Lambda) < 1e-9
    norms = [np.linalg.norm(x, axis=0) / np.linalg.norm(x) for x in (result.V, V)]
    assert relative_error(*norms) < 1e-8


def test_the_table_is_small_and_needs_no_optimiser():
    with np.load(ptd.TABLE) as table:
        assert tuple(map(int, table)) == SHIPPED
    assert ptd.TABLE.stat().st_size < 20_000
    code = f"""if True:
        import sys
        from s5jax.ssm import ptd
        for n in {SHIPPED}:
            ptd.perturbed_legs(n)
        assert not {{"s5jax.ssm.perturbation", "scipy.optimize"}} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_given_default_is_the_default():
    for options in ({"kappa": ptd.default_kappa(8)}, {"kappa": 4.5, "max_real": -0.25}):
        assert identical(perturbed(8), perturbed(8, **options))


def test_another_size_is_computed():
    A = hippo.legs(12)[0]
    result = perturbed(12)
    check_decomposition(A, result)
    assert 0.99 * 5.4 <= result.kappa <= 5.4 and result.norm < perturbed(8).norm
    assert ptd.perturbed_legs(12) is ptd.perturbed_legs(12) and identical(ptd.perturbed_legs(12), result)


@pytest.mark.parametrize("n", [8, 16, 32])
def test_half_of_the_modes_carry_the_impulse_response(n):
    A, B, _ = hippo.legs(n)
    result, C = perturbed(n), np.random.default_rng(n).normal(size=n)
    Lambda, V, inverse = result.halves()
    assert V.shape == (n, n // 2) and inverse.shape == (n // 2, n)
    for t in (0.0, 0.01, 0.1, 1.0):
        expected = C @ exponential(t * (A + result.E)) @ B
        whole = np.sum((C @ result.V) * np.exp(t * result.Lambda) * np.linalg.solve(result.V, B.astype(complex)))
        halves = 2 * np.sum((C @ V) * np.exp(t * Lambda) * (inverse @ B)).real
        assert whole == pytest.approx(expected, rel=1e-9) and halves == pytest.approx(expected, rel=1e-9)


# --- the optimisation ---


def starts():
    rng = np.random.default_rng(0)
    A, _, P = hippo.legs(6)
    share = 0.3 * P.T @ P
    return {
        "rank 1": (A, share),
        "rank 3": (A, share + 0.1 * rng.normal(size=(6, 2)) @ rng.normal(size=(2, 6))),
    }


@pytest.mark.parametrize("case", starts())
def test_the_objective_and_its_gradient(case):
    A, E = starts()[case]
    objective = perturbation.Objective(A, -0.25)
    x = objective.vector(E)
    assert x.shape == ({"rank 1": 12, "rank 3": 36}[case] + 3,)
    x[-3:] += np.random.default_rng(1).normal(size=3) / 3
    (kappa, norm, barrier), slopes = objective.terms(x)

    Lambda, V = np.linalg.eig(A + E)
    order = np.argsort(Lambda.imag)
    Lambda, V = Lambda[order], V[:, order]
    s = np.linalg.svd(V * np.exp(np.r_[x[-3:], x[-3:][::-1]]), compute_uv=False)
    q = perturbation.SMOOTHING
    assert kappa == pytest.approx(np.sum(s**q) ** (1 / q) * np.sum(s**-q) ** (1 / q), rel=1e-9)
    assert norm == pytest.approx(np.linalg.norm(E) / np.linalg.norm(A, 2), rel=1e-12)
    unit = np.linalg.norm(A, 2)
    logs = np.log((-0.25 - Lambda.real) / unit) + np.log(np.abs(Lambda.imag) / unit)
    assert barrier == pytest.approx(-perturbation.BARRIER * np.sum(logs), rel=1e-9)

    h = 1e-6
    moved = [(objective.terms(x + h * e)[0] - objective.terms(x - h * e)[0]) / (2 * h) for e in np.eye(len(x))]
    for slope, expected in zip(slopes, np.array(moved).T, strict=True):
        assert relative_error(slope, expected) < 1e-6


@pytest.mark.parametrize(("n", "kappa"), [(4, 3.0), (8, 4.5), (8, 20.0)])
def test_another_optimiser_finds_no_smaller_perturbation(n, kappa):
    """Sequential quadratic programming with differences for gradients, from a random start near the normal part."""
    A, _, P = hippo.legs(n)
    result = perturbed(n, kappa=kappa)

    def condition(x):
        Lambda, V = np.linalg.eig(A + np.outer(x[:n], x[n : 2 * n]))
        half = V[:, np.argsort(Lambda.imag)[: n // 2]] * np.exp(np.append(x[2 * n :], 0))
        return np.linalg.cond(np.c_[half, half.conj()])

    start = np.concatenate([P[0] * 0.6, P[0], np.zeros(n // 2 - 1)])
    start[: 2 * n] += 0.1 * np.random.default_rng(0).normal(size=2 * n)
    found = scipy.optimize.minimize(
        lambda x: (np.linalg.norm(x[:n]) * np.linalg.norm(x[n : 2 * n])) ** 2,
        start,
        constraints={"type": "ineq", "fun": lambda x: kappa - condition(x)},
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-10},
    )
    assert found.success and condition(found.x) <= kappa * (1 + 1e-8)
    assert size(result) == pytest.approx(np.sqrt(found.fun) / np.linalg.norm(A, 2), rel=1e-6)
    assert relative_error(np.outer(found.x[:n], found.x[n : 2 * n]), result.E) < 1e-3


def test_other_starts_lead_to_the_same_perturbation(monkeypatch):
    A, _, P = hippo.legs(8)
    for share in (0.2, 0.6):
        monkeypatch.setattr(perturbation, "starts", lambda *_, share=share: [share * P.T @ P])
        _, _, E = perturbation.optimize(A, "kappa", 4.5, -0.25)
        assert relative_error(E, perturbed(8).E) < 1e-8


def test_what_is_normal_already_is_left_as_it_is():
    K = np.random.default_rng(0).normal(size=(6, 6))
    Lambda, V, E = ptd.perturb_then_diagonalize(K - K.T - np.eye(6))
    assert np.abs(E).max() < 1e-12 and np.linalg.cond(V) < 1 + 1e-9 and (np.abs(Lambda.real + 1) < 1e-9).all()


def test_two_equal_systems_side_by_side():
    A = scipy.linalg.block_diag(*2 * [hippo.legs(4)[0]])
    Lambda, V, E = ptd.perturb_then_diagonalize(A)
    assert relative_error(V * Lambda @ np.linalg.inv(V), A + E) < 1e-12 and np.linalg.cond(V) <= 9 * 8 / 16


@pytest.mark.slow
def test_a_wide_bound_is_used():
    """Whatever the bound, E is no larger than what a tighter one needs."""
    A = hippo.legs(8)[0]
    sizes = [ptd.perturb_then_diagonalize(A, kappa=kappa).norm for kappa in (1.3, 1.6, 3, 30, 1e3, 1e5)]
    assert (np.diff(sizes) < 0).all()
    kappas = [ptd.perturb_then_diagonalize(A, norm=norm).kappa for norm in (0.7, 0.3, 0.05, 1e-3, 5e-4)]
    assert (np.diff(kappas) > 0).all()


# --- the same result wherever it is computed ---

PROCESS = """
import sys
import numpy as np
from s5jax.ssm import hippo, ptd
n, kappa, file = sys.argv[1:]
np.savez(file, *ptd.perturb_then_diagonalize(hippo.legs(int(n))[0], kappa=float(kappa)))
"""


def run_processes(directory, n, kappa, environments):
    """Lambda, V and E, each computed by a process of its own, at the same time."""
    files = [directory / f"{i}.npz" for i in range(len(environments))]
    running = [
        subprocess.Popen([sys.executable, "-c", PROCESS, str(n), str(kappa), file], env=os.environ | more, cwd=ROOT)
        for file, more in zip(files, environments, strict=True)
    ]
    assert [process.wait(timeout=300) for process in running] == [0] * len(files)
    return [list(np.load(file).values()) for file in files]


@pytest.mark.slow
@pytest.mark.parametrize("kappa", [6.0, 5.0])
def test_results_are_the_same_on_any_machine(kappa, tmp_path):
    """From the table and from the optimiser: the same bits with two threads, 1e-11 with the kernels of another CPU."""
    one, two, other = run_processes(
        tmp_path,
        16,
        kappa,
        [
            {"OPENBLAS_NUM_THREADS": "1"},
            {"OPENBLAS_NUM_THREADS": "2"},
            {"OPENBLAS_NUM_THREADS": "1", "OPENBLAS_CORETYPE": "Prescott"},
        ],
    )
    assert identical(one, two) and identical(one, perturbed(16, kappa=kappa))
    for actual, expected in zip(other, one, strict=True):
        assert relative_error(actual, expected) < 1e-11


@pytest.mark.slow
@pytest.mark.parametrize(("kappa", "tolerance"), [(8.0, 1e-11), (7.0, 1e-9)])
def test_results_of_a_size_that_threads_share_do_not_depend_on_them(kappa, tolerance, tmp_path):
    """At n = 64 OpenBLAS gives other bits with two threads."""
    one, two = run_processes(tmp_path, 64, kappa, [{"OPENBLAS_NUM_THREADS": count} for count in "12"])
    for actual, expected in zip(two, one, strict=True):
        assert relative_error(actual, expected) < tolerance


# --- bounds ---


@variants([8], n=[8, 16])
def test_bounds_are_met_and_made_use_of(n):
    by_kappa = {kappa: perturbed(n, kappa=kappa) for kappa in (2.5, 6.0, 30.0)}
    for kappa, result in by_kappa.items():
        assert 0.99 * kappa <= np.linalg.cond(result.V) <= kappa
    by_norm = {norm: perturbed(n, norm=norm) for norm in (0.01, 0.05, 0.2)}
    for norm, result in by_norm.items():
        assert 0.99 * norm <= size(result) <= norm and size(result, 2) <= norm
    by_gamma = {gamma: perturbed(n, gamma=gamma) for gamma in (10.0, 100.0, 1000.0)}
    everything = [*by_kappa.values(), *by_norm.values(), *by_gamma.values()]
    for gamma, result in by_gamma.items():
        best = min(np.linalg.cond(other.V) + gamma * size(other) for other in everything)
        assert np.linalg.cond(result.V) + gamma * size(result) <= best * (1 + 1e-3)
    trade = sorted((np.linalg.cond(result.V), size(result)) for result in everything)
    assert all(first[1] > second[1] for first, second in itertools.pairwise(trade))


def test_a_bound_of_one_gives_a_normal_matrix():
    M = hippo.legs(8)[0] + perturbed(8, kappa=1.0).E
    assert relative_error(M @ M.T, M.T @ M) < 1e-6


def test_a_bound_out_of_reach_is_an_error():
    with pytest.raises(perturbation.Unreachable, match=r"<= 0.1: the least reached is \d\.\d+") as raised:
        ptd.perturb_then_diagonalize(other_matrices()["unstable"], norm=0.1)
    assert isinstance(raised.value, ValueError)


# --- other matrices ---


def other_matrices():
    K = np.random.default_rng(3).normal(size=(2, 8, 8))
    return {
        "translated Legendre": measures.legt(8)[0],
        "Fourier": measures.fout(8)[0],
        "stable": K[0] - (np.linalg.eigvals(K[0]).real.max() + 1) * np.eye(8),
        "real eigenvalues": -np.diag(np.arange(1.0, 9.0)),
        "Jordan block": np.diag(np.ones(7), 1) - np.eye(8),
        "antisymmetric": K[1] - K[1].T,
        "unstable": K[0],
    }


@variants([name for name in other_matrices() if name != "real eigenvalues"], name=other_matrices())
def test_any_matrix(name):
    A = other_matrices()[name]
    result = ptd.perturb_then_diagonalize(A)
    check_decomposition(A, result)
    assert np.linalg.cond(result.V) <= 4.5 and np.linalg.eigvals(A + result.E).real.max() < -0.25


def test_a_slow_hippo_is_hippo_scaled():
    A = 1e-3 * hippo.legs(8)[0]
    result = ptd.perturb_then_diagonalize(A, max_real=-1e-4)
    check_decomposition(A, result)
    assert np.linalg.cond(result.V) <= 4.5 and result.max_real < -1e-4
    assert relative_error(result.E, 1e-3 * perturbed(8).E) < 1e-3


def test_max_real_keeps_eigenvalues_away_from_the_axis():
    assert perturbed(8).max_real > -2
    result = perturbed(8, max_real=-2.0)
    check_decomposition(hippo.legs(8)[0], result)
    assert np.linalg.eigvals(result.A + result.E).real.max() < -2 and np.linalg.cond(result.V) <= 4.5


# --- wrong arguments ---


@pytest.fixture
def unchecked():
    """Annotations are not checked, as in users' programs."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("A", "options", "message"),
    [
        (np.ones((2, 3)), {}, r"square matrix, got shape \(2, 3\)"),
        (np.ones(4), {}, r"square matrix, got shape \(4,\)"),
        (np.zeros((0, 0)), {}, "square matrix"),
        (np.diag([1.0, np.nan]), {}, "finite, got 1 entries"),
        (np.diag([1.0, -np.inf]), {}, "finite"),
        (1j * np.eye(2), {}, "real, got complex128"),
        (np.array([["a", "b"], ["c", "d"]]), {}, "real, got <U1"),
        (np.zeros((2, 2)), {}, "must not be zero"),
        (hippo.legs(3)[0], {}, "even.* A is 3 x 3"),
        (np.eye(2), {"kappa": 3, "norm": 0.1}, "at most one .* got kappa and norm"),
        (np.eye(2), {"kappa": 0.9}, "kappa must be at least 1, .* got 0.9"),
        (np.eye(2), {"kappa": -3}, "kappa must be a positive number, got -3"),
        (np.eye(2), {"norm": 0}, "norm must be a positive number, got 0"),
        (np.eye(2), {"gamma": np.nan}, "gamma must be a positive number, got nan"),
        (np.eye(2), {"max_real": np.inf}, "max_real must be a number, got inf"),
    ],
)
def test_wrong_arguments_are_named(A, options, message):
    with pytest.raises(ValueError, match=message):
        ptd.perturb_then_diagonalize(A, **options)
