"""A run of seconds: the digits recipe with a model far too small for it."""

import dataclasses
import os
import pathlib
import subprocess
import sys
import tempfile

import jax
import jax.numpy as jnp
import pytest

from s5jax.data.task import Task
from s5jax.train import build, resolve
from s5jax.train.config import Config, TaskConfig

ROOT = pathlib.Path(__file__).parents[2]
cache_of_processes = tempfile.TemporaryDirectory()
ENVIRONMENT = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache_of_processes.name}
RECIPE = "configs/digits.py:s5"
FIELDS = [
    "--config.num_devices=1",
    "--config.model.depth=1",
    "--config.model.d_model=4",
    "--config.model.remat=none",
    "--config.train.batch_size=64",
    "--config.train.epochs=4",
    "--config.train.eval_every_steps=9",
    "--config.log.every_steps=4",
]
DROPOUT = "--config.model.dropout=0.2"
STEPS = 4 * (1257 // 64)


def config(*overrides: str, recipe: str = RECIPE) -> Config:
    values = resolve.load_config(f"{ROOT}/{recipe}")
    for section in values.mixers.values():
        section.state_size = 4
    resolve.override(values, [*FIELDS, *overrides])
    return resolve.resolve(values)


def command(workdir: pathlib.Path, *overrides: str) -> list[str]:
    fields = [*FIELDS, "--config.mixers.s5.state_size=4"]
    return [sys.executable, "scripts/train.py", f"--config={RECIPE}", f"--workdir={workdir}", *fields, *overrides]


blank: dict[TaskConfig, Task] = {}


def load_blank_task(config: Config) -> Task:
    """`load_task(config, blank=True)`; zeros in the place of a task's data are checked once."""
    section = dataclasses.replace(config.task, limit=0)
    if section not in blank:
        blank[section] = build._load(config, True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "_load", lambda *_: blank[section])
        return build.load_task(config, blank=True)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)


def train_step(state, batch, hyper, *, gather, **_):
    """In place of a model's step, where a test is about what happens around it: compiled in no time."""
    batch = gather(batch)
    loss = jnp.mean(batch["inputs"]) + jnp.mean(batch["labels"].astype(jnp.float32))
    params = jax.tree.map(lambda x: x - 0.01 * loss, state.params)
    metrics = dict.fromkeys(("loss", "accuracy", "grad_norm"), (loss, jnp.float32(1)))
    return state._replace(step=state.step + 1, params=params), metrics


def eval_step(state, batch, hyper, **_):
    """In place of a model's evaluation."""
    counted = batch["counted"].astype(jnp.float32)
    sums = {"loss": jnp.sum(counted * batch["labels"]), "accuracy": state.step * jnp.mean(counted)}
    return {name: (value, jnp.sum(counted)) for name, value in sums.items()}, state.memory
