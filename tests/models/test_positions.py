"""Positions added to the encoder's output."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numerics import relative_error
from small_models import build, split, values

from s5jax.models import positions
from s5jax.ssm.sequence import Sequences

B, L, H = 2, 11, 8


def test_sines_by_a_loop():
    for width in (8, 5):
        expected = np.zeros((500, width))
        for position, d in np.ndindex(500, width):
            angle = position * 10000.0 ** (-(d // 2 * 2) / width)
            expected[position, d] = np.cos(angle) if d % 2 else np.sin(angle)
        assert relative_error(positions.sines(500, width), expected) < 1e-12


@pytest.mark.parametrize("kind", ["sinusoidal", "learned"])
def test_positions_are_added_once_and_count_from_a_reset(kind):
    """The model with positions is the model without, whose encoder's bias is another at each step."""
    model = build("attention-two", norm="layer", positions=kind)
    x, reset = values(B, L, H), jnp.zeros((B, L), bool).at[0, 4].set(True).at[1, 0].set(True)
    place = np.stack([np.r_[np.arange(4), np.arange(7)], np.arange(11)])
    if kind == "learned":
        assert model.encoder.positions[...].shape == (32, H)
        assert float(model.encoder.positions[...].std()) == pytest.approx(0.02, rel=0.2)
        table = np.asarray(model.encoder.positions[...])
    else:
        table = positions.sines(L, H)
    y = positions.add(model.encoder, x, Sequences(reset=reset))
    assert relative_error(y - x, table[place]) < 1e-5

    inputs = values(B, L, 2)
    model.encoder.options, plain = dataclasses.replace(model.encoder.options, positions="none"), model.encoder.options
    without = model(inputs)
    model.encoder.options = plain
    assert relative_error(model(inputs), without) > 1e-3


def test_their_gradient_and_their_limits():
    model = build("s5-two", positions="learned")
    _, params, _ = split(model)
    assert params["encoder"]["positions"].shape == (32, H)
    with pytest.raises(ValueError, match="a sequence of 33 steps is longer than the table of 32 positions of training"):
        model(values(B, 33, 2))
    causal = build("s5", positions="sinusoidal")
    assert jax.jit(causal)(values(B, 33, 2)).shape == (B, 3)
    with pytest.raises(ValueError, match="positions sinusoidal of the model have no recurrent mode"):
        causal.init_state(2)
