"""The recipes as models: how many parameters they have, and that each trains."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from s5jax.data.task import Split
from s5jax.train import resolve as configs
from s5jax.train.build import build as build_experiment
from s5jax.train.program import Program

RECIPES = (
    *(f"lra/{name}" for name in ("listops", "text", "retrieval", "image", "pathfinder", "pathx")),
    *("scifar", "smnist", "sfashion", "speech_commands", "spoken_digits"),
)
MODELS = ("s5", "s5-ptd", "s4d-legs", "s4d-inv", "s4d-lin", "s4-legs", "s4-ptd")
FAMILY = ("hope", "lru", "longconv", "rtf", "essm", "liquid", "s4d-ft", "dss-softmax", "mega", "b2s6")
TRANSFORMERS = ("transformer", "linear-transformer", "ponet", "transnormer", "transnormer-t1")


def build(recipe: str, *overrides: str):
    values = configs.load_config(f"{tiny.ROOT}/configs/{recipe}")
    configs.override(values, overrides)
    config = configs.resolve(values)
    return config, tiny.load_blank_task(config)


@pytest.mark.parametrize(
    ("recipe", "parameters"),
    [
        ("lra/listops.py:s5", 188_490),
        ("lra/text.py:s5", 1_321_154),
        ("lra/retrieval.py:s5", 772_098),
        ("lra/image.py:s5", 5_133_706),
        ("lra/pathfinder.py:s5", 1_113_602),
        ("lra/pathx.py:s5", 694_018),
        ("speech_commands.py:s5", 283_523),
        # Ours, by hand from the layers' shapes.
        ("scifar.py:s5", 5_134_730),
        ("smnist.py:s5", 138_634),
        ("smnist.py:s5,permuted", 200_970),
        ("sfashion.py:s5", 138_634),
        ("speech_commands.py:s5,sc10", 281_098),
        ("spoken_digits.py:s5", 17_482),
        # With conjugate halves, the perturbed models have no parameter more.
        ("lra/text.py:s5-ptd", 1_321_154),
    ],
)
def test_parameter_counts_are_the_published_ones(recipe, parameters):
    """The numbers of the published S5 code, from its shapes (batch statistics not counted). Nothing is allocated."""
    config, task = build(recipe)
    state = jax.eval_shape(lambda: build_experiment(config, task)[1])
    assert sum(x.size for x in jax.tree.leaves(state.params)) == parameters


def shrunk(recipe: str, model: str):
    """A recipe with the smallest of models, and its task with sequences of 24 steps and random contents."""
    config, task = build(
        f"{recipe}.py:{model},debug",
        "--config.num_devices=1",
        f"--config.model.depth={2 if 'transnormer' in model else 1}",
        "--config.model.d_model=4",
        "--config.train.batch_size=4",
        "--config.task.limit=8",
        *(["--config.task.permuted=false"] if "mnist" in recipe else []),
    )
    rng = np.random.default_rng(0)
    axis = 1 + task.pairs
    splits = {}
    for name, split in task.splits.items():
        shape = list(split.inputs.shape)
        shape[axis] = 24
        inputs = rng.integers(0, task.num_tokens or 100, shape).astype(split.inputs.dtype)
        lengths = None if split.lengths is None else rng.integers(1, 25, split.lengths.shape)
        splits[name] = Split(inputs, rng.integers(0, task.num_classes, len(split)), lengths)
    return config, dataclasses.replace(task, splits=splits, length=24)


# Each recipe with one model, in turn; the step of every pair is a slow test.
TRACED = [(recipe, MODELS[i % len(MODELS)]) for i, recipe in enumerate(RECIPES)]


@pytest.mark.parametrize(("recipe", "model"), TRACED)
def test_each_recipe_with_each_model_can_be_traced(recipe, model):
    """A training step by shapes alone: every parameter has a gradient of its shape, and logits are of the task."""
    config, task = shrunk(recipe, model)
    experiment, state = build_experiment(config, task)
    program = Program(experiment)
    (feed,) = program.feeder.feeds("train", [np.arange(4, dtype=np.int32)])
    with program.here():
        given = (state, (feed.examples, feed.places), experiment.hyper(0))
        after, metrics = jax.eval_shape(program.step_at(feed.length), *given)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
    assert metrics["loss"][0].shape == ()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "model"),
    [
        *((recipe, model) for recipe in RECIPES for model in MODELS),
        *(("lra/text", model) for model in (*FAMILY, *TRANSFORMERS)),
    ],
)
def test_each_recipe_with_each_model_takes_a_step(recipe, model):
    """A real step changes every trained parameter, and nothing is lost on the way: loss and gradient are finite."""
    config, task = shrunk(recipe, model)
    experiment, state = build_experiment(config, task)
    program = Program(experiment)
    before = jax.tree.map(np.asarray, state.params)
    (feed,) = program.feeder.feeds("train", [np.arange(4, dtype=np.int32)])
    state, metrics = program.step(program.place(state), feed, 0)
    assert np.isfinite(metrics["loss"][0]) and np.isfinite(metrics["grad_norm"][0]) and metrics["grad_norm"][0] > 0
    same = jax.tree.map(lambda a, b: np.array_equal(a, b), before, jax.tree.map(np.asarray, state.params))
    unchanged = [path for path, equal in jax.tree_util.tree_leaves_with_path(same) if equal]
    assert not unchanged
