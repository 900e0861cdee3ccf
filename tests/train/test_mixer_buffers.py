"""Buffers of mixers in training: they are averaged, stored and restored with the batch statistics."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import tiny
from numerics import relative_error

from s5jax.train import build as builds
from s5jax.train import loop
from s5jax.train.checkpoint import Checkpoints
from s5jax.train.program import Program

FIELDS = ("--config.model.pattern=('small_mixers.remembering',)", "--config.model.depth=2", "--config.train.steps=6")
FIELDS += ("--config.model.activation=none", "--config.train.eval_every_steps=6", "--config.train.warmup_epochs=0")
FIELDS += ("--config.model.norm=none",)


def means(stats):
    """The buffer of each block, (repetitions, H), of each place of the pattern."""
    return [np.asarray(layer["buffers"]["seen"]["mean"]) for layer in stats["encoder"]["layers"].values()]


def config_of(*fields):
    return tiny.config(*FIELDS, *fields)


def after_steps(program, state, first, last):
    state = program.place(state)
    order = itertools.islice(loop._order(program.experiment, None, first), last - first)
    for number, feed in enumerate(program.feeder.feeds("train", order), first):
        state, _ = program.step(state, feed, number)
    return state


def test_a_run_that_is_resumed(tmp_path):
    config = config_of("--config.optim.average=0.5")
    experiment, start = builds.build(config, builds.load_task(config))
    start, program = jax.tree.map(np.asarray, start), Program(experiment)
    whole = after_steps(program, start, 0, 6)
    (mean,) = means(whole.batch_stats)
    assert mean.shape == (2, 4) and (np.abs(mean) > 1e-3).any(1).all()
    (averaged,) = means(whole.average["batch_stats"])
    assert relative_error(averaged, mean) > 0.01

    half = after_steps(program, start, 0, 3)
    with Checkpoints(tmp_path, config) as checkpoints:
        checkpoints.save(half, {"best_step": 3})
        checkpoints.wait()
        stored = checkpoints.restore(3, half)
    resumed = after_steps(program, stored, 3, 6)
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)


def test_micro_batches_update_the_buffers_one_after_the_other():
    config = config_of("--config.optim.micro_batches=2")
    experiment, start = builds.build(config, builds.load_task(config))
    start, program = jax.tree.map(np.asarray, start), Program(experiment)
    feed = next(program.feeder.feeds("train", loop._order(experiment, None, 0)))
    inputs = np.asarray(experiment.task.prepare(jnp.asarray(experiment.task.splits["train"].inputs)))
    x = inputs[np.asarray(feed.places)].reshape(-1, 2, *inputs.shape[1:])
    kernel, bias = (np.float64(start.params["encoder"]["encoder"][name]) for name in ("kernel", "bias"))
    expected = np.zeros(4)
    for part in np.moveaxis(x, 1, 0):  # one after the other
        expected = 0.75 * expected + 0.25 * (np.float64(part) @ kernel + bias).mean((0, 1))
    (mean,) = means(after_steps(program, start, 0, 1).batch_stats)
    assert relative_error(mean[0], expected) < 1e-5
