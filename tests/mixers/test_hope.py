"""HOPE against the published code's recorded numbers, and the causal HOPE against the chain of filters in a loop."""

import dense
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract.hope import system
from everyday import variants
from numerics import load_case, relative_error

from s5jax.mixers import hope

CASES = ["hope_plain", "hope_mirror", "hope_block_full", "hope_block_tied"]


def options_of(meta, two_rows):
    return hope.Options(
        state_size=meta.get("n", meta["d_state"]),
        n_ssm=meta.get("n_ssm") or 0,
        dt_transform=meta.get("dt_transform", "exp"),
        dt_per_direction=two_rows,
        bidirectional=True,
        mirror=not two_rows,
        readout="linear" if two_rows else "glu",
    )


def published_layer(meta, params, u):
    """The standalone layer (B, H, L): the mixer on a sequence that is mirrored before, then gelu and a gate."""
    H = meta["H"]
    mixed = {
        "h": params["kernel.H"].reshape(2, H, meta["n"], 2),
        "log_step": params["kernel.log_dt"].reshape(2, H, 1),
        "D": params["D"],
    }
    u = jnp.concatenate([u, u[..., ::-1]], axis=-1) if meta["mirror"] else u
    y, _ = hope.apply(mixed, jnp.swapaxes(u, 1, 2), options_of(meta, True))
    g = jax.nn.gelu(y, approximate=False) @ params["output_linear.0.weight"][..., 0].T
    g = g + jnp.broadcast_to(params["output_linear.0.bias"], g.shape)
    return jnp.swapaxes(g[..., :H] * jax.nn.sigmoid(g[..., H:]), 1, 2)


def published_block(meta, params, x):
    mixed = {
        "h": params["layer.kernel.Han"],
        "log_step": params["layer.kernel.inv_dt"],
        "D": params["layer.D"],
        "out_kernel": params["output_linear.0.weight"][..., 0].T,
        "out_bias": params["output_linear.0.bias"],
    }
    return hope.apply(mixed, x, options_of(meta, False))[0]


@variants([("hope_plain", True), ("hope_block_tied", False)], case=CASES, double=[False, True])
def test_recorded_outputs_and_gradients(case, double):
    meta, data = load_case(case)
    published, name = (published_layer, "u") if meta["kind"] == "hope_layer" else (published_block, "x")

    def weighted_sum(params, x, w):
        y = published(meta, params, x)
        return jnp.sum(y * w), y

    with jax.enable_x64(double):
        dtype = np.float64 if double else np.float32
        args = jax.tree.map(lambda x: jnp.asarray(x, dtype), (data["param"], data[name], data["w"]))
        (of_params, of_x), y = jax.jit(jax.grad(weighted_sum, argnums=(0, 1), has_aux=True))(*args)
    assert y.dtype == dtype
    assert relative_error(y, data["y"]) < (1e-12 if double else 1e-5)
    within = 1e-11 if double else 1e-4
    assert relative_error(of_x, data[f"grad_{name}"]) < within
    for leaf, expected in data["grad"].items():
        assert relative_error(of_params[leaf], expected) < within, leaf


def make(seed=0, **changed):
    options = hope.Options(**{"state_size": 6, "dt_min": 0.1, "dt_max": 3.0} | changed)
    rng = np.random.default_rng(seed)
    params = jax.jit(lambda key: hope.init(key, 3, options))(jax.random.key(seed))
    return {n: np.asarray(v, np.float64) + 0.1 * rng.normal(size=v.shape) for n, v in params.items()}, options


def test_values_and_gradients_of_the_causal_mixer():
    params, options = make()
    x, w = np.random.default_rng(1).normal(size=(2, 2, 19, 3))

    def weighted_sum(params, x):
        y, _ = hope.apply(params, x, options, rate=jnp.array([1.0, 1.7]))
        return jnp.sum(y * w), y

    with jax.enable_x64(True):
        (of_params, of_x), y = jax.jit(jax.grad(weighted_sum, argnums=(0, 1), has_aux=True))(params, x)

    def reference(params, x):
        return np.stack(system(params, options).run_batch(x, rate=np.array([1.0, 1.7]))[0])

    assert relative_error(y, reference(params, x)) < 1e-12
    for name, expected in dense.derivative(lambda p: (w * reference(p, x)).sum(), params).items():
        assert relative_error(of_params[name], expected) < 1e-10, name
    assert relative_error(of_x, dense.derivative(lambda x: (w * reference(params, x)).sum(), x)) < 1e-10


def test_apply_and_steps_hand_over_their_states():
    params, options = make(n_ssm=1)
    x = np.random.default_rng(1).normal(size=(2, 15, 3))
    lengths = np.array([9, 4])

    def parts(params, x):
        padded = jnp.where(np.arange(9)[None, :, None] < lengths[:, None, None], x[:, :9], jnp.nan)
        start, valid = hope.init_state(params, options, 2), jnp.asarray(lengths)
        y_1, state = hope.apply(params, padded, options, lengths=valid, state=start)
        cell, rest = hope.discretize(params, options), []
        for k in range(5):
            y_k, state = hope.step(cell, state, jnp.stack([x[i, n + k] for i, n in enumerate(lengths)]), options)
            rest.append(y_k)
        return y_1, jnp.stack(rest, axis=1)

    with jax.enable_x64(True):
        y_1, rest = jax.jit(parts)(params, x)
    expected = system(params, options).run_batch(x)[0]
    for i, n in enumerate(lengths):
        assert relative_error(y_1[i, :n], expected[i][:n]) < 1e-12
        assert relative_error(rest[i], expected[i][n : n + 5]) < 1e-12


def test_kernel_and_transfer_function():
    """The spectrum of the kernel is G at s = (2/Delta) (w - 1)/(w + 1)."""
    params, options = make()
    w = np.exp(2j * np.pi * np.arange(2048) / 4096)

    def both(params):
        Delta = hope.time_step(params, options)
        s = (2 * jnp.asarray((w - 1) / (w + 1)))[:, None] / Delta.T.astype(complex)
        return hope.kernel(params, 4096, options)[0], hope.transfer_function(params, s, options)

    with jax.enable_x64(True):
        K, G = jax.jit(both)(params)
    assert G.shape == (2048, 3, 3, 3)  # frequency, whose step size, output, input
    for i, spectrum in enumerate(np.fft.rfft(K)):
        assert relative_error(spectrum[:2048], np.asarray(G)[:, i, i, i] - params["D"][i]) < 1e-10
    assert not np.asarray(G)[:, :, 0, 1].any()


def test_a_network_that_mirrors_at_its_entrance_cannot_tell_a_sequence_from_its_reverse():
    """The outputs of a periodic layer for [x, rev x] and for [rev x, x] are the same but for their order."""
    params, options = make(bidirectional=True, mirror=False, dt_per_direction=True)
    x = np.random.default_rng(0).normal(size=(1, 10, 3))
    with jax.enable_x64(True):
        layer = jax.jit(lambda p, x: hope.apply(p, x, options)[0])
        y = layer(params, np.concatenate([x, x[:, ::-1]], axis=1))
        turned = layer(params, np.concatenate([x[:, ::-1], x], axis=1))
    assert relative_error(np.roll(turned, 10, axis=1), np.asarray(y)) < 1e-12


@variants(["causal"], kind=["causal", "two", "glu"])
def test_distribution_of_initial_parameters(kind):
    two = {"bidirectional": True, "dt_per_direction": True, "dt_transform": "softplus"}
    options = hope.Options(**{"causal": {}, "two": two, "glu": two | {"readout": "glu"}}[kind])
    params = jax.tree.map(np.float64, jax.jit(lambda key: hope.init(key, 300, options))(jax.random.key(0)))
    shapes = {
        "causal": {"h": (300, 64), "log_step": (300, 1), "D": (300,)},
        "two": {"h": (2, 300, 64, 2), "log_step": (2, 300, 1), "D": (300,)},
        "glu": {"h": (2, 300, 64, 2), "log_step": (2, 300, 1), "D": (2, 300)},
    }[kind]
    if kind == "glu":
        assert np.abs(params["out_kernel"]).max() == pytest.approx(600**-0.5, rel=1e-3)
        shapes |= {"out_kernel": (600, 600), "out_bias": (600,)}
    assert {name: value.shape for name, value in params.items()} == shapes
    assert np.sqrt((params["h"] ** 2).mean() * (1 if kind == "causal" else 2)) == pytest.approx(0.5 / 8, rel=0.02)
    log_step = np.log(hope.time_step({"log_step": jnp.float32(params["log_step"])}, options))
    assert np.log(0.001) <= log_step.min() and log_step.max() <= np.log(0.1) + 1e-6
    assert log_step.std() == pytest.approx(np.log(100) / 12**0.5, rel=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state_size": 0}, "state_size must lie in 1..16384, got 0"),
        ({"h_scale": 0.0}, "h_scale must be positive, got 0.0"),
        ({"bidirectional": True, "mirror": False, "readout": "glu"}, "readout glu needs mirror=True"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        hope.Options(**options)


def test_what_two_directions_refuse():
    params, options = make(bidirectional=True, mirror=False)
    params = jax.tree.map(jnp.float32, params)
    with pytest.raises(ValueError, match="needs sequences of even length, got 7"):
        hope.apply(params, jnp.zeros((1, 7, 3)), options)
    with pytest.raises(ValueError, match="no impulse response"):
        hope.kernel(params, 8, options)
    with pytest.raises(ValueError, match="no transfer function"):
        hope.transfer_function(params, jnp.zeros(1, jnp.complex64), options)
