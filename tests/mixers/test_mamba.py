"""Mamba against the published code's recorded numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everyday import variants
from numerics import load_case, relative_error

from s5jax.mixers import mamba

OURS = {
    "in_proj_kernel": "in_proj.weight",
    "in_proj_bias": "in_proj.bias",
    "conv_kernel": "conv1d.weight",
    "conv_bias": "conv1d.bias",
    "x_proj_kernel": "x_proj.weight",
    "dt_proj_kernel": "dt_proj.weight",
    "dt_proj_bias": "dt_proj.bias",
    "out_proj_kernel": "out_proj.weight",
    "out_proj_bias": "out_proj.bias",
    "A_log": "A_log",
    "D": "D",
}


def ours(recorded):
    params = {name: recorded[theirs] for name, theirs in OURS.items() if theirs in recorded}
    params = {name: value.T if name.endswith("proj_kernel") else value for name, value in params.items()}
    return {**params, "conv_kernel": params["conv_kernel"][:, 0, ::-1]}


@variants(
    [("mamba_block", False, "auto"), ("mamba_block_bias", True, "auto")],
    case=["mamba_block", "mamba_block_bias"],
    double=[False, True],
    method=["auto", "associative", "plain"],
)
def test_recorded_blocks(case, double, method):
    meta, data = load_case(case)
    options = mamba.Options(
        state_size=meta["d_state"],
        expansion=meta["d_inner"] // meta["d_model"],
        conv_size=meta["d_conv"],
        dt_rank=meta["dt_rank"],
        bias=meta.get("bias", False),
        scan_method=method,
    )

    def weighted_sum(params, x, w):
        y, state = mamba.apply(params, x, options)
        assert state is None
        return jnp.sum(y * w), y

    with jax.enable_x64(double):
        dtype = np.float64 if double else np.float32
        given = jax.tree.map(lambda v: jnp.asarray(v, dtype), (ours(data["param"]), data["x"], data["w"]))
        (of_params, of_x), y = jax.jit(jax.grad(weighted_sum, (0, 1), has_aux=True))(*given)
    assert y.dtype == dtype
    assert relative_error(y, data["y"]) < (1e-9 if double else 1e-5)
    within = 1e-9 if double else 1e-4
    assert relative_error(of_x, data["grad_x"]) < within
    expected = ours(data["grad"])
    assert set(of_params) == set(expected)
    for name, value in expected.items():
        assert relative_error(of_params[name], value) < within, name


def test_initial_parameters():
    options = mamba.Options(state_size=4, expansion=3, bias=True, dt_min=0.01, dt_max=0.2, dt_floor=0.02)
    params = jax.tree.map(np.float64, mamba.init(jax.random.key(0), 40, options, depth=4))
    shapes = {"in_proj_kernel": (40, 240), "conv_kernel": (120, 4), "x_proj_kernel": (120, 11), "A_log": (120, 4)}
    shapes |= {"dt_proj_kernel": (3, 120), "out_proj_kernel": (120, 40), "in_proj_bias": (240,), "out_proj_bias": (40,)}
    shapes |= dict.fromkeys(("conv_bias", "dt_proj_bias", "D"), (120,))
    assert {name: value.shape for name, value in params.items()} == shapes
    bounds = {"in_proj_kernel": 40**-0.5, "conv_kernel": 0.5, "conv_bias": 0.5, "x_proj_kernel": 120**-0.5}
    bounds |= {"dt_proj_kernel": 3**-0.5, "out_proj_kernel": 120**-0.5 / 2}
    for name, bound in bounds.items():
        assert np.abs(params[name]).max() < bound * (1 + 1e-6)
        assert params[name].std() == pytest.approx(bound / np.sqrt(3), rel=0.1)
    np.testing.assert_allclose(np.exp(params["A_log"]), np.tile(np.arange(1, 5), (120, 1)), rtol=1e-6)
    dt = np.log1p(np.exp(params["dt_proj_bias"]))
    assert dt.min() == pytest.approx(0.02, rel=1e-4) and 0.15 < dt.max() < 0.2 * (1 + 1e-5)
    assert np.median(dt) == pytest.approx(np.sqrt(0.01 * 0.2), rel=0.3)
    assert (params["D"] == 1).all() and not params["in_proj_bias"].any() and not params["out_proj_bias"].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state_size": 0}, "state_size must lie in 1..8192, got 0"),
        ({"conv_size": 0}, "conv_size must lie in 1..1024, got 0"),
        ({"dt_rank": -1}, "dt_rank must lie in 0..65536, got -1"),
        ({"dt_floor": -1.0}, "dt_floor must be at least 0, got -1.0"),
        ({"dt_min": 0.0}, "dt_min and dt_max must satisfy"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        mamba.Options(**options)
