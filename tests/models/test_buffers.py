"""Buffers of mixers, here a running mean: training updates them, in scanned blocks too; everything else reads them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from numerics import relative_error
from small_models import build, differentiated, split, values

L, B = 7, 3
PLAIN = {"norm": "none", "activation": "none", "head": "step"}


def means(stats):
    """The buffer of each block, (repetitions, H), of each place of the pattern."""
    return [np.asarray(layer["buffers"]["seen"]["mean"]) for layer in stats["encoder"]["layers"].values()]


@pytest.mark.parametrize("unroll", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("pattern", [("remembering",), ("remembering", "s5")])
def test_training_updates_the_buffers_of_each_block(pattern, unroll):
    model = build(*pattern, depth=3, **PLAIN, unroll=unroll)
    graphdef, params, _ = split(model)
    inputs, lengths = values(B, L, 2), jnp.array([L, 2, 5])
    after = differentiated(model, train=True)(params, inputs, values(B, L, 3, seed=1), {"lengths": lengths})
    x, found = model.encoder.encode(inputs), [[] for _ in pattern]
    for i, block in enumerate(model.encoder.blocks):
        if block.mixer_name.endswith("remembering"):
            counted = np.arange(L) < np.asarray(lengths)[:, None]
            found[i % len(pattern)].append(0.25 * np.asarray(x)[counted].mean(0))
        x = block(x)[0]
    assert means(after["stats"])[0].shape == np.shape(found[0]) and len(found[0]) > 1
    assert relative_error(means(after["stats"])[0], np.stack(found[0])) < 1e-6

    moved = nnx.merge(graphdef, params, after["stats"])
    before = jax.tree.map(np.asarray, split(moved)[2])
    outputs = moved(inputs)
    assert relative_error(model(inputs), outputs) > 0.01
    jax.tree.map(np.testing.assert_array_equal, split(moved)[2], before)  # an evaluation changes nothing
    assert relative_error(jax.jit(moved.rollout)(moved.init_state(B), inputs)[0], outputs) < 1e-5
    assert relative_error(moved.prefill(moved.init_state(B), inputs)[0], outputs) < 1e-6
