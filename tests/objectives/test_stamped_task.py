"""A task with the time between its samples, missing ones and a Gaussian for each step, from training to evaluation.

The model is written out in NumPy, float64: an S5 block without norm, activation and gate, as a loop over the samples.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from everyday import variants
from numerics import relative_error

from s5jax.data.task import DataError, Split, Task
from s5jax.mixers import s5
from s5jax.models.options import Options
from s5jax.train.build import build
from s5jax.train.config import Config, Duration, Optim, Section, TaskConfig, Train
from s5jax.train.program import Program

L, C, TARGETS = 9, 2, 2
LR = 0.1


@pytest.fixture(autouse=True)
def optax_promotes_dtypes():
    with jax.numpy_dtype_promotion("standard"):
        yield


def split(n, seed):
    rng = np.random.default_rng(seed)
    inputs, mask = rng.normal(size=(n, L, C)).astype(np.float32), rng.random((n, L)) < 0.2
    inputs[mask] = np.nan
    lengths = rng.integers(1, L + 1, n)
    weights = rng.uniform(0.5, 2, (n, L)) * (rng.random((n, L)) < 0.9)
    return Split(
        inputs,
        rng.normal(size=(n, L, TARGETS)).astype(np.float32),
        lengths=lengths,
        mask=mask,
        rate=np.exp(rng.normal(size=(n, L))).astype(np.float32),
        weights=weights.astype(np.float32),
    )


@functools.cache
def stamped():
    splits = {name: split(n, n) for name, n in {"train": 8, "val": 10, "test": 3}.items()}
    return Task(
        name="stamped",
        splits=splits,
        length=L,
        channels=C,
        targets=TARGETS,
        per_step=True,
        objective="gaussian",
        judge=("mse", "min"),
    )


def config(batch_size=8, micro_batches=1, name="sgd", model=()):
    options = {"depth": 1, "d_model": 4, "norm": "none", "activation": "none", **dict(model)}
    return Config(
        task=TaskConfig(name="stamped"),
        model=Options(**options),
        mixers={"s5": Section(module="s5", options=s5.Options(state_size=4, dt_min=0.1, dt_max=1.0))},
        optim=Optim(
            name=name, lr=LR, weight_decay=0.0, grouping="plain", schedule="constant", micro_batches=micro_batches
        ),
        train=Train(batch_size=batch_size, duration=Duration(2.0), warmup=Duration(0.0)),
    )


def outputs_in_numpy(params, inputs, mask, rate):
    """The outputs for one sequence without padding."""
    at = jax.tree.map(np.float64, params)
    encoder, decoder, seq = (
        at["encoder"]["encoder"],
        at["decoder"],
        {k: x[0] for k, x in at["encoder"]["layers"][0]["seq"].items()},
    )
    B, C = (seq[name] @ [1, 1j] for name in "BC")
    Lambda = seq["Lambda_re"] + 1j * seq["Lambda_im"]
    state, outputs = np.zeros(len(Lambda), complex), []
    for u, missing, gap in zip(np.float64(inputs), mask, np.float64(rate), strict=True):
        x = (0 if missing else u @ encoder["kernel"]) + encoder["bias"]
        Lambda_bar = np.exp(Lambda * np.exp(seq["log_step"][:, 0]) * gap)
        entering = np.zeros_like(x) if missing else x
        state = Lambda_bar * state + (Lambda_bar - 1) / Lambda * (B @ entering)
        y = 2 * (C @ state).real + seq["D"] * entering
        outputs.append((x + y) @ decoder["kernel"] + decoder["bias"])
    return np.array(outputs)


def metrics_in_numpy(params, examples):
    """Sums over all steps that count, and their weight."""
    loss = mse = total = 0.0
    for i, n in enumerate(examples.lengths):
        outputs = outputs_in_numpy(params, examples.inputs[i, :n], examples.mask[i, :n], examples.rate[i, :n])
        mean, v = outputs[:, :TARGETS], outputs[:, TARGETS:]
        deviation = np.sqrt(np.maximum(np.where(v < 0, np.exp(v), v + 1), 1e-6))
        labels, weight = np.float64(examples.labels[i, :n]), np.float64(examples.weights[i, :n])
        loss -= (weight * scipy.stats.norm.logpdf(labels, mean, deviation).sum(-1)).sum()
        mse += (weight * ((mean - labels) ** 2).mean(-1)).sum()
        total += weight.sum()
    return {"loss": loss, "mse": mse}, total


def first_step(config):
    """What a training step on all eight examples does: its metrics, the parameters before and after it."""
    experiment, state = build(config, stamped())
    program = Program(experiment, num_devices=1)
    before = jax.tree.map(np.asarray, state.params)
    (feed,) = program.feeder.feeds("train", [np.arange(8, dtype=np.int32)])
    state, metrics = program.step(program.place(state), feed, 0)
    return jax.tree.map(np.asarray, (metrics, before, state.params))


def test_a_step_of_training():
    metrics, before, after = first_step(config())
    sums, total = metrics_in_numpy(before, stamped().splits["train"])
    for name, value in sums.items():
        np.testing.assert_allclose(metrics[name], (value, total), rtol=1e-5)
    # What the step has subtracted is lr times the gradient of the mean loss.
    gradient = jax.tree.map(lambda a, b: (np.float64(a) - b) / LR, before, after)
    rng = np.random.default_rng(0)
    for _ in range(5):
        along = jax.tree.map(lambda g: rng.normal(size=g.shape), gradient)
        moved = [jax.tree.map(lambda p, v, h=h: np.float64(p) + h * v, before, along) for h in (1e-5, -1e-5)]
        up, down = (metrics_in_numpy(p, stamped().splits["train"])[0]["loss"] / total for p in moved)
        expected = sum(jax.tree.leaves(jax.tree.map(lambda g, v: (g * v).sum(), gradient, along)))
        size = sum(jax.tree.leaves(jax.tree.map(lambda g: (g**2).sum(), gradient))) ** 0.5
        assert abs((up - down) / 2e-5 - expected) < 1e-4 * size


@pytest.mark.parametrize("batch_size", [4, 8])
def test_evaluation_counts_each_step_once(batch_size):
    """Ten examples, in batches of which the last is filled up."""
    experiment, state = build(config(batch_size), stamped())
    program = Program(experiment, num_devices=1)
    evaluated = program.evaluate(program.place(state), "val")
    sums, total = metrics_in_numpy(jax.tree.map(np.asarray, state.params), stamped().splits["val"])
    assert evaluated.keys() == sums.keys()
    for name, value in sums.items():
        assert evaluated[name] == pytest.approx(value / total, rel=1e-5)
    assert experiment.task.judge[0] in evaluated


BLOCK = {"norm": "layer", "activation": "half_glu1", "mlp": 1}


@variants([("sgd", ())], name=["sgd", "adamw"], model=[(), tuple(BLOCK.items())])
def test_micro_batches_with_unequal_weights_are_one_batch(name, model):
    whole, before, expected = first_step(config(name=name, model=model))
    parts, _, after = first_step(config(name=name, model=model, micro_batches=4))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), parts, whole)
    updates, expected = (jax.tree.map(lambda a, b: a - b, x, before) for x in (after, expected))
    errors = jax.tree.map(relative_error, updates, expected)
    assert max(jax.tree.leaves(errors)) < (1e-4 if name == "sgd" else 1e-2), errors  # Adam divides by small gradients


def test_data_that_contradict_the_task():
    good = stamped()
    labels, weights = good.splits["train"].labels, good.splits["train"].weights
    for wrong, message in (
        ({"labels": labels[..., 0]}, "labels must be floats of shape"),
        ({"weights": weights[:, 0]}, "weights must be numbers of shape"),
        ({"rate": weights[:, 1:]}, "rate must be numbers of shape"),
        ({"rate": np.full_like(weights, np.nan)}, "some values of rate are NaN or infinite"),
        ({"mask": weights}, "mask must be booleans of shape"),
        ({"labels": np.where(weights[..., None] > 0, np.nan, labels)}, "some values of labels are NaN"),
    ):
        splits = {**good.splits, "train": dataclasses.replace(good.splits["train"], **wrong)}
        with pytest.raises(DataError, match=message):
            dataclasses.replace(good, splits=splits)
    uncounted = np.where(weights[..., None] > 0, labels, np.nan)
    splits = {**good.splits, "train": dataclasses.replace(good.splits["train"], labels=uncounted)}
    assert jnp.isnan(dataclasses.replace(good, splits=splits).splits["train"].labels).any()
