"""A run that is killed, at any step and by any means, ends as if it had not been."""

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

from s5jax.train import loop

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
