"""What S4 has of its own. What it shares with S4D is in test_linear, what was published in test_recorded_s4."""

import functools

import dense
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everyday import variants
from numerics import relative_error

from s5jax.mixers import s4
from s5jax.ssm import measures

INITS = ("legs", "legt", "fout")
H, STATES = 2, 16


def initial(init="legs", features=H, **options):
    options = s4.Options(**{"state_size": STATES, "init": init, "rank": 2, **options})
    return dict(drawn(features, options)), options


@functools.cache
def drawn(features, options):
    return jax.tree.map(np.asarray, s4.init(jax.random.key(0), features, options))


@functools.cache
def kernel(options, length):
    return jax.jit(lambda params, rate: s4.kernel(params, length, options, rate=rate))


def dense_kernels(params, length, options, rescale=1.0):
    """C A_bar^l B_bar of each direction, (directions, H, length)."""
    system = dense.system(s4, params, options)
    A_bar, x = system.discrete(rescale)
    K = []
    for _ in range(length):
        K.append([np.diag(C @ x) for C in system.C])
        x = A_bar @ x
    return np.moveaxis(np.array(K), 0, -1)


def dense_A(params, options):
    """A of the first copy, in float64."""
    one = {name: value[:1] for name, value in params.items() if name != "P"} | {"P": params["P"][:, :1]}
    return dense.system(s4, one, options).A


@variants([127], L=[1, 2, 3, 127, 128, 300])
def test_kernels_of_any_length_and_step_size_are_the_dense_ones(L):
    for init in INITS:
        params, options = initial(init)
        # What only an initialisation reads is no reason to compile again.
        _, compiled = initial("legs")
        for rescale in (0.5, 1.0, 2.0):
            K = kernel(compiled, L)(params, rescale)
            assert relative_error(K, dense_kernels(params, L, options, rescale)) < 1e-5, (init, rescale)


@variants([False], skips=[True, False])
def test_two_directions_are_the_dense_ones_with_padding_of_nan(skips):
    params, options = initial("legt", bidirectional=True, backward_skips_current=skips)
    u, lengths = np.random.default_rng(0).normal(size=(2, 9, H)).astype(np.float32), np.array([9, 4])
    garbage = np.where(np.arange(9)[:, None] < lengths[:, None, None], u, np.float32(np.nan))
    y, _ = jax.jit(functools.partial(s4.apply, options=options))(params, garbage, lengths=lengths)
    for i, n in enumerate(lengths):
        assert relative_error(y[i, :n], dense.system(s4, params, options).run(u[i, :n])[0]) < 1e-5


def undamped(length):
    """The Fourier measure without any decay of its own, and with a mode that nothing else damps either. Its step sizes
    have it turn like a node between the roots of 1, and like such a root."""
    params, options = initial("fout", real_transform="none")
    turns = np.array([[2.5], [3.0]]) / length  # bilinear: tan(pi turn) = Delta frequency / 2
    log_step = np.log(2 * np.tan(np.pi * turns) / np.asarray(params["A_imag"])[0, 2])
    return params | {
        "A_real": np.zeros_like(params["A_real"]),
        "P": np.where(np.arange(params["P"].shape[2])[:, None] == 2, np.float32(0), params["P"]),
        "log_step": log_step.astype(np.float32),
    }, options


@variants(["legs", "undamped"], case=[*INITS, "undamped"])
def test_gradients_are_those_of_the_dense_system(case):
    L = 100
    params, options = undamped(L) if case == "undamped" else initial(case, real_transform="none")
    w = np.random.default_rng(0).normal(size=(1, H, L)).astype(np.float32)
    _, compiled = initial("legs", real_transform="none")
    K, gradient = kernel_with_gradient(compiled, L)(params, w)
    assert relative_error(K, dense_kernels(params, L, options)) < 1e-5
    expected = dense.derivative(lambda p: (w * dense_kernels(p, L, options)).sum(), params)
    for name in params:
        assert relative_error(gradient[name], expected[name]) < 2e-5, name


@functools.cache
def kernel_with_gradient(options, L):
    def loss(params, w):
        K = s4.kernel(params, L, options)
        return jnp.sum(w * K), K

    def both(params, w):
        gradient, K = jax.grad(loss, has_aux=True)(params, w)
        return K, gradient

    return jax.jit(both)


# --- initialisation ---

RANK = {"legs": 1, "legt": 2, "fout": 1}


@pytest.mark.parametrize("init", INITS)
def test_the_initial_system_is_hippos(init):
    """In eigenvalues of A, which do not depend on coordinates."""
    # Eigenvalues of LegS are ill-conditioned, at 6 states about a thousand times.
    params, options = initial(init, state_size=6, rank=RANK[init])
    A, _, P = measures.MEASURES[init](6)
    raised = np.maximum(0, 1e-4 + np.trace(A + P.T @ P) / 6)  # undamped normal parts are stored as damped by 1e-4
    actual = np.linalg.eigvals(dense_A(params, options))
    expected = np.linalg.eigvals(A - raised * np.eye(6))
    if init == "legs":
        np.testing.assert_allclose(np.sort(expected.real), np.arange(-6, 0), atol=1e-9)
    for eigenvalue in expected:
        assert np.abs(actual - eigenvalue).min() < 1e-3 * max(1, abs(eigenvalue))
    assert np.sum(actual) == pytest.approx(np.sum(expected), rel=1e-5)


@pytest.mark.parametrize("init", INITS)
def test_the_initial_response_from_B_is_hippos(init):
    """In moments of B, which do not depend on coordinates."""
    params, options = initial(init, B_clip=0.0, rank=RANK[init])
    system = dense.system(s4, params, options)
    b = system.B[:STATES, 0]  # real and imaginary parts: half the inner product of the whole vectors
    A, B, P = measures.MEASURES[init](STATES)
    A = A - max(0, 1e-4 + np.trace(A + P.T @ P) / STATES) * np.eye(STATES)
    for k in range(4):
        moment = 2 * b @ np.linalg.matrix_power(system.A[:STATES, :STATES], k) @ b
        assert moment == pytest.approx(B @ np.linalg.matrix_power(A, k) @ B, rel=1e-5)


def test_B_is_bounded_in_its_imaginary_part():
    (unbounded, _), (bounded, _) = initial(state_size=64, B_clip=0.0), initial(state_size=64)
    assert np.abs(unbounded["B"][..., 1]).max() > 2
    np.testing.assert_array_equal(
        bounded["B"], np.stack([unbounded["B"][..., 0], np.clip(unbounded["B"][..., 1], -2, 2)], -1)
    )


@variants([0, 2], n_ssm=[0, 2, 4])
def test_legs_and_fout_take_turns(n_ssm):
    params, _ = initial("legs_fout", 4, n_ssm=n_ssm, rank=1)
    copies = n_ssm or 4
    assert params["A_real"].shape == (copies, STATES // 2) and params["P"].shape == (1, copies, STATES // 2, 2)
    for first, name in enumerate(("legs", "fout")):
        alone, _ = initial(name, 4, rank=1)
        for copy in range(first, copies, 2):
            for parameter in ("A_real", "A_imag", "B"):
                np.testing.assert_array_equal(params[parameter][copy], alone[parameter][0])
            np.testing.assert_array_equal(params["P"][:, copy], alone["P"][:, 0])
    assert params["C"].shape == (4, STATES // 2, 2) and params["log_step"].shape == (4, 1)


def test_feature_h_uses_copy_h_mod_S():
    params, options = initial("legs_fout", 4, n_ssm=2)
    own = {name: params[name][np.arange(4) % 2] for name in ("A_real", "A_imag", "B")}
    own["P"] = params["P"][:, np.arange(4) % 2]
    assert relative_error(kernel(options, 5)(params, 1.0), dense_kernels({**params, **own}, 5, options)) < 1e-5


@variants([2], rank=[2, 3])
def test_further_ranks_start_small_and_can_train(rank):
    """At zero their gradient would be zero for ever."""
    (params, options), (least, _) = initial("legs", 8, rank=rank), initial("legs", 8, rank=1)
    assert params["P"].shape == (rank, 8, STATES // 2, 2)
    np.testing.assert_array_equal(params["P"][:1], least["P"])
    assert 0.005 < np.std(params["P"][1:]) < 0.02
    _, gradient = kernel_with_gradient(options, 5)(params, np.ones((1, 8, 5), np.float32))
    assert np.abs(gradient["P"]).max(axis=(1, 2, 3)).min() > 0


@pytest.mark.parametrize("transform", ["exp", "softplus", "sigmoid", "none", "relu"])
def test_every_transform_starts_from_the_same_rates(transform):
    params, options = initial("legs", real_transform=transform)
    rates = np.asarray(jax.jit(s4.eigenvalues, static_argnums=1)(params, options)).real
    np.testing.assert_allclose(rates, -0.5 - 1e-4 * (transform == "relu"), rtol=1e-5)


# --- what cannot be ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state_size": 7}, "state_size must be even"),
        ({"init": "legt"}, "init legt needs a low-rank part of rank 2 or more, got rank 1"),
        ({"rank": 0}, "init legs needs a low-rank part of rank 1"),
        ({"n_ssm": -1}, r"n_ssm must lie in 0\.\.65536"),
        ({"B_clip": -1.0}, "B_clip must be at least 0"),
        ({"dt_min": 0.0}, "0 < dt_min <= dt_max"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        s4.Options(**options)


def test_impossible_initialisations():
    with pytest.raises(ValueError, match="n_ssm 3 does not divide d_model 4"):
        initial(features=4, n_ssm=3)
    with pytest.raises(ValueError, match="even number of copies n_ssm, got 1"):
        initial("legs_fout", n_ssm=1)
    with pytest.raises(ValueError, match="even number of copies n_ssm, got 3"):
        initial("legs_fout", 3)
