"""GSS against the published code's recorded numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everyday import variants
from numerics import load_case, relative_error

from s5jax.mixers import gss

OURS = {
    "u_kernel": "to_u.0.weight",
    "v_kernel": "to_v.0.weight",
    "norm_scale": "dss.norm.weight",
    "norm_bias": "dss.norm.bias",
    "gate_kernel": "to_gate.weight",
    "out_kernel": "to_out.weight",
    "out_bias": "to_out.bias",
    "Lambda_real": "dss.Lambda_real",
    "Lambda_imag": "dss.Lambda_imag",
    "D": "dss.param_D",
}


def ours(recorded):
    params = {name: recorded[theirs] for name, theirs in OURS.items()}
    params = {name: value.T if name.endswith("kernel") else value for name, value in params.items()}
    return {**params, "C": np.stack([recorded["dss.C_real"], recorded["dss.C_imag"]], -1)}


@variants([("gss_layer", False)], case=["gss_layer", "gss_layer_reverse"], double=[False, True])
def test_recorded_layers(case, double):
    """Layer norm, GSS and residual sum. The reversed layer is that of the reversed sequence."""
    meta, data = load_case(case)
    recorded, L = data["param"], data["x"].shape[1]
    options = gss.Options(
        state_size=meta["dss_N"],
        features=meta["dss_H"],
        expansion=meta["dim_expansion_factor"],
        imag_transform="exp" if meta["lambda_imag_exp"] else "none",
    )
    order = np.arange(L)[::-1] if meta["reverse_seq"] else np.arange(L)

    def weighted_sum(arrays, w):
        x, norm = arrays["x"], arrays["norm"]
        scaled = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)
        y, state = gss.apply(arrays["seq"], scaled * norm["weight"][None, None] + norm["bias"][None, None], options)
        assert state is None
        return jnp.sum((x + y) * w), x + y

    norm = {name: recorded[f"norm.{name}"] for name in ("weight", "bias")}
    arrays = {"x": data["x"][:, order], "norm": norm, "seq": ours(recorded)}
    of_norm = {name: data["grad"][f"norm.{name}"] for name in norm}
    expected = {"x": data["grad_x"][:, order], "norm": of_norm, "seq": ours(data["grad"])}
    with jax.enable_x64(double):
        dtype = np.float64 if double else np.float32
        arrays, w = jax.tree.map(lambda v: jnp.asarray(v, dtype), (arrays, data["w"][:, order]))
        grads, y = jax.jit(jax.grad(weighted_sum, has_aux=True))(arrays, w)
    assert y.dtype == dtype
    assert relative_error(y, data["y"][:, order]) < (1e-9 if double else 1e-5)
    errors = jax.tree.map(relative_error, grads, expected)
    assert max(jax.tree.leaves(errors)) < (1e-9 if double else 1e-4), errors


def test_initial_parameters():
    options = gss.Options(state_size=64, features=128, expansion=3, bidirectional=True)
    params = jax.tree.map(np.float64, gss.init(jax.random.key(0), 48, options))
    shapes = {"u_kernel": (48, 144), "v_kernel": (48, 128), "gate_kernel": (128, 144), "out_kernel": (144, 48)}
    shapes |= {"out_bias": (48,), **dict.fromkeys(("norm_scale", "norm_bias", "D"), (128,))}
    shapes |= {**dict.fromkeys(("Lambda_real", "Lambda_imag"), (64,)), **dict.fromkeys(("C1", "C2"), (128, 64, 2))}
    assert {name: value.shape for name, value in params.items()} == shapes
    for name in ("u_kernel", "v_kernel", "gate_kernel", "out_kernel"):
        bound = 1 / np.sqrt(len(params[name]))
        assert np.abs(params[name]).max() < bound * (1 + 1e-6)
        assert params[name].std() == pytest.approx(bound / np.sqrt(3), rel=0.05)
    for name in ("C1", "C2"):
        for part in np.moveaxis(params[name], -1, 0):
            assert part.std() == pytest.approx(1, rel=0.05) and abs(part.mean()) < 0.05
    for name in ("Lambda_real", "Lambda_imag", "D"):
        assert params[name].std() == pytest.approx(1, rel=0.4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state_size": 0}, "state_size must lie in 1..8192, got 0"),
        ({"features": 0}, "features must lie in 1..65536, got 0"),
        ({"expansion": 0}, "expansion must lie in 1..1024, got 0"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        gss.Options(**options)
