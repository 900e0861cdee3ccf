"""Evaluators in a run: when they are called, and what becomes of what they report."""

import itertools
import json

import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from s5jax.train import log, loop, program
from s5jax.train.config import UserError

PROBE = """
import dataclasses
import jax.numpy as jnp

AT_START = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    every_steps: int = 0


def check(config, task, options):
    if options.every_steps > 1000:
        raise ValueError("too rare")


def evaluate(context, state, options):
    with open(context.workdir / "called", "a") as file:
        print(context.step, file=file)
    return {"probe/step": VALUE}
"""
numbers = itertools.count()


@pytest.fixture
def probe(without_model, tmp_path, monkeypatch):
    """A config with an evaluator that reports a value, in a module that no other test has imported."""

    def make(value, *fields):
        name = f"evaluator_of_mine{next(numbers)}"
        (tmp_path / name).mkdir()
        (tmp_path / name / "probe.py").write_text(PROBE.replace("VALUE", value))
        fields = [f"--config.evaluators.{name}.probe.{field}" for field in fields or ["every_steps=10"]]
        return tiny.config("--config.train.epochs=2", *fields)

    monkeypatch.syspath_prepend(tmp_path)
    return make


def records(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_what_an_evaluator_reports_is_written_from_the_start_on(probe, tmp_path):
    """Numbers of any kind; what was written before step 1 is written once, however often a run starts."""
    config = probe("jnp.float32(context.step)")
    loop.train(config, tmp_path)
    reports = [(r["step"], r["probe/step"]) for r in records(tmp_path) if "probe/step" in r]
    assert reports == [(step, float(step)) for step in (0, 10, 20, 30, 38)]
    assert records(tmp_path)[0] == {"step": 0, "epoch": 0.0, "probe/step": 0.0}
    with log.Writer(tmp_path, config, step=0, total_steps=9):
        assert records(tmp_path) == []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("float('nan')", r"probe, step 0: probe/step is nan, not a finite number"),
        pytest.param("jnp.inf", r"probe, step 0: probe/step is inf, not a finite number", marks=pytest.mark.slow),
        ("'high'", r"probe, step 0: an evaluator must return \{name: number\}, got \{'probe/step': 'high'\}"),
        pytest.param(
            "jnp.ones(2)",
            r"probe, step 0: an evaluator must return \{name: number\}, got \{'probe/step': Array",
            marks=pytest.mark.slow,
        ),
        ("0} and {'x'}.pop() or {'x': 0", r"probe, step 0: an evaluator must return \{name: number\}, got 'x'"),
    ],
)
def test_what_is_not_a_finite_number_is_told(probe, tmp_path, value, message):
    config = probe(value)
    with pytest.raises(UserError, match=r"config\.evaluators\.\w+\." + message):
        loop.train(config, tmp_path)


def test_an_evaluator_may_refuse_a_config(probe, tmp_path):
    config = probe("0", "every_steps=1001")
    with pytest.raises(UserError, match=r"config\.evaluators\.\w+\.probe: too rare"):
        loop.train(config, tmp_path)
    assert not (tmp_path / "called").exists()


def test_nothing_is_evaluated_of_parameters_that_diverged(probe, tmp_path, monkeypatch):
    good = program.Program.step

    def spoiled(self, state, feed, step):
        state, values = good(self, state, feed, step)
        return (state, values) if step != 9 else (state, {**values, "grad_norm": (jnp.float32(np.nan), 1.0)})

    monkeypatch.setattr(program.Program, "step", spoiled)
    with pytest.raises(loop.Diverged, match="step 10: train/grad_norm is nan"):
        loop.train(probe("0"), tmp_path)
    assert (tmp_path / "called").read_text().split() == ["0"]
