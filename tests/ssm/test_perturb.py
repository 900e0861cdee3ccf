"""Perturb-then-diagonalize: what it promises of V and E, on any machine; its cache; the layers that start from it."""

import itertools
import os
import pathlib
import re
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import threadpoolctl
from dense import exponential
from numerics import relative_error

from s5jax.mixers import s4d, s5
from s5jax.ssm import diagonal, hippo, measures, perturbation, ptd

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = pathlib.Path(__file__).parents[2]
PARTS = ("Lambda", "V", "E")


@pytest.fixture(scope="module")
def one_thread():
    """Threads wait for each other where other processes run, and have nothing to gain."""
    with threadpoolctl.threadpool_limits(1, "blas"):
        yield


def perturbed(n, **options):
    """Of HiPPO-LegS; what the suite has once computed is read from its cache."""
    return ptd.perturb_then_diagonalize(hippo.legs(n)[0], **options)


def identical(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def initial(layer, options, H=3):
    """Initial parameters in NumPy, complex ones as such, of a key that is always the same."""
    params = {name: np.asarray(x) for name, x in layer.init(jax.random.key(0), H, options).items()}
    return {name: x @ [1, 1j] if name[0] in "BC" else x for name, x in params.items()}


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


# --- what is promised of HiPPO-LegS ---


@pytest.mark.parametrize(
    ("n", "kappa", "norm"),
    [
        (8, 5.1, 0.098),
        (16, 6.6, 0.051),
        (32, 8.3, 0.038),
        (64, 9.2, 0.034),
        pytest.param(128, 9.2, 0.034, marks=pytest.mark.slow),
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

    end = 1.3 * n**2 / np.pi
    omega = np.concatenate([np.linspace(0, end, 150), np.linspace(0, 20, 150), np.abs(poles.imag)])
    error = distance_from_hippo(A + result.E, B, omega).max()
    value, at = result.transfer_error()
    assert error <= 1.01 * value and value <= 0.1 and 0 <= at <= end
    assert distance_from_hippo(A + result.E, B, [at])[0] == pytest.approx(value, rel=1e-8)


@pytest.mark.parametrize(("n", "peak"), [(16, 80.97), (32, 325.43), (64, 1303.27), (128, 5214.67)])
def test_the_normal_part_is_far_from_hippo_at_a_spike(n, peak):
    A, B, P = hippo.legs(n)
    result = perturbed(n, method="normal")
    check_decomposition(A, result)
    assert relative_error(A + result.E, A + P.T @ P) < 1e-12 and result.kappa == pytest.approx(1)
    near = np.linspace(peak - 0.5, peak + 0.5, 101)
    errors = distance_from_hippo(A + P.T @ P, B / 2, near)
    assert 0.61 < errors.max() < 0.66
    assert near[errors.argmax()] == pytest.approx(peak, rel=2e-4)
    value, at = result.transfer_error()
    assert value == pytest.approx(errors.max(), rel=1e-3) and at == pytest.approx(peak, rel=1e-5, abs=0.005)
    assert distance_from_hippo(A + P.T @ P, B / 2, np.linspace(0, 1.3 * n**2 / np.pi, 50)).max() <= value


def test_the_frequency_response_is_that_of_a_linear_solve():
    A, B, C = measures.legt(6)[0], *np.random.default_rng(0).normal(size=(2, 6))
    omega = np.array([0.0, 0.3, 5.0])
    expected = [C @ np.linalg.solve(1j * w * np.eye(6) - A, B) for w in omega]
    assert relative_error(ptd.frequency_response(A, B, C, omega), expected) < 1e-12
    result = ptd.perturb_then_diagonalize(A, kappa=20.0)
    expected = [C @ np.linalg.solve(1j * w * np.eye(6) - A - result.E, B) for w in omega]
    assert relative_error(result.response(B, C, omega), expected) < 1e-12
    value, at = result.transfer_error(B, C)
    apart = result.response(B, C, np.array([at])) - ptd.frequency_response(A, B, C, np.array([at]))
    assert value == pytest.approx(abs(apart[0]), rel=1e-9)


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


# --- the layers ---


def test_s5_ptd_is_s5_in_other_coordinates():
    """Of the same key, both draw the same B and C, which they take to their eigenbases."""
    n, J = 8, 2
    A, _, P = hippo.legs(n)
    result, drawn = perturbed(n), []
    for name, V in (("normal", diagonal.normal_part(A, P)[1]), ("ptd-conjugate", result.V)):
        params = initial(s5, s5.Options(state_size=n * J, blocks=J, init=name, conj_sym=False))
        basis = np.kron(np.eye(J), V)
        drawn.append((basis @ params["B"], params["C"] @ np.linalg.inv(basis)))
    for expected, actual in zip(*drawn, strict=True):
        assert relative_error(actual, expected) < 1e-5
    assert np.abs(drawn[1][0].imag).max() < 1e-5
    np.testing.assert_allclose(params["Lambda_re"] + 1j * params["Lambda_im"], np.tile(result.Lambda, J), rtol=1e-6)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_s5_ptd_has_the_parameters_of_s5(bidirectional):
    options = {"state_size": 16, "blocks": 2, "bidirectional": bidirectional}
    normal, ptd = (initial(s5, s5.Options(init=name, **options)) for name in ("normal", "ptd-conjugate"))
    assert jax.tree.map(np.shape, ptd) == jax.tree.map(np.shape, normal)
    Lambda = perturbed(8).halves()[0]
    np.testing.assert_allclose(ptd["Lambda_re"] + 1j * ptd["Lambda_im"], np.tile(Lambda, 2), rtol=1e-6)


def test_s5_ptd_has_the_same_outputs_with_all_modes_as_with_half_of_them():
    J, H = 2, 3
    half, full = (
        s5.Options(state_size=8 * J, blocks=J, init="ptd-conjugate", conj_sym=conj_sym) for conj_sym in (True, False)
    )
    params, start = (s5.init(jax.random.key(0), H, options) for options in (half, full))

    def both(name, axis=0, sign=(1, 1)):
        """Of each block the modes that are stored, and then their conjugates."""
        blocks = np.split(np.asarray(params[name]), J, axis)
        return jnp.asarray(np.concatenate([y for block in blocks for y in (block, np.float32(sign) * block)], axis))

    carried = {
        "Lambda_re": both("Lambda_re", sign=1),
        "Lambda_im": both("Lambda_im", sign=-1),
        "B": both("B", sign=(1, -1)),
        "C": both("C", 1, sign=(1, -1)),
        "D": params["D"],
        "log_step": both("log_step", sign=1),
    }
    for name in ("Lambda_re", "Lambda_im", "B"):
        np.testing.assert_allclose(carried[name], start[name], atol=1e-6)
    u = jnp.asarray(np.random.default_rng(0).normal(size=(1, 50, H)), jnp.float32)
    apply = jax.jit(s5.apply, static_argnums=2)
    assert relative_error(apply(carried, u, full)[0], apply(params, u, half)[0]) < 1e-5


@pytest.mark.parametrize("kappa", [0.0, 20.0])
def test_the_kernel_of_s4_ptd_is_that_of_the_dense_system(kappa):
    n, H, L = 16, 4, 100
    A, B, _ = hippo.legs(n)
    options = s4d.Options(state_size=n, init="ptd-conjugate", ptd_kappa=kappa)
    result, params = perturbed(n, kappa=kappa or None), initial(s4d, options, H)
    V = result.V[:, : n // 2]
    C = np.linalg.solve(np.c_[V.real, V.imag].T, np.c_[params["C"].real, params["C"].imag].T).T
    assert C.std() == pytest.approx(1, rel=0.2)
    K = jax.jit(s4d.kernel, static_argnums=(1, 2))(s4d.init(jax.random.key(0), H, options), L, options)[0]
    for h, Delta in enumerate(np.exp(params["log_step"].astype(np.float64))[:, 0]):
        M = exponential(Delta * np.r_[np.c_[A + result.E, B], np.zeros((1, n + 1))])
        state, expected = M[:n, n], []
        for _ in range(L):
            expected.append(C[h] @ state)
            state = M[:n, :n] @ state
        assert relative_error(K[h], expected) < 1e-5


def test_s4_ptd_is_the_same_with_a_b_that_does_not_train():
    kept, fixed = (s4d.Options(state_size=8, init="ptd-conjugate", B_trained=trained) for trained in (True, False))
    params, less = (s4d.init(jax.random.key(0), 3, options) for options in (kept, fixed))
    assert params.keys() - less.keys() == {"B"}
    B = 2 * (initial(s4d, kept)["B"] @ perturbed(8).V[:, :4].T).real
    np.testing.assert_allclose(B, np.tile(hippo.legs(8)[1], (3, 1)), rtol=1e-5)
    kernel = jax.jit(s4d.kernel, static_argnums=(1, 2))
    assert relative_error(kernel(less, 20, fixed), kernel(params, 20, kept)) < 1e-6


# --- the optimisation ---


def starts():
    rng = np.random.default_rng(0)
    A, _, P = hippo.legs(6)
    share = 0.3 * P.T @ P
    return {
        "rank 1": (A, share),
        "rank 3": (A, share + 0.1 * rng.normal(size=(6, 2)) @ rng.normal(size=(2, 6))),
        "complex": (A, rng.normal(size=(6, 6)) + 1j * rng.normal(size=(6, 6))),
    }


@pytest.mark.parametrize("case", starts())
def test_the_objective_and_its_gradient(case):
    A, E = starts()[case]
    conjugate = np.isrealobj(E)
    objective = perturbation.Objective(A, conjugate, -0.25)
    x = objective.vector(E)
    scales = 3 if conjugate else 6
    assert x.shape == ({"rank 1": 12, "rank 3": 36, "complex": 72}[case] + scales,)
    x[-scales:] += np.random.default_rng(1).normal(size=scales) / 3
    (kappa, norm, barrier), slopes = objective.terms(x)

    Lambda, V = np.linalg.eig(A + E)
    order = np.argsort(Lambda.imag)
    Lambda, V = Lambda[order], V[:, order]
    s = np.linalg.svd(V * np.exp(np.r_[x[-3:], x[-3:][::-1]] if conjugate else x[-6:]), compute_uv=False)
    q = perturbation.SMOOTHING
    assert kappa == pytest.approx(np.sum(s**q) ** (1 / q) * np.sum(s**-q) ** (1 / q), rel=1e-9)
    assert norm == pytest.approx(np.linalg.norm(E) / np.linalg.norm(A, 2), rel=1e-12)
    unit = np.linalg.norm(A, 2)
    logs = np.log((-0.25 - Lambda.real) / unit) + np.log(np.abs(Lambda.imag) / unit) if conjugate else 0
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


def test_other_starts_lead_to_the_same_perturbation():
    A, _, P = hippo.legs(8)
    for share in (0.2, 0.6):
        _, E = perturbation.optimize(
            A, [share * P.T @ P], conjugate=True, max_real=-0.25, term=perturbation.KAPPA, limit=4.5
        )
        assert relative_error(E, perturbed(8).E) < 1e-8


def test_what_is_normal_already_is_left_as_it_is():
    K = np.random.default_rng(0).normal(size=(6, 6))
    for method in ("ptd-conjugate", "normal"):
        Lambda, V, E = ptd.perturb_then_diagonalize(K - K.T - np.eye(6), method=method)
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
import pathlib, sys, time
from s5jax.ssm import hippo, ptd
n, own, *shared = sys.argv[1:]
for directory in shared:
    pathlib.Path(own).with_suffix(".ready").touch()
    while len(list(pathlib.Path(own).parent.glob("*.ready"))) < 2:
        time.sleep(0.001)
for directory in (*shared, own):
    ptd.perturb_then_diagonalize(hippo.legs(int(n))[0], cache=directory)
"""


def stored(directory):
    (file,) = directory.iterdir()
    with np.load(file) as content:
        return [content[name] for name in PARTS]


def run_processes(n, directories, environments):
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PROCESS, str(n), *map(str, where)],
            env={**os.environ, **environment},
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for where, environment in zip(directories, environments, strict=True)
    ]
    for process in running:
        errors = process.communicate(timeout=300)[1]
        assert process.returncode == 0, errors


together = pytest.mark.xdist_group("perturb processes")  # on one worker, that they run once


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """Results of three at once: two meet in one empty directory, with 1 and 2 threads; another takes other kernels."""
    root = tmp_path_factory.mktemp("processes")
    one, two, other, shared = (root / name for name in ("one", "two", "other", "shared"))
    run_processes(
        16,
        [(one, shared), (two, shared), (other,)],
        [
            {"OPENBLAS_NUM_THREADS": "1"},
            {"OPENBLAS_NUM_THREADS": "2"},
            {"OPENBLAS_NUM_THREADS": "1", "OPENBLAS_CORETYPE": "Prescott"},
        ],
    )
    return types.SimpleNamespace(one=stored(one), two=stored(two), other=stored(other), shared=shared)


@together
def test_results_do_not_depend_on_the_process_or_its_threads(processes, tmp_path):
    here = perturbed(16, cache=tmp_path)
    assert identical(here, perturbed(16, cache=tmp_path / "again"))
    assert identical(here, processes.one) and identical(here, processes.two)


@together
def test_results_are_the_same_on_another_processor(processes):
    for actual, expected in zip(processes.other, processes.one, strict=True):
        assert relative_error(actual, expected) < 1e-11


@together
def test_two_processes_share_a_directory(processes):
    assert [file.suffix for file in processes.shared.iterdir()] == [".npz"]
    assert identical(stored(processes.shared), processes.one)


@pytest.mark.slow
def test_results_of_a_size_that_threads_share_do_not_depend_on_them(tmp_path):
    """At n = 64 OpenBLAS gives other bits with two threads."""
    names = ("1", "2")
    run_processes(64, [(tmp_path / name,) for name in names], [{"OPENBLAS_NUM_THREADS": name} for name in names])
    assert identical(*(stored(tmp_path / name) for name in names))


def test_one_thread_computes_and_the_others_come_back(tmp_path, monkeypatch):
    def threads():
        return {pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"}

    seen, optimize = [], perturbation.optimize
    monkeypatch.setattr(perturbation, "optimize", lambda *a, **k: seen.append(threads()) or optimize(*a, **k))
    with threadpoolctl.threadpool_limits(2, "blas"):
        perturbed(4, cache=tmp_path)
        assert seen == [{1}] and threads() == {2}


@pytest.mark.parametrize("method", ["random", "ptd"])
def test_a_seed_is_a_random_start(method, tmp_path):
    first, again, other = (
        perturbed(6, method=method, seed=seed, cache=tmp_path / str(i)) for i, seed in enumerate((0, 0, 1))
    )
    assert identical(first, again)
    assert relative_error(other.E, first.E) > 1e-3
    for result in (first, other):
        assert np.iscomplexobj(result.E) == (method == "ptd")
        assert relative_error(result.V @ np.diag(result.Lambda) @ np.linalg.inv(result.V), result.A + result.E) < 1e-12


# --- the cache ---


@pytest.fixture
def no_optimiser(monkeypatch):
    def refuse():
        def fail(*_, **__):
            raise AssertionError("computed again")

        monkeypatch.setattr(perturbation, "optimize", fail)

    return refuse


def test_a_result_is_read_the_second_time(tmp_path, no_optimiser):
    first = perturbed(8, cache=tmp_path / "new" / "directory")
    (file,) = (tmp_path / "new" / "directory").iterdir()
    before = file.stat()
    no_optimiser()
    assert identical(first, perturbed(8, cache=str(tmp_path / "new" / "directory")))
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    with pytest.raises(AssertionError, match="computed again"):
        perturbed(8, cache=tmp_path / "other")


DAMAGE = {
    "empty": lambda file: file.write_bytes(b""),
    "truncated": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "shortened": lambda file: file.write_bytes(file.read_bytes()[:-30]),
    "a bit turned": lambda file: file.write_bytes(file.read_bytes()[:600] + b"\xff" + file.read_bytes()[601:]),
    "garbage": lambda file: file.write_bytes(b"nothing that NumPy has written\n" * 40),
    "of another size": lambda file: np.savez(file, **dict(zip(PARTS, perturbed(4), strict=True))),
    "of other names": lambda file: np.savez(file, A=np.eye(8)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_replaced(damage, tmp_path, no_optimiser):
    expected = perturbed(8, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    DAMAGE[damage](file)
    assert identical(expected, perturbed(8, cache=tmp_path))
    assert list(tmp_path.iterdir()) == [file] and identical(expected, stored(tmp_path))
    no_optimiser()
    assert identical(expected, perturbed(8, cache=tmp_path))


def test_a_directory_that_cannot_be_written_to_is_told_of(tmp_path):
    (tmp_path / "file").touch()
    for directory in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.warns(UserWarning, match=re.escape(f"{directory} cannot be written to")):
            result = perturbed(8, cache=directory)
        assert identical(result, perturbed(8))


def test_other_arguments_have_other_files(tmp_path):
    arguments = [
        {},
        {"kappa": 10.0},
        {"gamma": 10.0},
        {"norm": 0.1},
        {"max_real": -0.3},
        {"seed": 1},
        {"method": "random"},
        {"method": "random", "seed": 1},
    ]
    for count, options in enumerate(arguments, 1):
        perturbed(4, cache=tmp_path, **options)
        perturbed(4, cache=tmp_path, **options)
        assert len(list(tmp_path.iterdir())) == count
    ptd.perturb_then_diagonalize(1.01 * hippo.legs(4)[0], cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == len(arguments) + 1
    perturbed(4, cache=tmp_path, kappa=9 * 4 / 12)  # the default
    assert len(list(tmp_path.iterdir())) == len(arguments) + 1


def test_the_directory_by_default(tmp_path, monkeypatch):
    for name, directory in [
        ("HOME", tmp_path / "home" / ".cache" / "s5jax"),
        ("XDG_CACHE_HOME", tmp_path / "xdg" / "s5jax"),
        ("S5JAX_CACHE_DIR", tmp_path / "own"),
    ]:
        monkeypatch.delenv("S5JAX_CACHE_DIR", raising=False)
        if name == "HOME":
            monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setenv(name, str(tmp_path / directory.relative_to(tmp_path).parts[0]))
        perturbed(2)
        assert len(list(directory.iterdir())) == 1


# --- bounds ---


def test_bounds_are_met_and_made_use_of():
    by_kappa = {kappa: perturbed(16, kappa=kappa) for kappa in (2.5, 6.0, 30.0)}
    for kappa, result in by_kappa.items():
        assert 0.99 * kappa <= np.linalg.cond(result.V) <= kappa
    by_norm = {norm: perturbed(16, norm=norm) for norm in (0.01, 0.05, 0.2)}
    for norm, result in by_norm.items():
        assert 0.99 * norm <= size(result) <= norm and size(result, 2) <= norm
    by_gamma = {gamma: perturbed(16, gamma=gamma) for gamma in (10.0, 100.0, 1000.0)}
    everything = [*by_kappa.values(), *by_norm.values(), *by_gamma.values()]
    for gamma, result in by_gamma.items():
        best = min(np.linalg.cond(other.V) + gamma * size(other) for other in everything)
        assert np.linalg.cond(result.V) + gamma * size(result) <= best * (1 + 1e-3)
    trade = sorted((np.linalg.cond(result.V), size(result)) for result in everything)
    assert all(first[1] > second[1] for first, second in itertools.pairwise(trade))


def test_a_bound_of_one_gives_a_normal_matrix():
    M = hippo.legs(8)[0] + perturbed(8, kappa=1.0).E
    assert relative_error(M @ M.T, M.T @ M) < 1e-6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kappa": 0.9}, r"kappa\(V\) <= 0.9 cannot be"),
        ({"method": "random", "kappa": 2.0}, r"kappa\(V\) <= 2: the least reached is \d+\.\d+"),
        ({"method": "ptd", "kappa": 0.9}, "0.9"),
    ],
)
def test_a_bound_out_of_reach_is_said(options, message, tmp_path):
    with pytest.raises(perturbation.Unreachable, match=message) as raised:
        perturbed(8, cache=tmp_path, **options)
    assert isinstance(raised.value, ValueError) and not list(tmp_path.iterdir())


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


@pytest.mark.parametrize("name", other_matrices())
def test_any_matrix(name, tmp_path):
    A = other_matrices()[name]
    result = ptd.perturb_then_diagonalize(A, cache=tmp_path)
    check_decomposition(A, result)
    assert np.linalg.cond(result.V) <= 4.5 and np.linalg.eigvals(A + result.E).real.max() < -0.25


def test_a_slow_hippo_is_hippo_scaled(tmp_path):
    A = 1e-3 * hippo.legs(8)[0]
    result = ptd.perturb_then_diagonalize(A, max_real=-1e-4, cache=tmp_path)
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
    """Arguments as they come where nobody checks annotations."""
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
        (np.diag([1.0, -np.inf]), {"method": "normal"}, "finite"),
        (1j * np.eye(2), {}, "real, got complex128"),
        (np.array([["a", "b"], ["c", "d"]]), {}, "real, got <U1"),
        (np.zeros((2, 2)), {"method": "random"}, "must not be zero"),
        (hippo.legs(3)[0], {}, "even n.* A is 3 x 3"),
        (np.eye(2), {"kappa": 3, "norm": 0.1}, "at most one .* got kappa and norm"),
        (np.eye(2), {"method": "normal", "gamma": 1}, "normal takes none .* got gamma"),
        (np.eye(2), {"method": "best"}, "must be one of ptd-conjugate, ptd, random, normal; got 'best'"),
        (np.eye(2), {"kappa": -3}, "kappa must be a positive number, got -3"),
        (np.eye(2), {"norm": 0}, "norm must be a positive number, got 0"),
        (np.eye(2), {"gamma": np.nan}, "gamma must be a positive number, got nan"),
        (np.eye(2), {"max_real": np.inf}, "max_real must be a number, got inf"),
    ],
)
def test_wrong_arguments_are_named(A, options, message):
    with pytest.raises(ValueError, match=message):
        ptd.perturb_then_diagonalize(A, **options)


@pytest.mark.parametrize(
    ("layer", "options", "message"),
    [
        (s5, {"init": "ptd"}, "init ptd .* conj_sym must be False"),
        (s5, {"init": "random"}, "init random .* conj_sym must be False"),
        (s5, {"ptd_kappa": 6.0}, "ptd_kappa .* got 6"),
        (s5, {"init": "random", "conj_sym": False, "ptd_kappa": 6.0}, "ptd_kappa .* got 6"),
        (s5, {"init": "ptd-conjugate", "ptd_kappa": 0.5}, "ptd_kappa .* 1 or more, or 0; got 0.5"),
        (s4d, {"ptd_kappa": 6.0}, "ptd_kappa .* got 6"),
        (s4d, {"init": "ptd-conjugate", "ptd_kappa": 0.5}, "ptd_kappa .* 1 or more, or 0; got 0.5"),
    ],
)
def test_wrong_options_are_named(layer, options, message):
    with pytest.raises(ValueError, match=message):
        layer.Options(**options)


def test_modes_that_are_no_pairs_have_no_halves():
    for result in (perturbed(8, method="ptd"), perturbed(3, method="normal")):
        assert not result.paired
        with pytest.raises(ValueError, match=f"by {result.method} are not all conjugate pairs"):
            result.halves()


def test_the_report_has_the_figures():
    result = perturbed(8)
    report = result.report()
    for figure in ("ptd-conjugate, n = 8", f"{result.kappa:.2f}", f"{result.norm:.4f}", f"{result.max_real:.3f}"):
        assert figure in report
    assert f"{result.transfer_error()[0]:.4f}" in report
