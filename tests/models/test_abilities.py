"""Mixers with unusual abilities, or with none: modules of `small_mixers`, as a user would write them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numerics import relative_error
from small_models import build, quick_key, split, values

L, B = 7, 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mask": jnp.zeros((B, L), bool)}, "averaging takes no mask of missing samples"),
        ({"reset": jnp.zeros((B, L), bool)}, "averaging takes no reset: it expects one sequence per row"),
        ({"rate": 2.0}, "averaging takes no rate: it has no step size"),
    ],
)
def test_what_a_mixer_would_ignore_is_refused(arguments, message):
    model = build("averaging", depth=1)
    with pytest.raises(ValueError, match=f"^{message}$"):
        model(values(B, L, 2), **arguments)


def test_a_mixer_without_abilities():
    model = build("averaging", norm="none", activation="none", residual=False, depth=3)
    inputs = values(B, L, 2)
    _, params, _ = split(model)
    x = np.float64(inputs) @ np.float64(params["encoder"]["encoder"]["kernel"])
    x = x + np.float64(params["encoder"]["encoder"]["bias"])
    for kernel in np.float64(params["encoder"]["layers"][0]["seq"]["map"]["kernel"]):
        x = (x + x.mean(1, keepdims=True)) @ kernel
    expected = x.mean(1) @ np.float64(params["decoder"]["kernel"]) + np.float64(params["decoder"]["bias"])
    assert relative_error(model(inputs), expected) < 1e-5
    for recurrent in (lambda: model.init_state(B), lambda: model.rollout(model.init_state(B), inputs)):
        with pytest.raises(ValueError, match="averaging has no init_state and no step"):
            recurrent()
    state = build("s5").init_state(B)
    with pytest.raises(ValueError, match="averaging reads in both directions: it cannot start from a state"):
        model.prefill(state, inputs)


def test_steps_refuse_what_a_mixer_would_ignore():
    model = build("leaky")
    state, cells = model.init_state(B), model.discretize()
    for name, message in (("mask", "leaky takes no mask"), ("reset", "leaky takes no reset")):
        with pytest.raises(ValueError, match=message):
            model.step(state, values(B, 2), cells, **{name: jnp.zeros(B, bool)})


@pytest.mark.parametrize("prenorm", [True, False])
def test_a_mixer_with_its_own_residual(prenorm):
    """The block gives it its own input, not the normalised one, and adds nothing itself."""
    model = build("skipping", norm="layer", prenorm=prenorm, depth=1, head="step", dropout=0.5)
    inputs = values(B, L, 2)
    (block,) = model.encoder.blocks
    x = np.float64(model.encoder.encode(inputs))
    g, w = (np.float64(block.params[name]) for name in "gw")

    def normalize(x):
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)

    y = g * x + (1 - g) * w * (normalize(x) if prenorm else x)
    y = y if prenorm else normalize(y)
    expected = y @ np.float64(model.decoder.kernel[...]) + np.float64(model.decoder.bias[...])
    assert relative_error(model(inputs), expected) < 1e-5
    assert (
        relative_error(model(inputs, key=quick_key(0), train=True), expected) < 1e-5
    )  # neither activation nor dropout
    assert not hasattr(block, "out2")
    assert relative_error(model.rollout(model.init_state(B), inputs)[0], expected) < 1e-5


@pytest.mark.slow
def test_dropout_inside_a_mixer():
    model = build("noisy", "leaky", depth=4, d_model=50, norm="none", activation="none", residual=False, head="step")
    inputs = values(B, L, 2)
    run = jax.jit(lambda key, rate: model.encoder(inputs, key=key, dropout=rate)[0])
    one, same, other = (run(quick_key(i), 0.3) for i in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert relative_error(one, other) > 0.1
    assert relative_error(run(quick_key(0), 0.0), jax.jit(model.encoder)(inputs)[0]) < 1e-6
    # What each block drops, in its mixer and after it: features that are zero after one that only drops.
    dropping = build("noisy", depth=1, d_model=400, norm="none", activation="none", residual=False)
    several = build("noisy", depth=2, d_model=400, norm="none", activation="none", residual=False)
    shares = [
        np.mean(np.asarray(jax.jit(m.encoder)(inputs, key=quick_key(3), dropout=0.3)[0])[0, 0] == 0)
        for m in (dropping, several)
    ]
    for share, kept in zip(shares, (0.7**2, 0.7**4), strict=True):  # each time others
        assert abs(1 - share - kept) < 4 * (kept * (1 - kept) / 400) ** 0.5
