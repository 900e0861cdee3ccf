"""RTF against the published code's recorded numbers, and what its options do."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from contract.rtf import system
from dense import derivative, derivative_along
from everyday import variants
from numerics import load_case, relative_error

from s5jax.mixers import rtf

CASES = ["rtf_causal", "rtf_bidirectional", "rtf_shared_short", "rtf2_causal"]


def options_of(meta):
    return rtf.Options(
        state_size=meta["state_size"],
        num_a=meta["num_a"],
        numerator={"RTF": "aliased", "RTF2": "exact"}[meta["cls"]],
        trunc_len=meta["trunc_len"],
        constraint={"no": "none"}.get(meta["constraint"], meta["constraint"]),
        bidirectional=meta["bidirectional"],
    )


def float64(params):
    return jax.tree.map(np.float64, params)


@variants([("rtf_shared_short", False), ("rtf_bidirectional", True)], case=CASES, double=[False, True])
def test_recorded_outputs_and_gradients(case, double):
    meta, data = load_case(case)
    options = options_of(meta)

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1), has_aux=True)
    def gradient(params, u, w):
        y, state = rtf.apply(params, u, options)
        assert state is None
        return jnp.sum(y * w), (y, rtf.kernel(params, u.shape[1], options))

    with jax.enable_x64(double):
        dtype = np.float64 if double else np.float32
        args = jax.tree.map(lambda x: jnp.asarray(x, dtype), (data["param"], data["u"], data["w"]))
        (of_params, of_u), (y, K) = gradient(*args)
    assert y.dtype == dtype
    values, gradients = (1e-12, 1e-12) if double else (1e-5, 1e-4)
    assert relative_error(y, data["y"]) < values
    assert relative_error(K.reshape(-1, K.shape[-1]), data["kernel"]) < values
    assert relative_error(of_u, data["grad_u"]) < gradients
    for name, expected in data["grad"].items():
        assert relative_error(of_params[name], expected) < gradients, name


def test_an_odd_length_in_two_directions():
    """The record has the published defect, one product of spectra of 2 L and of 2 L - 1 points; `apply` does not."""
    meta, data = load_case("rtf_bidirectional_odd")
    options, L = options_of(meta), meta["l"]
    u, companion = data["u"].astype(np.float64), system(float64(data["param"]), options)
    impulse = np.zeros((L, meta["d_model"]))
    impulse[0] = 1
    forward, backward = (companion.run(impulse, direction)[0] for direction in range(2))
    spectra = [np.fft.rfft(z, 2 * L, axis=-2) for z in (np.concatenate([forward, backward[::-1]]), u)]
    defect = np.fft.irfft(spectra[0] * spectra[1], 2 * L - 1, axis=-2)[:, :L]
    assert relative_error(defect, data["y"]) < 1e-12
    y, _ = rtf.apply(jax.tree.map(jnp.asarray, data["param"]), jnp.asarray(data["u"]), options)
    assert relative_error(y, companion.run_batch(u)[0]) < 1e-5


@variants([("aliased", 14)], numerator=["aliased", "exact"], trunc_len=[14, 100])
def test_outputs_and_state_from_a_state(numerator, trunc_len):
    N, H, L, lengths = 5, 4, 23, np.array([23, 2, 0])
    options = rtf.Options(state_size=N, num_a=2, numerator=numerator, trunc_len=trunc_len, init="montel")
    rng = np.random.default_rng(0)
    u, start = rng.normal(size=(3, L, H)).astype(np.float32), rng.normal(size=(3, N, H)).astype(np.float32)
    params = rtf.init(jax.random.key(0), H, options)
    y, state = jax.jit(functools.partial(rtf.apply, options=options))(params, u, state=start, lengths=lengths)
    companion = system(float64(params), options)
    for i, n in enumerate(lengths):
        expected, last = companion.run(u[i, :n], start=start[i, ::-1].T)
        assert n == 0 or relative_error(y[i, :n], expected) < 1e-5
        assert relative_error(state[i], last.T[::-1]) < 1e-5


@variants([("exact", 1024), ("aliased", 1024)], numerator=["exact", "aliased"], L=[1024, 4096])
def test_slow_poles_over_many_steps(numerator, L):
    """Poles 0.99 exp(+-0.3i), 0.5 and 0.2. Rounding the parameters to float32 would move kernels by up to 7e-5 and the
    gradient of ab by up to 3e-4: `aliased` parameters pass through FFTs, which err by as much."""
    H, poles = 2, [0.99 * np.exp(0.3j), 0.99 * np.exp(-0.3j), 0.5, 0.2]
    options = rtf.Options(state_size=4, num_a=1, numerator=numerator, trunc_len=1024)
    rng = np.random.default_rng(0)
    a, b = np.poly(poles).real[None, 1:], rng.normal(size=(H, 4))
    inputs = {"ab": np.concatenate([a, b]), "h_0": rng.normal(size=H)}
    inputs |= {"x": rng.normal(size=(1, L, H)), "state": rng.normal(size=(1, 4, H))}
    inputs = {name: v.astype(np.float32) for name, v in inputs.items()}
    W = {"y": rng.normal(size=(L, H)).astype(np.float32), "state": rng.normal(size=(4, H)).astype(np.float32)}

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradient(inputs):
        params = {name: inputs[name] for name in ("ab", "h_0")}
        y, state = rtf.apply(params, inputs["x"], options, state=inputs["state"])
        outputs = y, state, rtf.apply(params, inputs["x"], options)[0], rtf.kernel(params, L, options)[0]
        return jnp.sum(y[0] * W["y"]) + jnp.sum(state[0] * W["state"]), outputs

    def run(inputs):
        companion = system({name: inputs[name] for name in ("ab", "h_0")}, options)
        y, last = companion.run(inputs["x"][0], start=inputs["state"][0, ::-1].T)
        return y, last.T[::-1], companion

    def loss(inputs):
        y, last, _ = run(inputs)
        return np.sum(y * W["y"]) + np.sum(last * W["state"])

    gradients, (y, state, from_zero, K) = gradient(jax.tree.map(jnp.asarray, inputs))
    exact = float64(inputs)
    expected, last, companion = run(exact)
    assert relative_error(y[0], expected) < 1e-5 and relative_error(state[0], last) < 1e-5
    within = 1e-4 if numerator == "aliased" and options.trunc_len >= L else 1e-5
    for h in range(H):
        monic = np.r_[1, exact["ab"][0]]
        transfer = companion.d[0, h] * monic + np.r_[0, companion.C[0, h]], monic
        assert relative_error(K[h], scipy.signal.lfilter(*transfer, np.eye(1, L)[0])) < within
        assert relative_error(from_zero[0, :, h], scipy.signal.lfilter(*transfer, exact["x"][0, :, h])) < within
    for name in ("ab", "h_0", "state"):
        of_name = derivative(lambda v, name=name: loss({**exact, name: v}), exact[name])
        within = 3e-4 if (numerator, name) == ("aliased", "ab") else 1e-4
        assert relative_error(gradients[name], of_name) < within, name
    along = {name: rng.normal(size=v.shape) * (name == "x") for name, v in exact.items()}
    size = np.linalg.norm(gradients["x"])
    assert abs(np.vdot(gradients["x"], along["x"]) - derivative_along(loss, exact, along)) < 1e-4 * size


@pytest.mark.parametrize(("kind", "bound"), [("zeros", 0), ("xavier", 1 / 4), ("montel", 1 / 16)])
def test_initial_parameters(kind, bound):
    H, N = 300, 16
    options = rtf.Options(state_size=N, num_a=3, init=kind, constraint="l1_montel", bidirectional=True)
    params = float64(rtf.init(jax.random.key(0), H, options))
    assert {name: x.shape for name, x in params.items()} == {"ab": (606, N), "h_0": (600,), "scalar": (6,)}
    for part in np.split(params["ab"], [6]):  # of n numbers, uniform: five standard errors of the mean square
        assert np.abs(part).max() <= bound
        assert np.mean(part**2) == pytest.approx(bound**2 / 3, rel=5 * np.sqrt(0.8 / part.size))
    assert params["h_0"].std() == pytest.approx(1, abs=5 / np.sqrt(1200)) and abs(params["h_0"].mean()) < 0.2
    assert params["scalar"].min() >= 0 and params["scalar"].max() < 1
    if kind == "zeros":
        assert not rtf.kernel(jax.tree.map(jnp.float32, params), 9, options)[..., 1:].any()


def test_kernel_dropout():
    H, L = 64, 12
    options = rtf.Options(state_size=4, init="montel", kernel_dropout=0.25, trunc_len=L)
    assert rtf.DROPOUT(options) == "own" and not rtf.DROPOUT(rtf.Options())
    params = rtf.init(jax.random.key(0), H, options)
    impulse = jnp.zeros((2, L, H)).at[:, 0].set(1)
    apply = jax.jit(functools.partial(rtf.apply, options=options))
    whole, y = np.asarray(apply(params, impulse)[0]), np.asarray(apply(params, impulse, key=jax.random.key(1))[0])
    kept = np.abs(y) > np.abs(whole) / 2
    np.testing.assert_allclose(y, np.where(kept, whole / 0.75, 0), atol=1e-5)
    assert (kept[0] == kept[1]).mean() > 0.99  # one kernel for the batch; a few samples are too small to tell
    assert kept.mean() == pytest.approx(0.75, abs=0.08)  # five standard errors
    with pytest.raises(ValueError, match="kernel_dropout drops samples of a kernel"):
        rtf.apply(params, impulse, options, state=rtf.init_state(params, options, 2), key=jax.random.key(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state_size": 0}, "state_size must lie in 1..65536, got 0"),
        ({"num_a": -1}, "num_a must lie in 0..65536, got -1"),
        ({"trunc_len": 64}, "trunc_len must exceed state_size, got 64 and 64"),
        ({"kernel_dropout": 1.0}, r"kernel_dropout must lie in \[0, 1\), got 1.0"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        rtf.Options(**options)


def test_what_is_refused_later():
    with pytest.raises(ValueError, match="num_a 3 does not divide the width 4"):
        rtf.init(jax.random.key(0), 4, rtf.Options(num_a=3))
    params = rtf.init(jax.random.key(0), 4, rtf.Options())
    with pytest.raises(ValueError, match="rtf takes no rate: it has no step size"):
        rtf.discretize(params, rtf.Options(), rate=2.0)
    with pytest.raises(ValueError, match="rtf takes no rate: it has no step size"):
        rtf.kernel(params, 5, rtf.Options(), rate=2.0)
    x = jnp.zeros((2, 5, 4))
    with pytest.raises(ValueError, match="rtf takes no rate: it has no step size"):
        rtf.apply(params, x, rtf.Options(), rate=2.0)
    with pytest.raises(ValueError, match="rtf takes no reset: it expects one sequence per row"):
        rtf.apply(params, x, rtf.Options(), reset=jnp.zeros((2, 5), bool))
