"""Mamba-2: initial parameters and options. tests/ssm/test_ssd.py compares its algorithm with recorded numbers."""

import jax
import numpy as np
import pytest

from s5jax.mixers import mamba2


def test_initial_parameters():
    options = mamba2.Options(state_size=4, head_dim=2, groups=2, A_min=2.0, A_max=5.0)
    params = jax.tree.map(np.float64, mamba2.init(jax.random.key(0), 100, options, depth=4))
    shapes = {"in_proj_kernel": (100, 200 + 216 + 100), "conv_kernel": (216, 4), "conv_bias": (216,)}
    shapes |= dict.fromkeys(("dt_bias", "A_log", "D"), (100,)) | {"norm_scale": (200,), "out_proj_kernel": (200, 100)}
    assert {name: value.shape for name, value in params.items()} == shapes
    bounds = {"in_proj_kernel": 0.1, "conv_kernel": 0.5, "conv_bias": 0.5, "out_proj_kernel": 200**-0.5 / 2}
    for name, bound in bounds.items():
        assert np.abs(params[name]).max() < bound * (1 + 1e-6)
        assert params[name].std() == pytest.approx(bound / np.sqrt(3), rel=0.1)
    A, dt = np.exp(params["A_log"]), np.log1p(np.exp(params["dt_bias"]))
    assert A.min() > 2 and A.max() < 5 and A.mean() == pytest.approx(3.5, rel=0.1)
    assert dt.min() > 0.001 * (1 - 1e-4) and dt.max() < 0.1 * (1 + 1e-4)
    assert (params["D"] == 1).all() and (params["norm_scale"] == 1).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head_dim": 0}, "head_dim must lie in 1..65536, got 0"),
        ({"block": 0}, "block must lie in 1..8192, got 0"),
        ({"A_min": 0.0}, "A_min and A_max must satisfy 0 < A_min <= A_max, got 0.0 and 16.0"),
        ({"dt_max": 0.0001}, "dt_min and dt_max must satisfy"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        mamba2.Options(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head_dim": 3}, "head_dim must divide the 16 features of the state space, got 3"),
        ({"head_dim": 4, "groups": 3}, "groups must divide the number of heads, 4, got 3"),
    ],
)
def test_sizes_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        mamba2.init(jax.random.key(0), 8, mamba2.Options(**options))
