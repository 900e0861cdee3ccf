"""SGConv against the published code's recorded numbers, and its initial parameters."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everyday import variants
from numerics import load_case, relative_error

from s5jax.mixers import sgconv

CASES = ["cat_bidirectional", "cat_causal_padded", "learnable_decay", "sum_nearest", "block_glu"]


def recorded(case):
    """Options, and for each channel its parameters and its place in the recorded arrays."""
    meta, data = load_case(f"sgconv_{case}")
    param, buffer = data["param"], data["buffer"]
    options = sgconv.Options(
        kernel_dim=meta["kernel_dim"],
        mode=meta["mode"].split("_")[0],
        interpolation="nearest" if "nearest" in meta["mode"] else "linear",
        learnable_decay="learnable" in meta["mode"],
        decay_min=float(meta["decay_min"]),
        decay_max=float(meta["decay_max"]),
        bidirectional=meta.get("bidirectional", False),
    )
    taps = np.stack([param[f"kernel_list.{i}"] for i in range(meta["n_scales"])])
    channels = []
    for c in range(meta.get("channels", 1)):
        rows = [c, c + len(param["D"])] if options.bidirectional else [c]
        params = {"kernel_list": taps[:, rows], "D": param["D"][c], "kernel_norm": buffer["kernel_norm"][rows]}
        channels.append((params | {n: param[n] for n in ("decay",) if n in param}, rows))
    return meta, data, options, channels


def glu_of_gelu(y, W, b):
    """The published output layer."""
    a, gate = jnp.split(jax.nn.gelu(y, approximate=False) @ W.T + b, 2, axis=-1)
    return a * jax.nn.sigmoid(gate)


@variants(
    [("cat_bidirectional", False), ("cat_causal_padded", True), ("learnable_decay", True), ("sum_nearest", False)],
    case=CASES,
    double=[False, True],
)
def test_recorded_outputs_and_gradients(case, double):
    meta, data, options, channels = recorded(case)
    length, H = data["u"].shape[-1], meta["H"]
    u, w = (np.swapaxes(data[name], 1, 2) for name in ("u", "w"))
    of_u, dtype = 0.0, np.float64 if double else np.float32
    values, gradients = (1e-9, 1e-9) if double else (1e-5, 1e-4)
    layer = {n: data["param"][f"output_linear.0.{n}"] for n in ("weight", "bias") if not meta.get("linear")}

    def weighted_sum(inputs, w):
        y, state = sgconv.apply(inputs["params"], inputs["u"], options)
        assert state is None
        if layer:
            with jax.numpy_rank_promotion("allow"):
                y = glu_of_gelu(y, inputs["layer"]["weight"], inputs["layer"]["bias"])
        return jnp.sum(y * w), y

    for c, (params, rows) in enumerate(channels):
        with jax.enable_x64(double):
            part = slice(c * H, (c + 1) * H)
            args = {"params": params, "u": u, "layer": layer}
            args, w_c = jax.tree.map(lambda x: jnp.asarray(x, dtype), (args, w[..., part]))
            grad, y = jax.jit(jax.grad(weighted_sum, has_aux=True))(args, w_c)
            K = sgconv.kernel(args["params"], length, options)
        whole = data["kernel"][rows] / data["buffer"]["kernel_norm"][rows]
        assert y.dtype == dtype
        assert relative_error(y, np.swapaxes(data["y"], 1, 2)[..., part]) < values
        padded = np.zeros((*whole.shape[:2], length))
        padded[..., : whole.shape[-1]] = whole[..., :length]
        assert relative_error(K, padded) < values
        of_u = of_u + np.asarray(grad["u"])
        expected = np.stack([data["grad"][f"kernel_list.{i}"][rows] for i in range(meta["n_scales"])])
        assert relative_error(grad["params"]["kernel_list"], expected) < gradients
        assert relative_error(grad["params"]["D"], data["grad"]["D"][c]) < gradients
        assert not grad["params"]["kernel_norm"].any()
        if options.learnable_decay:
            assert relative_error(grad["params"]["decay"], data["grad"]["decay"]) < gradients
        for name in layer:
            assert relative_error(grad["layer"][name], data["grad"][f"output_linear.0.{name}"]) < gradients
    assert relative_error(np.swapaxes(of_u, 1, 2), data["grad_u"]) < gradients


@pytest.mark.parametrize("mode", ["cat", "sum"])
def test_initial_parameters(mode):
    options = sgconv.Options(
        kernel_dim=16, mode=mode, decay_min=0.5, decay_max=1.5, learnable_decay=True, bidirectional=True
    )
    params = sgconv.init(jax.random.key(0), 400, options, length=100)
    assert {name: x.shape for name, x in params.items()} == {
        "kernel_list": (4, 2, 400, 16), "kernel_norm": (2, 400, 1), "D": (400,), "decay": (400,)
    }  # fmt: skip
    for name, spread in {"kernel_list": 1, "D": 1, "decay": 1 / math.sqrt(12)}.items():
        n = params[name].size
        assert params[name].mean() == pytest.approx(float(name == "decay"), abs=4 * spread / math.sqrt(n))
        assert params[name].std() == pytest.approx(spread, rel=4 / math.sqrt(n))
    assert params["decay"].min() >= 0.5 and params["decay"].max() <= 1.5
    np.testing.assert_allclose(np.linalg.norm(sgconv.kernel(params, 128, options), axis=-1), 1, rtol=1e-5)


def test_number_of_scales():
    """The published number, 1 + ceil(log2(length / kernel_dim)), and at least one."""
    for T in (1, 5, 64):
        for length in (1, 2, 4, 5, 6, 10, 11, 63, 64, 65, 127, 128, 129, 1024, 16384):
            options = sgconv.Options(kernel_dim=T)
            draw = functools.partial(sgconv.init, width=1, options=options, length=length)
            shapes = jax.eval_shape(draw, jax.random.key(0))
            expected = max(1, 1 + math.ceil(math.log2(length / T)))
            assert shapes["kernel_list"].shape[0] == expected, (T, length)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_dim": 0}, "kernel_dim must lie in 1..65536, got 0"),
        ({"scales": 25}, "scales must lie in 0..24, got 25"),
        ({"decay_min": 3.0}, "must satisfy 0 < decay_min <= decay_max, got 3.0 and 2.0"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        sgconv.Options(**options)


def test_impossible_arguments():
    options = sgconv.Options(kernel_dim=2)
    params, x = sgconv.init(jax.random.key(0), 2, options, length=4), jnp.ones((1, 4, 2))
    with pytest.raises(ValueError, match="sgconv takes no rate: it has no step size"):
        sgconv.apply(params, x, options, rate=2.0)
    with pytest.raises(ValueError, match="sgconv takes no reset: it expects one sequence per row"):
        sgconv.apply(params, x, options, reset=jnp.zeros((1, 4), bool))
