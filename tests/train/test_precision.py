"""bfloat16 activations, and the precision of products."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from everyday import variants
from flax import nnx
from small_models import MIXERS, build, values

from s5jax import mixers
from s5jax.data.task import Split
from s5jax.mixers import s5
from s5jax.train import build as builds
from s5jax.train import loop, resolve
from s5jax.train.program import Program

SMALL = ("model.depth=2", "model.d_model=24", "mixers.s5.state_size=18", "train.batch_size=16", "num_devices=1")


@pytest.fixture(scope="module")
def images():
    """Images whose brightness and grain depend on their class."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 400).astype(np.int32)
    grain = rng.normal(size=(400, 1024, 1)) * (4 + 4 * labels[:, None, None])
    inputs = np.clip(80 + 8 * labels[:, None, None] + grain, 0, 255).astype(np.uint8)
    return Split(inputs, labels)


def first_losses(images, *fields):
    """The losses of the first 50 steps of the Image recipe, and the state after them."""
    values = resolve.load_config(f"{tiny.ROOT}/configs/lra/image.py:s5")
    resolve.override(values, [f"--config.{field}" for field in (*SMALL, "train.warmup_epochs=0", *fields)])
    config = resolve.resolve(values)
    task = dataclasses.replace(tiny.load_blank_task(config), splits=dict.fromkeys(("train", "val", "test"), images))
    experiment, state = builds.build(config, task)
    program, losses = Program(experiment), []
    state, feeds = program.place(state), program.feeder.feeds("train", loop._order(experiment, None, 0))
    with jax.numpy_dtype_promotion("standard"):
        for step in range(50):
            state, metrics = program.step(state, next(feeds), step)
            losses.append(np.divide(*metrics["loss"]))
    return np.array(losses), state


def test_losses_in_bfloat16_are_those_in_float32(images):
    """Within 2 %, over 50 steps in which the loss falls."""
    expected, _ = first_losses(images)
    losses, state = first_losses(images, "model.dtype=bfloat16")
    assert expected[-5:].mean() < 0.9 * expected[0]
    np.testing.assert_allclose(losses, expected, rtol=0.02)
    assert np.abs(losses / expected - 1).max() > 1e-6
    kept = {"params": state.params, "batch_stats": state.batch_stats, "optimizer": state.opt_state}
    assert {x.dtype for x in jax.tree.leaves(kept) if jnp.issubdtype(x.dtype, jnp.floating)} == {jnp.dtype("float32")}


def products(jaxpr):
    """The types and precisions of all matrix products in a program."""
    found = set()
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            found.add((str(equation.invars[0].aval.dtype), str(equation.params["precision"])))
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            found |= products(inner) if hasattr(inner, "eqns") else set()
    return found


@pytest.mark.parametrize(("norm", "mlp"), [("batch", 0), ("layer", 2)])
def test_what_is_bfloat16(norm, mlp):
    """The dense products of blocks; not those of mixers, nor of the head."""
    x = values(2, 9, 2)
    model = build("s5", norm=norm, mlp=mlp, dtype="bfloat16", activation="full_glu")
    types = products(jax.make_jaxpr(lambda x: model(x))(x).jaxpr)
    assert types == {("bfloat16", "None"), ("float32", "None")}
    full = build("s5", norm=norm, mlp=mlp, activation="full_glu")
    assert products(jax.make_jaxpr(lambda x: full(x))(x).jaxpr) == {("float32", "None")}
    assert model(x).dtype == jnp.float32
    np.testing.assert_allclose(model(x), full(x), atol=0.03)


def test_gradients_of_biases_are_sums_in_float32():
    """Over 4,000 samples; in bfloat16 such a sum stops growing at 256 times its terms."""
    x = values(4, 1000, 2)

    def gradient(dtype):
        model = build("s5", dtype=dtype, activation="full_glu", norm="layer")
        graphdef, params, rest = nnx.split(model, nnx.Param, ...)
        loss = lambda params: jnp.sum(nnx.merge(graphdef, params, rest)(x) ** 2)  # noqa: E731
        found = nnx.to_pure_dict(jax.jit(jax.grad(loss))(params))["encoder"]["layers"][0]
        return [found["out1"]["bias"], found["out2"]["bias"]]

    for actual, expected in zip(gradient("bfloat16"), gradient("float32"), strict=True):
        assert np.linalg.norm(actual - expected) < 0.02 * np.linalg.norm(expected)


@variants(["s5"], name=["s5", "s4d", "s4", "lru", "attention"])
def test_step_by_step_in_bfloat16(name):
    """The samples of blocks are rounded alike, so only sums in another order differ."""
    x, model = values(2, 9, 2), build(name, dtype="bfloat16", norm="layer")
    outputs, end = model.rollout(model.init_state(2, max_length=9), x)
    np.testing.assert_allclose(outputs[:, -1], model(x), atol=0.01)
    states = [leaf.dtype for leaf in jax.tree.leaves(end) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    assert jnp.dtype("bfloat16") not in states


@variants(["s5", "attention"], name=list(MIXERS))
def test_a_mixer_takes_bfloat16(name):
    mixer, options = MIXERS[name]
    mixer, x = mixers.find(mixer), values(2, 9, 4).astype(jnp.bfloat16)
    params = jax.jit(lambda key: mixer.init(key, 4, options, depth=1, length=9))(jax.random.key(0))
    y, _ = mixer.apply(params, x, options)
    np.testing.assert_array_equal(y, mixer.apply(params, x.astype(jnp.float32), options)[0])


def test_parameters_in_bfloat16_are_refused():
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), s5.init(jax.random.key(0), 4))
    with pytest.raises(ValueError, match="parameters must be float32 or float64, got bfloat16"):
        s5.apply(params, values(2, 9, 4))


@pytest.mark.parametrize("precision", [pytest.param("high", marks=pytest.mark.slow), "highest"])
def test_the_precision_of_products_is_that_of_the_config(precision):
    """In the compiled training step; a CPU does not tell one from the other."""
    config = tiny.config(f"--config.train.matmul_precision={precision}")
    experiment, state = builds.build(config, builds.load_task(config))
    program = Program(experiment)
    feeds = program.feeder.feeds("train", loop._order(experiment, None, 0))
    with jax.numpy_dtype_promotion("standard"):
        feed = next(feeds)
        with program.here():
            text = program.step_at(None).lower(program.place(state), feed[:2], experiment.hyper(0)).as_text()
    assert f"precision = [{precision.upper()}, {precision.upper()}]" in text and "[DEFAULT, DEFAULT]" not in text
