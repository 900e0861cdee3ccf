"""DSS against the published code's recorded numbers, what its options do, and modes that grow."""

import dense
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract.dss import system
from everyday import variants
from numerics import load_case, relative_error

from s5jax.mixers import dss, s4d

CASES = ["dss_clip_truncated", "dss_exp_re_im_bidirectional", "dss_softmax", "dss_softmax_growing"]


def init(width, options):
    return jax.jit(lambda key: dss.init(key, width, options))(jax.random.key(0))


def options_of(meta):
    return dss.Options(
        state_size=meta["d_state"],
        version=meta["version"],
        softmax_length=meta["L"] if meta["version"] == "softmax" else 0,
        max_kernel_length=meta.get("max_kernel_length") or 0,
        bidirectional=meta["bidirectional"],
    )


def ours(recorded):
    """Our parameters from those recorded."""
    params = {name.removeprefix("kernel."): value for name, value in recorded.items() if "linear" not in name}
    W, log_dt, D = params.pop("W"), params.pop("log_dt"), params.pop("D")
    names = ("W",) if len(W) == 1 else ("W1", "W2")
    log_step = log_dt if log_dt.ndim == 2 else log_dt[:, None]
    return {**params, **dict(zip(names, W, strict=True)), "log_step": log_step, "D": D[0]}


def block(recorded, y):
    """What follows the mixer: exact GELU and a linear map. (B, L, H) to (B, H, L), as published."""
    z = jnp.einsum("oh,blh->bol", recorded["output_linear.weight"], jax.nn.gelu(y, approximate=False))
    return z + recorded["output_linear.bias"][None]


def gradients(case, double, mix):
    """Gradients of the parameters and of u, and y; mix(params, u, options) is the mixer on (B, L, H)."""
    meta, data = load_case(case)

    def loss(recorded, u, w):
        y = block(recorded, mix(ours(recorded), jnp.swapaxes(u, 1, 2), options_of(meta)))
        return jnp.sum(y * w), y

    with jax.enable_x64(double):
        dtype = np.float64 if double else np.float32
        args = jax.tree.map(lambda x: jnp.asarray(x, dtype), (data["param"], data["u"], data["w"]))
        (of_params, of_u), y = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(*args)
    assert y.dtype == dtype
    return data, jax.tree.map(np.asarray, (of_params, of_u, y))


@variants(
    [("dss_clip_truncated", False), ("dss_exp_re_im_bidirectional", False), ("dss_softmax", True)],
    case=CASES,
    double=[False, True],
)
def test_recorded_outputs_and_gradients(case, double):
    """In dss_softmax_growing not those of log_dt and Lambda: see below."""
    data, (of_params, of_u, y) = gradients(case, double, lambda p, u, options: dss.apply(p, u, options)[0])
    assert relative_error(y, data["y"]) < (1e-9 if double else 1e-5)
    assert relative_error(of_u, data["grad_u"]) < (1e-9 if double else 1e-4)
    for name, expected in data["grad"].items():
        if case == "dss_softmax_growing" and name in ("kernel.log_dt", "kernel.Lambda"):
            assert relative_error(of_params[name], expected) > 1e-3
            continue
        # Modes with a real part of 1e-4 cancel in the sums of the recorded gradient.
        within = 1e-9 if double else 1e-2 if (case, name) == ("dss_clip_truncated", "kernel.Lambda") else 1e-4
        assert relative_error(of_params[name], expected) < within, name


def published(params, u, options):
    """The published softmax: where modes grow, the largest exponent is subtracted as if it were constant."""
    Lambda = params["Lambda"][:, 0] + 1j * params["Lambda"][:, 1]
    steps, n = jnp.exp(params["log_step"]), options.softmax_length
    z = steps[:, :1] * Lambda.real + 1j * steps[:, -1:] * Lambda.imag
    grows = Lambda.real > 0
    exponents = z[..., None] * jnp.arange(n) - jax.lax.stop_gradient(z * grows * (n - 1))[..., None]
    turned = jnp.where(grows, -z, z)
    x = (jnp.exp(n * turned) - 1) * Lambda
    W = (params["W"][..., 0] + 1j * params["W"][..., 1]) * (jnp.exp(turned) - 1)
    K = jnp.sum((W * x.conj() / (jnp.abs(x) ** 2 + 1e-7))[..., None] * jnp.exp(exponents), 1).real
    lags = jnp.arange(n)[:, None] - jnp.arange(n)
    return jnp.einsum("hkj,bjh->bkh", jnp.where(lags >= 0, K[:, lags], 0), u) + params["D"] * u


def test_recorded_gradients_of_growing_modes_hold_the_shift_constant():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        data, (of_params, of_u, y) = gradients("dss_softmax_growing", True, published)
    assert relative_error(y, data["y"]) < 1e-9 and relative_error(of_u, data["grad_u"]) < 1e-9
    for name, expected in data["grad"].items():
        assert relative_error(of_params[name], expected) < 1e-9, name


@variants([True], double=[False, True])
def test_growing_modes_have_the_gradients_of_the_kernel(double):
    """By an imaginary step, for outputs of `apply`, and the same outputs by `step`."""
    meta, data = load_case("dss_softmax_growing")
    options, dtype = options_of(meta), np.float64 if double else np.float32
    params = {name: np.asarray(x, dtype) for name, x in ours(data["param"]).items()}
    u = np.asarray(np.swapaxes(data["u"], 1, 2)[:1], dtype)
    w = np.random.default_rng(0).normal(size=u.shape).astype(dtype)

    def loss(params):
        y = dss.apply(params, jnp.asarray(u), options)[0]
        return jnp.sum(y * w), y

    def rolled(params):
        cell = dss.discretize(params, options)
        along = jnp.moveaxis(u, 1, 0)
        _, y = jax.lax.scan(
            lambda s, u_k: dss.step(cell, s, u_k, options)[::-1], dss.init_state(params, options, 1), along
        )
        return jnp.moveaxis(y, 0, 1)

    with jax.enable_x64(double):
        actual, y = jax.jit(jax.grad(loss, has_aux=True))(params)
        stepped = jax.jit(rolled)(params)
    assert (np.asarray(params["Lambda"])[:, 0] > 0).any()
    expected = np.stack(system(params, options).run_batch(u)[0])
    assert relative_error(y, expected) < (1e-10 if double else 1e-5)
    assert relative_error(stepped, expected) < (1e-10 if double else 1e-5)
    exact = dense.derivative(lambda p: (system(p, options).run_batch(u)[0][0] * w[0]).sum(), params)
    for name, value in exact.items():
        assert relative_error(actual[name], value) < (1e-8 if double else 1e-4), name


@variants([300], length=[200, 300, 310])
def test_modes_that_grow_beyond_float32(length):
    """By e^200 in the 300 samples of the softmax; its kernel is at most W / Lambda."""
    options = dss.Options(state_size=3, version="softmax", softmax_length=300, sep_dt_re_im=False)
    params = init(2, options)
    params["Lambda"] = jnp.array([[200 / 30, 3.0], [1.0, 20.0], [-1.0, 5.0]])
    params["log_step"] = jnp.log(jnp.array([[0.1], [0.02]]))

    def loss(params):
        K = dss.kernel(params, length, options)[0]
        return jnp.sum(K), K

    gradient, K = jax.jit(jax.grad(loss, has_aux=True))(params)
    p = {name: np.float64(x) for name, x in params.items()}
    Lambda, W = (p[name] @ [1, 1j] for name in ("Lambda", "W"))
    powers = np.exp(np.exp(p["log_step"])[..., None] * Lambda[:, None] * np.arange(310))
    softmax = powers / powers[..., :300].sum(-1, keepdims=True)
    expected = ((W / Lambda)[..., None] * softmax[..., :length]).sum(1).real
    assert relative_error(K, expected) < 1e-4
    assert all(np.isfinite(value).all() for value in gradient.values())


def test_initial_parameters():
    N, H = 8, 50
    params = init(H, dss.Options(state_size=N, bidirectional=True, version="exp-re-im"))
    shapes = {"W1": (H, N, 2), "W2": (H, N, 2), "D": (H,), "log_step": (H, 2)}
    assert {name: x.shape for name, x in params.items()} == shapes | dict.fromkeys(
        ("Lambda_log_neg_re", "Lambda_log_im"), (N,)
    )
    log_step = np.asarray(params["log_step"])
    np.testing.assert_array_equal(log_step[:, 0], log_step[:, 1])
    assert np.log(0.001) <= log_step.min() and log_step.max() <= np.log(0.1)
    for W in (params["W1"], params["W2"]):
        assert np.std(W) == pytest.approx(1, abs=0.15)
    legs = s4d.Options(state_size=2 * N, init="legs", n_ssm=1)
    expected = jax.jit(lambda key: s4d.eigenvalues(s4d.init(key, H, legs), legs)[0].conj())(jax.random.key(0))
    for version in ("exp", "exp-re-im", "clip"):
        options = dss.Options(state_size=N, version=version, sep_dt_re_im=False)
        actual = jax.jit(lambda key, o=options: dss.eigenvalues(dss.init(key, H, o), o))(jax.random.key(1))
        assert actual.shape == (H, N) and relative_error(actual[-1], np.asarray(expected)) < 1e-6
    drawn = np.asarray(init(1, dss.Options(state_size=2000, version="clip", Lambda_init="randn"))["Lambda"])
    assert np.abs(drawn.mean(0)).max() < 0.08 and drawn.std() == pytest.approx(np.sqrt(0.5), rel=0.05)


def test_clipped_modes_have_no_gradient_and_the_rate_1e_4():
    options = dss.Options(state_size=4, version="clip", Lambda_init="randn")
    params = init(3, options)
    clipped = np.asarray(params["Lambda"])[:, 0] > 1e-4
    assert clipped.any() and not clipped.all()
    real = np.asarray(jax.jit(dss.eigenvalues, static_argnums=1)(params, options)).real
    np.testing.assert_allclose(real[:, clipped], 1e-4, rtol=1e-5)
    gradient = jax.jit(jax.grad(lambda params: jnp.sum(dss.kernel(params, 5, options))))(params)["Lambda"]
    assert ((np.asarray(gradient)[:, 0] == 0) == clipped).all()


# --- what cannot be ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version": "softmax"}, "Got softmax and 0"),
        ({"softmax_length": 9}, "Got exp and 9"),
        ({"state_size": 0}, r"state_size must lie in 1\.\.8192"),
        ({"max_kernel_length": -1}, "max_kernel_length must lie in 0"),
        ({"Lambda_init": "randn"}, "version exp needs Re"),
        ({"dt_min": 0.2}, "0 < dt_min <= dt_max"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        dss.Options(**options)


def test_a_kernel_that_ends_is_a_convolution_only():
    options = dss.Options(state_size=4, max_kernel_length=3)
    params, x = init(2, options), jnp.ones((1, 5, 2))
    for arguments in ({"reset": jnp.zeros((1, 5), bool)}, {"rate": jnp.ones((1, 5))}):
        with pytest.raises(ValueError, match="a convolution only: no reset, no rate per step"):
            dss.apply(params, x, options, **arguments)
