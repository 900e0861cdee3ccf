import dataclasses
import itertools
import json
import logging
import traceback

import jax
import numpy as np
import pytest
import tiny
from flax import nnx
from numerics import relative_error

from s5jax.data.task import Split, Task
from s5jax.data.tasks import digits
from s5jax.evaluators import Context, eigenvalues
from s5jax.evaluators.stability import mixers_of
from s5jax.mixers import s5
from s5jax.train import checkpoint, log, loop, program, trained
from s5jax.train.build import build, load_task
from s5jax.train.config import UserError
from s5jax.train.trained import load, load_run


def records(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


FINISHED = tiny.config(
    tiny.DROPOUT,
    "--config.model.depth=2",
    "--config.mixers.s5.bidirectional=false",
    "--config.optim.clip_norm=0.1",
    "--config.evaluators.eigenvalues.every_steps=30",
    "--config.log.tensorboard=true",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished")
    with jax.numpy_dtype_promotion("standard"):
        loop.train(FINISHED, workdir)
    return workdir


def test_what_a_run_leaves(finished):
    result, run = (json.loads((finished / f"{name}.json").read_text()) for name in ("result", "run"))
    reports = records(finished)
    training = [r for r in reports if "train/loss" in r]
    validation = [r for r in reports if "val/loss" in r]
    assert [r["step"] for r in training] == list(range(4, tiny.STEPS + 1, 4))
    assert [r["step"] for r in validation] == [*range(9, tiny.STEPS, 9), tiny.STEPS]
    assert training[-1]["train/loss"] < training[0]["train/loss"]
    best = max(validation, key=lambda r: (r["val/accuracy"], -r["val/loss"]))
    assert result["best_step"] == best["step"] and result["val/accuracy"] == best["val/accuracy"]
    kept = set(checkpoint.saved_steps(finished / "checkpoints"))
    assert kept >= {validation[-2]["step"], tiny.STEPS, best["step"]} and len(kept) <= 4
    assert run["parameters"] == 198 and run["seconds"] > 0 and run["versions"]["jax"] == jax.__version__
    assert "cpu" in run["device"] and run["finished"] >= run["started"]
    assert json.loads((finished / "config.json").read_text()) == json.loads(json.dumps(FINISHED.to_dict()))
    assert list((finished / "tensorboard").glob("events.*"))


def test_reports_against_an_evaluation_by_hand(finished):
    """Validation metrics: every example once, by the final parameters, in NumPy."""
    task = load_task(FINISHED)
    experiment, state = build(FINISHED, task)
    state = jax.tree.map(jax.numpy.asarray, trained.read(finished, "latest", state, FINISHED))
    model = jax.jit(nnx.merge(experiment.graphdef, state.params, state.batch_stats))
    split = task.splits["val"]
    logits = np.float64(model(task.prepare(jax.numpy.asarray(split.inputs))))
    log_probabilities = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    last = records(finished)[-1]
    assert last["val/loss"] == pytest.approx(-log_probabilities[np.arange(180), split.labels].mean(), rel=1e-5)
    assert last["val/accuracy"] == np.mean(logits.argmax(1) == split.labels)


def test_the_model_of_a_run_in_python(finished, tmp_path):
    config, task, model, state, _ = load(str(finished))
    assert config.model.pattern == ("s5",)
    result = json.loads((finished / "result.json").read_text())
    assert int(state.step) == result["best_step"]
    inputs = task.prepare(jax.numpy.asarray(task.splits["test"].inputs))
    logits = jax.jit(model)(inputs)
    accuracy = np.mean(np.argmax(logits, -1) == task.splits["test"].labels)
    assert accuracy == pytest.approx(result["test/accuracy"], abs=1e-6)
    _, carried = jax.jit(model.prefill)(model.init_state(len(inputs)), inputs[:, :63])
    assert relative_error(jax.jit(model.step)(carried, inputs[:, 63])[0], logits) < 1e-5
    with pytest.raises(UserError, match="not a run's directory"):
        load(tmp_path / "none")


@pytest.mark.parametrize("average", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_model_of_a_run_without_its_data(finished, average, tmp_path, monkeypatch):
    workdir = finished
    if average:
        workdir, config = tmp_path, tiny.config("--config.optim.average=0.5")
        loop.train(config, workdir)
    whole = {which: load(workdir, which) for which in ("best", "latest")}
    monkeypatch.setattr(digits, "load", lambda: pytest.fail("the data were loaded"))
    for which, expected in whole.items():
        run = load_run(str(workdir), which)
        assert run.step == int(expected.state.step) and run.config == expected.config and run.facts == {}
        jax.tree.map(np.testing.assert_array_equal, nnx.state(run.model), nnx.state(expected.model))
        assert nnx.graphdef(run.model) == nnx.graphdef(expected.model)
    if not average:
        run = json.loads((workdir / "run.json").read_text())
        (tmp_path / "checkpoints").symlink_to(workdir / "checkpoints")
        (tmp_path / "config.json").write_bytes((workdir / "config.json").read_bytes())
        (tmp_path / "run.json").write_text(json.dumps({name: run[name] for name in ("code", "versions")}))
        with pytest.raises(UserError, match="is missing or of an earlier version"):
            load_run(tmp_path)


def test_sizes_that_are_numpy_s_are_written_down():
    config = tiny.config()
    task = load_task(config)
    object.__setattr__(task, "length", np.int64(64))  # past the check of annotations, which users do not have
    assert json.loads(json.dumps(build(config, task)[0].sizes)) == {
        "input_size": 1,
        "outputs": 10,
        "length": 64,
        "head": "sequence",
    }


def test_a_finished_run_says_so(finished, capsys):
    before = {path: path.read_bytes() for path in finished.rglob("*.json*")}
    loop.train(FINISHED, finished)
    assert "is finished" in capsys.readouterr().out
    assert before == {path: path.read_bytes() for path in finished.rglob("*.json*")}


def test_another_config_is_refused_with_the_fields_that_differ(finished):
    other = dataclasses.replace(FINISHED, seed=7, optim=dataclasses.replace(FINISHED.optim, lr=0.5))
    with pytest.raises(UserError) as error:
        loop.train(other, finished)
    assert "config.optim.lr: 0.004 there, 0.5 now" in str(error.value)
    assert "config.seed: 0 there, 7 now" in str(error.value)
    assert "ssm_lr" not in str(error.value)


def test_a_config_that_cannot_be_run_leaves_the_workdir_free(tmp_path):
    with pytest.raises(UserError, match="exceeds the 1257 training examples"):
        loop.train(tiny.config("--config.train.batch_size=1258"), tmp_path)
    with pytest.raises(UserError, match="all 19 steps would be warm-up"):
        loop.train(tiny.config("--config.train.epochs=1", "--config.train.warmup_epochs=0.99"), tmp_path)
    assert not (tmp_path / "config.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["embedding", "one_hot"])
def test_padded_pairs_of_tokens_train_and_are_evaluated(monkeypatch, tmp_path, encoder):
    """A retrieval task through the whole program: from which tokens is the first document drawn?"""
    rng = np.random.default_rng(0)

    def split(n):
        inputs, lengths, labels = rng.integers(0, 3, (n, 2, 7)), rng.integers(1, 8, (n, 2)), rng.integers(0, 2, n)
        inputs[:, 0] = np.where(np.arange(7) < lengths[:, :1], 2 * labels[:, None], inputs[:, 0])
        return Split(inputs.astype(np.uint8), labels, lengths)

    task = Task(
        name="pairs", splits={k: split(n) for k, n in (("train", 640), ("val", 99), ("test", 30))},
        length=7, num_classes=2, num_tokens=3, pairs=True,
    )  # fmt: skip
    monkeypatch.setattr(loop, "load_task", lambda config: task)
    fields = (
        f"--config.model.encoder={encoder}",
        "--config.model.dropout=0.0",
        "--config.model.d_model=16",
        "--config.train.epochs=12",
        "--config.train.eval_every_steps=60",
    )
    assert loop.train(tiny.config(*fields), tmp_path)["val/accuracy"] > 0.95


def test_a_workdir_serves_one_process_at_a_time(tmp_path):
    with loop.workdirs.claim(tmp_path, tiny.config()), pytest.raises(UserError, match="in use by another process"):
        loop.train(tiny.config(), tmp_path)


def test_what_is_no_directory_cannot_be_a_workdir(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is not a directory"):
        loop.train(tiny.config(), tmp_path / "file")


def test_the_device_is_asked_for_numbers_once_a_report(without_model, tmp_path, monkeypatch):
    """All transfers from a device to the host: those of `jax.device_get`, and others, such as by `float(x)`."""
    asked, others, inside, good = [], [], [], jax.device_get
    to_host = jax._src.array.ArrayImpl._value

    def device_get(tree):
        inside.append(tree)
        if isinstance(tree, list) and tree:  # not a state to be saved
            asked.append("evaluation" if isinstance(tree[0], dict) else [step for step, _ in tree])
        got = good(tree)
        inside.pop()
        return got

    def value(self):
        if not inside and "checkpoint" not in "".join(frame.filename for frame in traceback.extract_stack()):
            others.append(self.shape)
        return to_host.__get__(self)

    monkeypatch.setattr(jax, "device_get", device_get)
    monkeypatch.setattr(jax._src.array.ArrayImpl, "_value", property(value))
    started = []

    def step(self, *given):
        if not started:
            others.clear()  # what building the model and the orders of examples took
        started.append(1)
        return good_step(self, *given)

    good_step = program.Program.step
    monkeypatch.setattr(program.Program, "step", step)
    loop.train(tiny.config("--config.train.eval_every_steps=38"), tmp_path)
    read = [steps for steps in asked if isinstance(steps, list)]
    reports = [list(range(k - 3, k + 1)) for k in range(4, tiny.STEPS + 1, 4)]
    reports[9:10] = [[37, 38], [39, 40]]  # before the evaluation
    reports[:1] = [[1], [2, 3, 4]]  # the time to the first step is told
    assert read == reports and asked.count("evaluation") == 3  # the test split, too
    assert others == []


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_what_was_good(without_model, tmp_path, monkeypatch):
    good = program.Program.step

    def spoiled(self, state, feed, step):
        state, values = good(self, state, feed, step)
        return (state, values) if int(state.step) != 22 else (state, {**values, "loss": (np.float32("nan"), 1.0)})

    monkeypatch.setattr(program.Program, "step", spoiled)
    with pytest.raises(loop.Diverged, match="step 22: train/loss is nan"):
        loop.train(tiny.config(), tmp_path)
    assert checkpoint.saved_steps(tmp_path / "checkpoints")[-1] == 18
    assert not (tmp_path / "result.json").exists()


def test_early_stopping(without_model, tmp_path, monkeypatch):
    accuracies = iter([0.5, 0.6, 0.6, 0.4, 0.6, 0.9])
    evaluate = lambda self, state, split: {"loss": 1.0, "accuracy": next(accuracies)}  # noqa: E731
    monkeypatch.setattr(program.Program, "evaluate", evaluate)
    fields = ("--config.train.patience=3", "--config.evaluators.eigenvalues.every_steps=40")
    result = loop.train(tiny.config(*fields), tmp_path)
    assert result["steps"] == 45 and result["best_step"] == 18 and result["test/accuracy"] == 0.9
    assert sorted(path.name for path in (tmp_path / "eigenvalues").iterdir()) == [
        f"{step:08d}.npz" for step in (0, 40, 45)
    ]


def test_eigenvalues_are_recorded_before_during_and_after(finished):
    files = sorted((finished / "eigenvalues").iterdir())
    assert [file.name for file in files] == [f"{step:08d}.npz" for step in (0, 30, 60, 76)]
    _, start = build(FINISHED, load_task(FINISHED))
    for file, state in ((files[0], start), (files[-1], trained.read(finished, "latest", start, FINISHED))):
        with np.load(file) as recorded:
            assert len(recorded) == 4
            for name, (_, options, ssm) in mixers_of(FINISHED, state.params).items():
                ssm = jax.tree.map(jax.numpy.asarray, ssm)
                np.testing.assert_array_equal(recorded[f"{name}/eigenvalues"], s5.eigenvalues(ssm, options))
                np.testing.assert_allclose(recorded[f"{name}/step_size"], jax.numpy.exp(ssm["log_step"]), rtol=1e-6)
    with np.load(files[0]) as first, np.load(files[1]) as second:
        assert (first["layers_1/eigenvalues"] != second["layers_1/eigenvalues"]).any()


def test_eigenvalues_and_warnings_are_those_of_the_weights_that_are_evaluated(tmp_path):
    config = tiny.config("--config.optim.average=0.5")
    task = load_task(config)
    _, state = build(config, task)
    spoiled = jax.tree.map(lambda x: 7 * x, state.params)
    state = state._replace(params=spoiled)
    eigenvalues.evaluate(Context(config, task, tmp_path, 3, dict), state, eigenvalues.Options())
    (own,) = mixers_of(config, state.average["params"]).values()
    with np.load(tmp_path / "eigenvalues/00000003.npz") as recorded:
        np.testing.assert_array_equal(recorded["layers_0/eigenvalues"], s5.eigenvalues(own[2], own[1]))
    assert state.evaluated is state.average and state._replace(average=None).evaluated["params"] is spoiled


def test_a_damaged_checkpoint_gives_way_to_the_one_before(without_model, tmp_path, caplog):
    result = loop.train(tiny.config(), tmp_path / "whole")
    workdir = tmp_path / "damaged"
    (tmp_path / "whole").rename(workdir)
    (workdir / "result.json").unlink()
    expected = (workdir / "metrics.jsonl").read_bytes()
    newest = workdir / "checkpoints" / str(tiny.STEPS)
    file = max((path for path in newest.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    file.write_bytes(file.read_bytes()[:-7])
    with caplog.at_level(logging.WARNING):
        assert loop.train(tiny.config(), workdir) == result
    assert "is damaged" in caplog.text and str(newest) in caplog.text
    assert (workdir / "metrics.jsonl").read_bytes() == expected
    assert len(list((workdir / "checkpoints" / "damaged").iterdir())) == 1

    (workdir / "result.json").unlink()
    for path in (workdir / "checkpoints").glob("[0-9]*"):
        next(path.rglob("manifest.ocdbt")).unlink()
    with pytest.raises(UserError, match="is intact"):
        loop.train(tiny.config(), workdir)


@pytest.mark.parametrize("model", ["s5", pytest.param("s4-legs", marks=pytest.mark.slow)])
def test_same_losses_on_one_and_on_eight_devices(model):
    config = FINISHED if model == "s5" else tiny.config(tiny.DROPOUT, recipe=f"configs/digits.py:{model}")
    assert config.model.norm == "batch" and config.model.dropout
    experiment, state = build(config, load_task(config))
    start, losses = jax.tree.map(np.asarray, state), []
    for devices in (1, 8):
        made = program.Program(experiment, num_devices=devices)
        state, found = made.place(start), []
        feeds = made.feeder.feeds("train", itertools.islice(loop._order(experiment, None, 0), 20))
        for step, feed in enumerate(feeds):
            state, metrics = made.step(state, feed, step)
            found.append(np.float64(metrics["loss"][0] / metrics["loss"][1]))
        losses.append(found)
        assert len(state.step.sharding.device_set) == devices
    assert len(losses[0]) == 20
    np.testing.assert_allclose(losses[0], losses[1], rtol=0, atol=1e-5)


def test_devices_that_do_not_fit(tmp_path):
    for fields, message in [
        (["--config.num_devices=8", "--config.train.batch_size=36"], "36 is not divisible by 8 devices"),
        (["--config.num_devices=99"], "there are 8 devices"),
    ]:
        with pytest.raises(UserError, match=message):
            loop.train(tiny.config(*fields), tmp_path / message)


def test_metrics_of_steps_after_the_checkpoint_are_dropped(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1, "a": 1}\n{"step": 2, "a": 2}\n{"step": 3, "a": 3}\n{"step": 4, "a"')
    with log.Writer(tmp_path, tiny.config(), step=2, total_steps=9) as writer:
        writer.write(3, {"a": 5})
    assert file.read_text() == '{"step": 1, "a": 1}\n{"step": 2, "a": 2}\n{"step": 3, "a": 5}\n'


@pytest.mark.slow
def test_wandb_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    workdir = tmp_path / "run"
    done = tiny.run(*tiny.command(workdir, "--config.train.epochs=2", "--config.log.wandb=offline"))
    assert done.returncode == 0, done.stderr
    (log,) = (workdir / "wandb").glob("offline-run-*/run-*.wandb")
    content = log.read_bytes()
    assert b"val/accuracy" in content and b"steps_per_second" in content and b"batch_size" in content
