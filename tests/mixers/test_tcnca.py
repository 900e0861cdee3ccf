"""TCNCA: what is its own. The rest is the contract and MEGA's tests."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s5jax.mixers import tcnca

SMALL = {"key_size": 4, "chunk": 1, "taps": 3, "levels": 3, "dilation": 4}


@pytest.mark.parametrize("two", [False, True])
def test_the_receptive_field(two):
    """With chunks of one sample only the network connects samples: 2 (1 + 4 + 16) of them in each direction."""
    options = tcnca.Options(**SMALL, bidirectional=two)
    params = tcnca.init(jax.random.key(0), 3, options)
    x = jax.random.normal(jax.random.key(1), (1, 99, 3))
    moved = x.at[0, 49].add(1.0)
    apart = np.abs(tcnca.apply(params, x, options)[0] - tcnca.apply(params, moved, options)[0]).max((0, 2)) > 0
    places = np.flatnonzero(apart)
    assert places[0] == (49 - 42 if two else 49) and places[-1] == 49 + 42


def test_initial_parameters():
    options = tcnca.Options(key_size=8, taps=4, levels=5, bidirectional=True)
    params = tcnca.init(jax.random.key(0), 64, options, length=100)
    assert params["tcn_kernel"].shape == (2, 5, 64, 4) and params["bias"].shape == (199,)
    assert params["tcn_kernel"].std() == pytest.approx(0.5, rel=0.1) and not jnp.any(params["tcn_bias"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"taps": 0}, "taps must lie in 1..1024, got 0"),
        ({"levels": 65}, "levels must lie in 1..64, got 65"),
        ({"levels": 30}, "a network of 30 levels with dilation 2 sees too many samples"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        tcnca.Options(**options)
