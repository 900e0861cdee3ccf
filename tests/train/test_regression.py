"""Tasks whose labels are numbers, through the whole program."""

import argparse
import json
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx
from numerics import relative_error

from s5jax.data.task import Split, Task
from s5jax.objectives import regression
from s5jax.train import loop, trained
from s5jax.train.build import build
from s5jax.train.config import UserError
from s5jax.train.program import Program


def mean_and_size(sizes=(640, 99, 33)):
    """The task: predict a noisy sequence's mean and the mean of its absolute values."""
    rng, splits = np.random.default_rng(0), {}
    for name, size in zip(("train", "val", "test"), sizes, strict=True):
        inputs = rng.normal(size=(size, 7, 1)) + rng.normal(size=(size, 1, 1))
        splits[name] = Split(inputs, np.stack([inputs.mean((1, 2)), np.abs(inputs).mean((1, 2))], axis=1))
    return Task(name="mine", splits=splits, length=7, targets=2, tolerance=0.5)


def by_hand(predictions, labels, tolerance):
    off = np.float64(predictions) - labels
    return np.mean(off**2), np.mean(np.all(np.abs(off) <= tolerance, axis=1))


def test_loss_its_gradient_and_what_is_right():
    rng = np.random.default_rng(1)
    labels = rng.normal(size=(50, 3))
    predictions = labels + 0.3 * rng.normal(size=(50, 3))
    batch = {"labels": jnp.float32(labels)}
    metrics = regression.objective(jnp.float32(predictions), batch, tolerance=0.4)
    loss, accuracy = by_hand(predictions, labels, 0.4)
    assert metrics["loss"] == pytest.approx((50 * loss, 50), rel=1e-5)
    assert metrics["accuracy"] == (50 * accuracy, 50) and 0 < accuracy < 1
    slope = jax.grad(lambda p: regression.objective(p, batch)["loss"][0])(jnp.float32(predictions))
    assert relative_error(slope, 2 / 3 * (predictions - labels)) < 1e-5


@pytest.mark.parametrize("what", ["evaluation", pytest.param("step", marks=pytest.mark.slow)])
def test_one_step_and_an_evaluation_by_hand(what):
    """The first step's loss, or an evaluation whose last batch is padded, against the model's predictions in NumPy."""
    config, task = tiny.config("--config.model.norm=layer", "--config.model.dropout=0.0"), mean_and_size()
    experiment, state = build(config, task)
    program = Program(experiment)
    model = jax.jit(nnx.merge(experiment.graphdef, state.params, state.batch_stats))
    index = np.arange(64 if what == "step" else 99)
    split = task.splits["train" if what == "step" else "val"]
    expected = by_hand(model(jnp.float32(split.inputs[index])), split.labels[index], 0.5)
    state = program.place(state)
    if what == "step":
        (feed,) = program.feeder.feeds("train", [index])
        _, metrics = program.step(state, feed, 0)
        found = [metrics[name][0] / metrics[name][1] for name in ("loss", "accuracy")]
    else:
        values = program.evaluate(state, "val")
        found = [values["loss"], values["accuracy"]]
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_a_run_learns_is_reported_and_cannot_be_streamed(monkeypatch, tmp_path):
    monkeypatch.setattr(loop, "load_task", lambda config: mean_and_size())
    monkeypatch.setattr(trained, "load_task", lambda config: mean_and_size())
    monkeypatch.chdir(tiny.ROOT)
    fields = (
        "--config.mixers.s5.bidirectional=false",
        "--config.model.d_model=16",
        "--config.model.dropout=0.0",
        "--config.train.epochs=15",
        "--config.optim.lr=0.01",
    )
    result = loop.train(tiny.config(*fields), tmp_path)
    assert result["test/accuracy"] > 0.6 and result["test/loss"] < 0.3
    assert result == json.loads((tmp_path / "result.json").read_text())
    task, model = trained.load(tmp_path)[1:3]
    split = task.splits["test"]
    loss, accuracy = by_hand(model(task.prepare(jnp.asarray(split.inputs))), split.labels, 0.5)
    assert (result["test/loss"], result["test/accuracy"]) == pytest.approx((loss, accuracy), rel=1e-4)

    stream = runpy.run_path("scripts/stream.py")["run"]
    with pytest.raises(UserError, match="task mine is a regression: its models have no class probabilities to show"):
        stream(argparse.Namespace(workdir=tmp_path, checkpoint="best"))
