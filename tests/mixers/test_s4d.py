"""What each option of S4D does. What it computes is in test_linear, what was published in test_recorded_s4."""

import functools
import typing

import dense
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everyday import variants
from numerics import relative_error

from s5jax.mixers import s4d
from s5jax.ssm import per_feature

N = 8
TRANSFORMS = typing.get_args(per_feature.RealTransform)


def initial(features=4, seed=0, **options):
    """Initial parameters and A."""
    options = s4d.Options(**{"state_size": 2 * N, **options})
    params = s4d.init(jax.random.key(seed), features, options)
    return params, np.asarray(s4d.eigenvalues(params, options)), options


def complex_B(params):
    return np.asarray(params["B"], np.float64) @ [1, 1j]


def impulse_response(params, length, options, rescale=1.0):
    """Each feature's response to its own impulse, (H, length), and D taken off, in double precision."""
    H = params["D"].shape[0]
    u = np.zeros((length, H))
    u[0] = 1
    y, _ = dense.system(s4d, {**params, "D": np.zeros(H)}, options).run(u, rescale)
    return y.T


@functools.cache
def kernel(options, length):
    return jax.jit(lambda params, rate: s4d.kernel(params, length, options, rate=rate))


@variants([128], L=[1, 2, 128])
def test_kernel_is_the_impulse_response_without_D(L):
    params, _, options = initial(bidirectional=True)
    for rescale in (1.0, 3.0):
        K = kernel(options, L)(params, rescale)
        assert K.shape == (2, 4, L)
        for direction, C in enumerate(("C1", "C2")):
            one_way = {
                name: params[C if name == "C" else name] for name in ("A_real", "A_imag", "B", "C", "D", "log_step")
            }
            assert relative_error(K[direction], impulse_response(one_way, L, options, rescale)) < 1e-5


# --- the initial A ---


@pytest.mark.parametrize("kind", ["lin", "legs", "real"])
def test_random_real_parts(kind):
    _, A, _ = initial(50, init=kind, real_random=True)
    decay, bound = -A.real, N if kind == "real" else 1
    # 400 uniform numbers: five standard errors of their mean.
    assert decay.min() >= 0.9e-4 and decay.max() < bound
    assert decay.mean() == pytest.approx(bound / 2, abs=5 * bound / np.sqrt(12 * 400))
    assert decay.std() == pytest.approx(bound / np.sqrt(12), rel=0.15)
    assert relative_error(A.imag, initial(50, init=kind)[1].imag) < 1e-6


@pytest.mark.parametrize(
    ("kind", "least", "most"),
    [
        ("lin", 0, np.pi * N),
        ("inv", 2 * N / np.pi * (2 * N / (2 * N + 1) - 1), 2 * N / np.pi * (2 * N - 1)),
        ("quad", 1 / np.pi, (2 * N + 1) ** 2 / np.pi),
    ],
)
def test_random_imaginary_parts_take_n_at_random_in_the_formula(kind, least, most):
    _, A, _ = initial(50, init=kind, imag_random=True)
    assert (-A.imag).min() >= least and (-A.imag).max() <= most
    assert len(np.unique(A.imag)) == A.size
    np.testing.assert_allclose(A.real, -0.5, rtol=1e-6)
    if kind == "lin":
        assert (-A.imag).mean() == pytest.approx(most / 2, abs=5 * most / np.sqrt(12 * 400))


def test_random_init_is_log_normal():
    _, A, _ = initial(50, init="random")
    log = np.log(-A.imag)
    assert log.mean() == pytest.approx(0, abs=5 / np.sqrt(400)) and log.std() == pytest.approx(1, rel=0.15)
    np.testing.assert_allclose(A.real, -0.5, rtol=1e-6)


@pytest.mark.parametrize("kind", ["inv", "legs", "real"])
def test_scales_of_real_and_imaginary_parts(kind):
    (_, A, _), (_, scaled, _) = initial(init=kind), initial(init=kind, real_scale=0.25, imag_scale=3.0)
    np.testing.assert_allclose(scaled, 0.25 * A.real + 3j * A.imag, rtol=1e-5)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_every_transform_starts_from_the_same_A_and_keeps_it_stable(transform):
    _, A, _ = initial(init="real", real_transform=transform, real_scale=0.1)
    # As published, relu starts from the rate itself and adds 1e-4.
    expected = -0.1 * np.arange(1, N + 1) - (1e-4 if transform == "relu" else 0)
    np.testing.assert_allclose(A, np.broadcast_to(expected, (4, N)), rtol=1e-5)
    raw = jnp.linspace(-6, 6, 13)
    rate, slope = (
        per_feature.decay_rate(raw, transform),
        jax.grad(lambda x: per_feature.decay_rate(x, transform).sum())(raw),
    )
    exact = dense.decay(np.asarray(raw, np.float64), transform)
    np.testing.assert_allclose(rate, exact, rtol=1e-6)
    expected = dense.derivative(lambda x: dense.decay(x, transform).sum(), raw)
    np.testing.assert_allclose(slope, expected, rtol=1e-6, atol=1e-7)  # a sigmoid's slope is a difference from 1
    assert transform == "none" or (rate > 0).all()


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_rates_near_zero_start_from_1e_4(transform):
    rate = per_feature.decay_rate(jnp.float32(per_feature.raw_decay_rate(np.zeros(1), transform)), transform)
    assert float(rate[0]) == pytest.approx(2e-4 if transform == "relu" else 1e-4, rel=1e-5)


# --- B, C, copies, step sizes ---


def test_kinds_of_initial_B():
    n = np.arange(N)
    for kind, expected in {
        "constant": np.ones(N),
        "alternating": np.where(n % 2, -1, 1),
        "unit_cw": np.exp(-2j * np.pi * n / (2 * N)),
        "unit_ccw": np.exp(2j * np.pi * n / (2 * N)),
    }.items():
        params, *_ = initial(B_init=kind)
        np.testing.assert_allclose(complex_B(params), np.broadcast_to(expected, (4, N)), atol=1e-6)
    random = complex_B(initial(50, B_init="random")[0])
    # Complex standard normal: E B = E B^2 = 0, E |B|^2 = 1, over 400 of them.
    assert abs(random.mean()) < 0.25 and abs((random**2).mean()) < 0.25
    assert (np.abs(random) ** 2).mean() == pytest.approx(1, abs=0.25)


def test_B_of_legs_belongs_to_its_modes_and_is_bounded():
    assert (complex_B(initial(init="lin")[0]) == 1).all()
    legs = complex_B(initial(init="legs", B_clip=0.0)[0])
    np.testing.assert_array_equal(legs, complex_B(initial(init="lin", B_init="legs", B_clip=0.0)[0]))
    # A unitary change of basis keeps the norm of LegS' B, sqrt(2 i + 1); one half of each pair has half its square.
    np.testing.assert_allclose((np.abs(legs) ** 2).sum(-1), (2 * N) ** 2 / 2, rtol=1e-5)
    assert np.abs(legs.imag).max() > 2
    clipped = complex_B(initial(init="legs")[0])
    np.testing.assert_allclose(clipped, legs.real + 1j * np.clip(legs.imag, -2, 2), rtol=1e-6)
    assert (complex_B(initial(init="legs", B_init="constant")[0]) == 1).all()


@variants(["legs"], init=["lin", "legs"])
def test_a_B_that_is_not_trained_stays_at_its_start_and_is_no_parameter(init):
    (fixed, _, options), (trained, _, plain) = initial(init=init, B_trained=False, n_ssm=2), initial(init=init, n_ssm=2)
    assert set(trained) - set(fixed) == {"B"}
    u = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
    apply = jax.jit(s4d.apply, static_argnums=2)
    assert relative_error(apply(fixed, u, options)[0], apply({**fixed, "B": trained["B"]}, u, plain)[0]) < 1e-6


def test_feature_h_uses_copy_h_mod_S():
    params, A, options = initial(4, n_ssm=2, imag_random=True, B_init="random")
    assert A.shape == (2, N) and params["B"].shape == (2, N, 2)
    assert params["C"].shape == (4, N, 2) and params["log_step"].shape == (4, 1)
    own = {name: params[name][np.arange(4) % 2] for name in ("A_real", "A_imag", "B")}
    single = {**params, **own}
    assert relative_error(kernel(options, 7)(params, 1.0)[0], impulse_response(single, 7, options)) < 1e-5


def test_real_modes_have_real_parameters():
    params, A, options = initial(50, modes="real", init="real", B_init="random")
    assert {name: x.shape for name, x in params.items()} == {
        **dict.fromkeys(("A_real", "B", "C"), (50, 2 * N)),
        "D": (50,),
        "log_step": (50, 1),
    }
    np.testing.assert_allclose(A, np.broadcast_to(-np.arange(1.0, 2 * N + 1), A.shape), rtol=1e-6)
    for name in ("B", "C"):
        assert np.std(params[name]) == pytest.approx(1, abs=0.1)
    assert (initial(modes="real", init="real")[0]["B"] == 1).all()
    assert relative_error(kernel(options, 9)(params, 1.0)[0], impulse_response(params, 9, options)) < 1e-5


def test_softplus_starts_from_the_same_step_sizes():
    (params, _, options), (expected, *_) = initial(dt_transform="softplus", dt_max=2.0), initial(dt_max=2.0)
    np.testing.assert_allclose(s4d.time_step(params, options), np.exp(expected["log_step"]), rtol=1e-5)
    # Stored is the logarithm, but for large steps.
    np.testing.assert_allclose(initial(dt_transform="softplus")[0]["log_step"], initial()[0]["log_step"], atol=0.06)


def test_step_sizes_and_readouts_start_as_documented():
    params, *_ = initial(50, dt_min=0.01, dt_max=0.2, dt_per_state=True, bidirectional=True)
    log_step = np.asarray(params["log_step"])
    assert log_step.shape == (50, N)
    assert log_step.min() >= np.log(0.01) - 1e-5 and log_step.max() <= np.log(0.2) + 1e-5
    assert log_step.std() == pytest.approx(np.log(20) / np.sqrt(12), rel=0.15)
    assert initial()[0]["log_step"].shape == (4, 1)
    for C in ("C1", "C2"):
        assert np.sqrt(np.mean(np.square(params[C]))) == pytest.approx(np.sqrt(0.5), rel=0.15)
    assert not np.allclose(params["C1"], params["C2"])
    assert np.std(params["D"]) == pytest.approx(1, rel=0.5)


# --- what is computed ---


@variants([(True, "convolution"), (False, "scan")], per_state=[False, True], mode=["convolution", "scan"])
def test_the_band_limit_silences_modes_by_the_step_size_of_training(mode, per_state):
    params, A, options = initial(dt_min=0.05, dt_max=0.3, bandlimit=0.5, dt_per_state=per_state, mode=mode)
    turn = np.exp(params["log_step"]) * np.abs(A.imag) / np.pi  # of the Nyquist frequency
    kept = turn < 0.5
    assert kept.any() and not kept.all()
    unlimited = {**params, "C": np.where(kept[..., None], params["C"], 0)}
    u = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    y, G = jax.jit(
        lambda params, u: (
            s4d.apply(params, u[None], options, rate=2.0)[0][0],
            s4d.transfer_function(params, jnp.complex64(3j), options),
        )
    )(params, u)
    system = dense.system(s4d, unlimited, options)
    assert relative_error(y, system.run(u, 2.0)[0]) < 1e-5
    assert relative_error(G, system.transfer(3j)) < 1e-5


@pytest.mark.parametrize(("mode", "skips"), [("scan", True), ("convolution", False)])  # the others: test_contract
def test_where_the_backward_kernel_starts_is_for_either_mode(mode, skips):
    params, _, options = initial(bidirectional=True, backward_skips_current=skips, mode=mode)
    u = np.random.default_rng(0).normal(size=(1, 9, 4)).astype(np.float32)
    expected, _ = dense.system(s4d, params, options).run(u[0])
    assert relative_error(jax.jit(s4d.apply, static_argnums=2)(params, u, options)[0][0], expected) < 1e-5


def test_dss_is_a_softmax_over_dss_length_samples_at_any_length():
    """K_l = Re sum_n C_n B_n / A_n exp(l Delta A_n) / sum_l' exp(l' Delta A_n), arXiv 2203.14343, proposition 1."""
    params, A, options = initial(discretization="dss", dss_length=50, B_init="random", dt_min=0.1, dt_max=0.2)
    A, C = A.astype(complex), np.asarray(params["C"], np.float64) @ [1, 1j]
    rows = np.exp(A[..., None] * np.exp(np.float64(params["log_step"]))[..., None] * np.arange(120))
    softmax = rows / rows[..., :50].sum(-1, keepdims=True)
    K = ((C * complex_B(params) / A)[..., None] * softmax).sum(1).real
    for length in (50, 120):
        # The quotient's 1e-7 is added to |A (exp(50 Delta A) - 1)|^2, here 0.2 or more.
        assert relative_error(kernel(options, length)(params, 1.0)[0], K[:, :length]) < 1e-5


# --- what cannot be ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state_size": 7}, "state_size must be even"),
        ({"state_size": 0}, "in 2..16384"),
        ({"dt_min": 0.2, "dt_max": 0.1}, "0 < dt_min <= dt_max"),
        ({"n_ssm": -1}, r"n_ssm must lie in 0\.\.65536"),
        ({"bandlimit": -0.5}, "bandlimit must be at least 0"),
        ({"B_clip": -1.0}, "B_clip must be at least 0"),
        ({"imag_scale": -1.0}, "imag_scale must be at least 0"),
        ({"real_scale": 0.0}, "real_scale must be positive"),
        ({"real_scale": -1.0}, "real_scale must be positive"),
        ({"discretization": "dss"}, "Got dss and 0"),
        ({"dss_length": 64}, "Got zoh and 64"),
        ({"B_trained": False, "B_init": "random"}, "B_trained"),
        ({"modes": "real"}, "modes real needs init real"),
        ({"modes": "real", "init": "real", "B_init": "unit_cw"}, "a real B_init"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        s4d.Options(**options)


def test_impossible_initialisations():
    with pytest.raises(ValueError, match="n_ssm 3 does not divide d_model 4"):
        initial(n_ssm=3)
    with pytest.raises(ValueError, match="below 1, but the initial A has 8"):
        initial(init="real", real_transform="sigmoid")
    with pytest.raises(ValueError, match="below 10, but the initial A has 16"):
        initial(init="real", real_transform="best", real_scale=2.0)
