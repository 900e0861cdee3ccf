"""Objectives that do not fit, the package's and one's own: refused in a line, before anything is written."""

import dataclasses
import itertools

import pytest
import tiny

from s5jax.train import loop
from s5jax.train.build import build, load_task
from s5jax.train.config import UserError
from s5jax.train.inspect import dry_run

OBJECTIVE = '''
"""Cross-entropy of one's own."""

from s5jax.objectives import classification
from s5jax.objectives.classification import *
from s5jax.objectives.classification import Options, hyper, outputs


def objective(outputs, batch, **hyper):
    loss, weight = classification.objective(outputs, batch, **hyper)["loss"]
    return {"loss": (loss, weight), "accuracy": (loss, weight)}
'''
numbers = itertools.count()


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A config with an objective of this text, in a module that no other test has imported."""

    def make(text, *fields):
        name = f"objective_of_mine{next(numbers)}"
        (tmp_path / name).mkdir()
        (tmp_path / name / "loss.py").write_text(text)
        return tiny.config(f"--config.objective.module={name}.loss", *fields)

    monkeypatch.syspath_prepend(tmp_path)
    return make


def test_one_s_own_objective_fits(own):
    config = own(OBJECTIVE)
    experiment, _ = build(config, load_task(config))
    assert experiment.objective.__module__ == config.objective.module


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('{"loss": ', '{"lost": ', "loss reports accuracy, lost, but not loss, which the model is trained on"),
        (
            '"accuracy": (',
            '"accuracies": (',
            "loss reports accuracies, loss, but not accuracy, which task digits is",
        ),
        ("hyper, outputs\n", "hyper\n", "loss does not fit task digits: AttributeError: module '"),
        (
            "(loss, weight), ",
            "(outputs, weight), ",
            "must return {name: (sum, weight)}, of numbers; got {'",
        ),
        ('return {"loss": (', "return (", "must return {name: (sum, weight)}, of numbers; got "),
        ("(loss, weight)}", "loss}", "must return {name: (sum, weight)}, of numbers; got "),
        (
            "loss, weight = c",
            "loss, weight = d",
            "loss does not fit task digits: NameError: name 'dl",
        ),
    ],
)
def test_mistakes_in_one_s_own_objective(own, tmp_path, old, new, message):
    assert OBJECTIVE.count(old) == 1
    text = OBJECTIVE.replace(old, new)
    if new == "hyper\n":
        text = text.replace("from s5jax.objectives.classification import *\n", "")
    if new == "return (":
        text = text.replace('), "accuracy": (loss, weight)}', ")")
    config = own(text)
    for run in (lambda: loop.train(config, tmp_path / "run"), lambda: dry_run(config)):
        with pytest.raises(UserError) as error:
            run()
        assert str(error.value).startswith("config.objective: ") and message in str(error.value)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_dry_run_tells_what_fails_in_the_step_alone(own):
    text = OBJECTIVE.replace("    loss, weight", "    assert outputs.shape[0] == 64, outputs.shape\n    loss, weight")
    config = own(text, "--config.optim.micro_batches=4")
    with pytest.raises(UserError, match=r"\d.loss failed: AssertionError: \(16, 10\) \(.*loss.py, line 10"):
        dry_run(config)


@pytest.mark.parametrize(
    ("recipe", "objective", "message"),
    [
        (tiny.RECIPE, "regression", "config.objective: regression does not fit task digits: "),
        (tiny.RECIPE, "gaussian", "config.objective: gaussian does not fit task digits: "),
        ("projects/ptd/configs/sinusoid.py:s5", "classification", "classification does not fit task sinusoid: "),
    ],
)
def test_objectives_for_other_tasks(recipe, objective, message):
    config = tiny.config(f"--config.objective.module={objective}", "--config.task.limit=64", recipe=recipe)
    with pytest.raises(UserError) as error:
        build(config, load_task(config))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_judge_that_the_objective_does_not_report():
    config = tiny.config("--config.objective.label_smoothing=0.1")
    task = dataclasses.replace(load_task(config), judge=("f1", "max"))
    with pytest.raises(UserError, match="reports accuracy, loss, but not f1, which task digits is judged by"):
        build(config, task)
