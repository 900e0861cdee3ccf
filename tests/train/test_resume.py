"""A run that is killed, at any step and by any means, ends as if it had not been."""

import json
import os
import random
import shutil
import signal
import subprocess
import time

import jax
import numpy as np
import pytest
import tiny
from orbax.checkpoint import v1 as ocp

from s5jax.train import checkpoint, loop

LONGER = (
    tiny.DROPOUT,
    "--config.optim.average=0.9",
    "--config.optim.micro_batches=2",
    "--config.train.epochs=10",
    "--config.train.eval_every_steps=31",
    "--config.train.checkpoint_every_steps=19",
    "--config.model.d_model=16",
    "--config.evaluators.eigenvalues.every_steps=6",
)
STEPS = 10 * (1257 // 64)
LATE = 59.5 * 60  # of 60 minutes


def final_arrays(workdir):
    with ocp.training.Checkpointer(workdir / "checkpoints") as checkpoints:
        stored = checkpoints.load(STEPS)
    return {name: np.asarray(value) for name, value in stored.items()}


def assert_same_run(one, other):
    eigenvalues, others = (sorted(f"eigenvalues/{p.name}" for p in (d / "eigenvalues").iterdir()) for d in (one, other))
    assert eigenvalues == others and len(eigenvalues) == 33
    for file in ("metrics.jsonl", "result.json", *eigenvalues):
        assert (one / file).read_bytes() == (other / file).read_bytes(), file
    expected, actual = final_arrays(one), final_arrays(other)
    assert expected.keys() == actual.keys() and len(expected) > 10
    for name in expected:
        assert expected[name].tobytes() == actual[name].tobytes(), name


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    with jax.numpy_dtype_promotion("standard"):
        train(workdir)
    # Processes of their own start with a copy of what is compiled.
    shutil.copytree(os.environ["JAX_COMPILATION_CACHE_DIR"], tiny.cache_of_processes.name, dirs_exist_ok=True)
    return workdir


def train(workdir):
    """In this process: the same bits as in one of its own, where starting jax takes longer than the run."""
    loop.train(tiny.config(*LONGER), workdir)


def start_and_wait_for_line(workdir, line):
    """A run in a process of its own, once it has reported that often."""
    process = subprocess.Popen(
        tiny.command(workdir, *LONGER),
        cwd=tiny.ROOT,
        env=tiny.ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    metrics = workdir / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.read_bytes().count(b"\n") >= line):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return process


@pytest.mark.slow
def test_killed_at_random_steps(uninterrupted, tmp_path, capsys):
    seed = random.randrange(10**6)
    generator = random.Random(seed)
    lines = (uninterrupted / "metrics.jsonl").read_bytes().count(b"\n")
    for part in range(2):  # once in each half
        line = generator.randrange(max(1, part * lines // 2), (part + 1) * lines // 2)
        process = start_and_wait_for_line(tmp_path, line)
        time.sleep(generator.random() * 0.02)
        process.kill()
        process.communicate()
        assert not (tmp_path / "result.json").exists()
    train(tmp_path)
    assert "resuming after step" in capsys.readouterr().out, seed
    assert_same_run(uninterrupted, tmp_path)


@pytest.mark.parametrize("signum", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_stopped_by_a_signal(uninterrupted, tmp_path, capsys, signum):
    process = start_and_wait_for_line(tmp_path, 30)
    process.send_signal(signum)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signum, errors
    assert "Traceback" not in errors
    assert f"{signum.name}: saved after step" in output
    step = int(output.partition("saved after step ")[2].partition(";")[0])
    train(tmp_path)
    assert f"resuming after step {step}" in capsys.readouterr().out
    assert_same_run(uninterrupted, tmp_path)
    train(tmp_path)
    assert "is finished" in capsys.readouterr().out
    assert_same_run(uninterrupted, tmp_path)


def test_stopped_by_the_time_budget(uninterrupted, tmp_path):
    """After its first step, in the middle, and after its last step: a job that has too few minutes makes progress."""
    command = [*tiny.command(tmp_path, *LONGER), "--config.train.minutes=0.001"]
    done = subprocess.run(command, cwd=tiny.ROOT, env=tiny.ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.splitlines()[-1] == (
        "0.001 minutes are nearly over: saved after step 1; the same command goes on from there"
    )
    config, stops = tiny.config(*LONGER, "--config.train.minutes=60"), []
    for spent in (LATE, LATE - 6.0, 0.0):
        try:
            loop.train(config, tmp_path, time.perf_counter() - spent)
        except loop.Interrupted as stop:
            stops.append(int(str(stop).removeprefix("60 minutes are nearly over: saved after step ").partition(";")[0]))
    assert stops[0] == 2 and stops == sorted(stops)
    assert_same_run(uninterrupted, tmp_path)


@pytest.mark.slow
def test_an_evaluation_that_would_not_end_in_time_is_not_begun(tmp_path, monkeypatch):
    """A step takes a minute and an evaluation, every 35 steps, half an hour: known after the first one, in a later
    command too."""
    fields = ("steps=70", "warmup_steps=1", "minutes=60", "eval_every_steps=35")
    config = tiny.config(*(f"--config.train.{field}" for field in fields))
    now = [0.0]

    def clock():
        now[0] += 1e-6
        return now[0]

    monkeypatch.setattr(loop.time, "perf_counter", clock)
    evaluate, step = loop.Program.evaluate, loop.Program.step

    def slow(program, state, split, **given):
        now[0] += 30 * 60
        return evaluate(program, state, split, **given)

    def a_minute(program, *given):
        now[0] += 60
        return step(program, *given)

    monkeypatch.setattr(loop.Program, "evaluate", slow)
    monkeypatch.setattr(loop.Program, "step", a_minute)
    ends, spent = [], []
    for _ in range(3):
        begin = now[0]
        with pytest.raises(loop.Interrupted, match="60 minutes are nearly over: saved after step") as stop:
            loop.train(config, tmp_path, begin)
        ends.append(int(str(stop.value).partition("step ")[2].partition(";")[0]))
        spent.append(round((now[0] - begin) / 60))
    assert ends == [35, 65, 70] and spent == [65, 30, 35]
    assert loop.train(config, tmp_path, now[0])["steps"] == 70


def test_what_a_run_of_an_earlier_commit_lacks(tmp_path, monkeypatch):
    """Resumed: run.json without what "auto" was, and a checkpoint without the longest pause."""
    config = tiny.config("--config.train.steps=20", "--config.train.warmup_steps=1", "--config.train.minutes=1")
    with pytest.raises(loop.Interrupted):
        loop.train(config, tmp_path, time.perf_counter() - 60)
    described = json.loads((tmp_path / "run.json").read_text())
    del described["auto"], described["matmul_precision"]
    (tmp_path / "run.json").write_text(json.dumps(described))
    progress_of = checkpoint.progress_of

    def without(*given):
        progress = progress_of(*given)
        del progress["longest_pause"]
        return progress

    monkeypatch.setattr(checkpoint, "progress_of", without)
    assert loop.train(config, tmp_path)["steps"] == 20


@pytest.mark.slow
def test_a_run_that_ends_late_leaves_its_last_evaluation_to_the_next_command(tmp_path, monkeypatch):
    config = tiny.config("--config.train.steps=3", "--config.train.warmup_steps=1", "--config.train.minutes=60")
    now, clock = [0.0], time.perf_counter
    monkeypatch.setattr(loop.time, "perf_counter", lambda: clock() + now[0])
    evaluate = loop.Program.evaluate

    def slow(program, state, split, **given):
        now[0] += 40 * 60  # each evaluation takes 40 minutes
        return evaluate(program, state, split, **given)

    monkeypatch.setattr(loop.Program, "evaluate", slow)
    with pytest.raises(loop.Interrupted, match="60 minutes are nearly over: saved after step 3"):
        loop.train(config, tmp_path)
    assert not (tmp_path / "result.json").exists()
    assert loop.train(config, tmp_path)["steps"] == 3
