"""The programs to compare: training steps and evaluations of recipes, by s5jax and by the baseline."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from benchmarks import baseline
from benchmarks.names import per_layer
from s5jax.train import resolve
from s5jax.train.build import Experiment, load_task, random_keys
from s5jax.train.build import build as build_experiment
from s5jax.train.config import Config
from s5jax.train.step import TrainState, eval_step, train_step

__all__ = ["CASES", "COUNTED", "Case", "Side", "build", "ours", "published"]

CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "image": ("lra/image.py:s5", ()),
    "text": ("lra/text.py:s5", ()),
    "pathfinder": ("lra/pathfinder.py:s5", ()),
    "listops": ("lra/listops.py:s5", ()),
    "s4d": ("lra/image.py:s4d-lin", ()),
    "s4": ("lra/image.py:s4-legs", ()),
    "s4d-long": ("lra/text.py:s4d-lin", ("--config.model.d_model=128",)),
}
"""A recipe each, and what differs from it: four of S5; S4D and S4, 6 x 512, L = 1024; S4D, 6 x 128, L = 4096."""

COUNTED = CASES | {"pathx": ("lra/pathx.py:s5", ())}
"""CASES and Path-X, which is too slow to time on a CPU."""

ROOT = pathlib.Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class Case:
    """A recipe, with one batch of random inputs of full length as its data."""

    config: Config
    experiment: Experiment
    state: TrainState
    batch: dict[str, Array]

    @property
    def tokens(self) -> int:
        """Number of samples in a batch, over all sequences."""
        return self.batch["inputs"].shape[0] * self.batch["inputs"].shape[1]


@dataclasses.dataclass(frozen=True)
class Side:
    """One implementation: `train(state, batch)` returns (state, metrics), `evaluate(state, batch)` returns metrics."""

    train: Callable[..., Any]
    evaluate: Callable[..., Any]
    state: TrainState
    batch: dict[str, Array]


def build(name: str, batch_size: int | None, *overrides: str) -> Case:
    """Builds a case.

    Args:
      name: one of COUNTED.
      batch_size: sequences in the batch; `None`: the recipe's batch size.
      overrides: further fields of the config, as on a command line.
    """
    recipe, changes = COUNTED[name]
    values = resolve.load_config(f"{ROOT}/configs/{recipe}")
    size = [f"--config.train.batch_size={batch_size}"] if batch_size else []
    resolve.override(values, [*changes, *size, "--config.num_devices=1", *overrides])
    config = resolve.resolve(values)
    batch_size = config.train.batch_size
    task = load_task(config, blank=True)
    experiment, state = build_experiment(config, task)
    rng = np.random.default_rng(0)
    if task.num_tokens is None:
        inputs = jnp.asarray(rng.normal(size=(batch_size, task.length, task.channels)), jnp.float32)
    else:
        inputs = jnp.asarray(rng.integers(0, task.num_tokens, (batch_size, task.length)), jnp.int32)
    labels = jnp.asarray(rng.integers(0, task.num_classes, batch_size), jnp.int32)
    return Case(config, experiment, state, {"inputs": inputs, "labels": labels})


def ours(case: Case) -> Side:
    """The steps of s5jax, as in training."""
    experiment = case.experiment
    hyper = jax.tree.map(jnp.asarray, experiment.hyper(0))
    parts = {"graphdef": experiment.graphdef, "objective": experiment.objective, "hyper": hyper}
    train = functools.partial(train_step, optimizer=experiment.optimizer, **parts)
    return Side(train, functools.partial(eval_step, **parts), case.state, case.batch)


def published(case: Case) -> Side:
    """The baseline's model, layer by layer, with tokens made one-hot in advance and one AdamW for all parameters.

    The published code has several groups of parameters and sets their rates from Python, which costs at least as much.
    """
    config, params, batch = case.config, per_layer(case.state.params), dict(case.batch)
    if config.model.encoder == "one_hot":
        batch["inputs"] = jax.nn.one_hot(batch["inputs"], params["encoder"]["encoder"]["kernel"].shape[0])
    optimizer = optax.adamw(1e-3, weight_decay=0.05)
    state = TrainState(case.state.step, params, per_layer(case.state.batch_stats), optimizer.init(params))
    (section,) = config.mixers.values()
    logits = functools.partial(baseline.logits, model=config.model, ssm=(section.module, section.options))

    def losses(outputs: Array, batch: dict[str, Array]) -> Array:
        return -jnp.take_along_axis(jax.nn.log_softmax(outputs), batch["labels"][:, None], axis=1)[:, 0]

    def loss(params: Any, batch_stats: Any, batch: dict[str, Array], key: Array) -> tuple[Array, Any]:
        outputs, batch_stats = logits(params, batch_stats, batch["inputs"], train=True, key=key)
        return losses(outputs, batch).mean(), batch_stats

    def train(state: TrainState, batch: dict[str, Array]) -> tuple[TrainState, Any]:
        key = jax.random.fold_in(random_keys(config.seed).dropout, state.step)
        value_and_grad = jax.value_and_grad(loss, has_aux=True)
        (mean_loss, batch_stats), grads = value_and_grad(state.params, state.batch_stats, batch, key)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, batch_stats, opt_state), {"loss": mean_loss}

    def evaluate(state: TrainState, batch: dict[str, Array]) -> Any:
        outputs, _ = logits(state.params, state.batch_stats, batch["inputs"], train=False)
        correct = outputs.argmax(-1) == batch["labels"]
        return {"loss": losses(outputs, batch).sum(), "correct": correct.sum()}

    return Side(train, evaluate, state, batch)
