"""What changes no shape changes no program: rates, decays, dropout, smoothing and seeds are arguments of the step."""

import functools
import subprocess

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from s5jax.train import loop
from s5jax.train.build import build, load_task
from s5jax.train.program import Program
from s5jax.train.step import train_step

SAME_PROGRAM = {
    "seed": "--config.seed=7",
    "rate": "--config.optim.lr=0.002",
    "rate of the dynamics": "--config.optim.ssm_lr=0.004",
    "decay": "--config.optim.weight_decay=0.01",
    "no decay": "--config.optim.weight_decay=0.0",
    "warm-up": "--config.train.warmup_epochs=2",
    "epochs": "--config.train.epochs=9",
    "schedule": "--config.optim.schedule=s5_published",
    "dropout": "--config.model.dropout=0.3",
    "smoothing": "--config.objective.label_smoothing=0.1",
    "class weights": "--config.objective.class_weights=(1.0,2.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,0.5)",
}


@functools.cache
def lowered(*fields: str) -> str:
    """The text of the training step as it is given to the compiler: every constant of it is there."""
    config = tiny.config(tiny.DROPOUT, *fields)
    experiment, state = build(config, load_task(config))
    program = Program(experiment)
    (feed,) = program.feeder.feeds("train", [np.arange(64, dtype=np.int32)])
    return program.step_at(feed.length).lower(state, (feed.examples, feed.places), experiment.hyper(0)).as_text()


def test_the_same_program():
    assert lowered(*SAME_PROGRAM.values()) == lowered()


@pytest.mark.slow
@pytest.mark.parametrize("field", SAME_PROGRAM)
def test_the_same_program_for_each_alone(field):
    assert lowered(SAME_PROGRAM[field]) == lowered()


@pytest.mark.parametrize("field", ["--config.model.dropout=0.0", "--config.optim.clip_norm=1.0"])
def test_another_program(field):
    """What adds or takes away a part of the step does change it."""
    assert lowered(field) != lowered()


def test_a_mixer_with_dropout_of_its_own_gets_a_key():
    fields = ("--config.model.dropout=0.0", "--config.model.pattern=('longconv',)")
    for own in (0.2, 0.0):
        config = tiny.config(*fields, f"--config.mixers.longconv.kernel_dropout={own}")
        experiment, _ = build(config, tiny.load_blank_task(config))
        assert ("key" in experiment.hyper(0)) == bool(own) and "dropout" not in experiment.hyper(0)


def test_a_run_traces_its_step_once(without_model, tmp_path, monkeypatch):
    """Through two epochs, the warm-up and the cosine."""
    traced = chex.assert_max_traces(tiny.train_step, n=1)
    monkeypatch.setattr("s5jax.train.program.train_step", traced)
    loop.train(tiny.config("--config.train.epochs=2", "--config.num_devices=1"), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["configs/digits.py:s5", "configs/digits.py:s4d-lin"])
def test_three_seeds_are_one_program(recipe):
    """With an axis in front of state, batch and hyper they are what three runs are, over fifty steps in float64."""
    smaller = "--config.mixers.s5.bidirectional=false" if recipe.endswith(":s5") else "--config.model.depth=2"
    fields = (tiny.DROPOUT, "--config.train.batch_size=8", "--config.model.activation=none", smaller)

    def widened(x):
        return np.asarray(x, np.float64) if getattr(x, "dtype", None) == np.float32 else x

    runs = []
    for seed, lr in enumerate((0.004, 0.002, 0.001)):
        config = tiny.config(f"--config.seed={seed}", f"--config.optim.lr={lr}", *fields, recipe=recipe)
        experiment, state = build(config, load_task(config))
        runs.append((experiment, jax.tree.map(widened, state)))
    with jax.enable_x64(True):
        experiment, split = runs[0][0], runs[0][0].task.splits["train"]
        parts = {"graphdef": experiment.graphdef, "optimizer": experiment.optimizer, "objective": experiment.objective}

        def batch_and_hyper(seed: int, i: int):
            index = np.random.default_rng(100 * seed + i).integers(0, len(split), 8)
            inputs = np.asarray(split.inputs[index], np.float64)
            hyper = jax.tree.map(widened, runs[seed][0].hyper(i))
            return {"inputs": inputs, "labels": np.asarray(split.labels[index], np.int32)}, hyper

        def stack(trees):
            return jax.tree.map(lambda *x: jnp.stack([jnp.asarray(v) for v in x]), *trees)

        one = jax.jit(lambda *arguments: train_step(*arguments, **parts))
        together = jax.jit(jax.vmap(lambda *arguments: train_step(*arguments, **parts)))
        state = stack([s for _, s in runs])
        each = [s for _, s in runs]
        for i in range(50):
            given = [batch_and_hyper(seed, i) for seed in range(3)]
            each, alone = zip(*(one(s, *g) for s, g in zip(each, given, strict=True)), strict=True)
            state, metrics = together(state, *stack(given))
            np.testing.assert_allclose(metrics["loss"][0], [m["loss"][0] for m in alone], rtol=1e-9)
        chex.assert_trees_all_close(state.params, stack([s.params for s in each]), rtol=1e-9, atol=1e-9)
        assert len({float(loss) for loss in metrics["loss"][0]}) == 3


@pytest.mark.slow
def test_a_sweep_compiles_once(tmp_path):
    """With a warm cache another seed, rate, ... starts like the same config, and adds nothing to the cache."""
    cache = tmp_path / "cache"
    environment = {
        **tiny.ENVIRONMENT,
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }

    def entries():
        return {path.name for path in cache.iterdir() if not path.name.endswith("-atime")}

    def run(name: str, *fields: str) -> None:
        command = [*tiny.command(tmp_path / name, "--config.train.epochs=3"), *fields]
        done = subprocess.run(command, cwd=tiny.ROOT, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr

    run("first")
    before = entries()
    for name, field in SAME_PROGRAM.items():
        run(name, field)
        assert entries() == before, name
