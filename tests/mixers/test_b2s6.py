"""B2S6: initial parameters and options. There is no published code to compare with; `contract/b2s6.py` has a loop."""

import jax
import numpy as np
import pytest

from s5jax.mixers import b2s6


def test_initial_parameters():
    params = jax.tree.map(np.float64, b2s6.init(jax.random.key(0), 64, b2s6.Options(state_size=16, blocks=4)))
    shapes = {"A_real": (8,), "A_imag": (8,), "B_kernel": (4, 16, 8, 2), "B_bias": (64, 8, 2), "C_kernel": (4, 16, 8)}
    assert {n: v.shape for n, v in params.items()} == shapes | {"dt_kernel": (4, 16), "dt_bias": (64,), "D": (64,)}
    np.testing.assert_allclose(np.exp(params["A_real"]), 0.5, rtol=1e-6)
    np.testing.assert_allclose(params["A_imag"], np.pi * np.arange(8), rtol=1e-6)
    for name, bound in {"B_kernel": 0.075, "C_kernel": 128**-0.5, "dt_kernel": 0.075}.items():
        assert np.abs(params[name]).max() < bound * (1 + 1e-6)
        assert params[name].std() == pytest.approx(bound / np.sqrt(3), rel=0.15)
    assert (params["B_bias"] == [1, 0]).all() and (params["D"] == 1).all()
    dt = np.log1p(np.exp(params["dt_bias"]))
    assert dt.min() > 0.001 * (1 - 1e-4) and dt.max() < 0.1 * (1 + 1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state_size": 3}, "state_size must be even, got 3"),
        ({"state_size": 0}, "state_size must lie in 2..8192, got 0"),
        ({"blocks": 0}, "blocks must lie in 1..65536, got 0"),
        ({"dt_min": -1.0}, "dt_min and dt_max must satisfy"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        b2s6.Options(**options)


def test_blocks_that_do_not_fit():
    with pytest.raises(ValueError, match="blocks must divide the width; got 3 blocks for a width of 8"):
        b2s6.init(jax.random.key(0), 8, b2s6.Options(blocks=3))
