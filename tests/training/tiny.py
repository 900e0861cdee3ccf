"""A run of seconds: the digits recipe with a model far too small for it."""

import os
import pathlib
import subprocess
import sys
import tempfile

from s5jax.train import resolve
from s5jax.train.config import Config

ROOT = pathlib.Path(__file__).parents[2]
cache_of_processes = tempfile.TemporaryDirectory()
ENVIRONMENT = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache_of_processes.name}
RECIPE = "configs/digits.py:s5"
FIELDS = [
    "--config.num_devices=1",
    "--config.model.depth=1",
    "--config.model.d_model=4",
    "--config.model.dropout=0.2",
    "--config.train.batch_size=64",
    "--config.train.epochs=4",
    "--config.train.eval_every_steps=9",
    "--config.log.every_steps=4",
]
STEPS = 4 * (1257 // 64)


def config(*overrides: str, recipe: str = RECIPE) -> Config:
    values = resolve.load_config(f"{ROOT}/{recipe}")
    resolve.override(values, [*FIELDS, f"--config.mixers.{values.model.pattern[0]}.state_size=4", *overrides])
    return resolve.resolve(values)


def command(workdir: pathlib.Path, *overrides: str) -> list[str]:
    recipe = (f"--config={RECIPE}", *FIELDS, "--config.mixers.s5.state_size=4")
    return [sys.executable, "scripts/train.py", f"--workdir={workdir}", *recipe, *overrides]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
