"""The guides do what they say: their commands and programs run one after the other, each in a process of its own."""

import importlib
import json
import os
import re
import shlex
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax import export

from s5jax.train.trained import load_run


@pytest.mark.slow
def test_the_guide_on_exports(tmp_path):
    text = (tiny.ROOT / "docs/export.md").read_text()
    (command,) = re.findall(r"^    python (scripts/train.py .*?)\n\n", text, re.MULTILINE | re.DOTALL)
    words = [*shlex.split(command.replace("\\\n", " ")), "--config.model.depth=2", "--config.train.steps=4"]
    words = [*words, "--config.train.warmup_steps=1", f"--workdir={tmp_path}/runs/causal"]
    environment = {**os.environ, "PYTHONPATH": str(tiny.ROOT), "JAX_NUM_CPU_DEVICES": "1"}
    subprocess.run([sys.executable, *words], cwd=tiny.ROOT, env=environment, check=True, capture_output=True)
    programs = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(programs) == 4
    for number, program in enumerate(programs):
        program += f"\nnp.save('logits{number}.npy', logits)" if "logits" in program else ""
        done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
    exported = export.deserialize((tmp_path / "runs/causal/model.bin").read_bytes())
    assert exported.platforms == ("cpu", "cuda")
    model = load_run(tmp_path / "runs/causal").model
    inputs = np.random.default_rng(0).normal(size=(5, 64, 1)).astype("float32")
    np.testing.assert_allclose(np.load(tmp_path / "logits1.npy"), model(inputs), rtol=1e-4, atol=1e-5)
    samples = np.random.default_rng(0).normal(size=(64, 1, 1)).astype("float32")
    np.testing.assert_allclose(np.load(tmp_path / "logits3.npy"), model(samples[None, :, 0]), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_guide_on_missing_samples_and_rows(tmp_path, monkeypatch):
    text = (tiny.ROOT / "docs/missing_and_packed.md").read_text()
    files = re.findall(r"`(mine/\w+\.py)`\n\n```python\n(.*?)```", text, re.DOTALL)
    commands = re.findall(r"^    python (scripts/train.py .*?)\n\n", text, re.MULTILINE | re.DOTALL)
    assert [name for name, _ in files] == ["mine/missing.py", "mine/packed.py"] and len(commands) == 2
    (tmp_path / "mine").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(tiny.ROOT), "JAX_NUM_CPU_DEVICES": "1"}
    for (name, program), command in zip(files, commands, strict=True):
        (tmp_path / name).write_text(program)
        script, *words = shlex.split(command.replace("\\\n", " "))
        words = [f"--config={tiny.ROOT}/configs/digits.py:s5" if "--config=" in word else word for word in words]
        words += ["--config.model.depth=1", "--config.train.steps=40", "--config.train.warmup_steps=4"]
        done = subprocess.run(
            [sys.executable, tiny.ROOT / script, *words], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "runs/packed/result.json").read_text())["test/accuracy"] > 0.2  # chance is 0.1
    monkeypatch.syspath_prepend(tmp_path)
    run, task = load_run(tmp_path / "runs/packed"), importlib.import_module("mine.packed").load()
    split = task.splits["test"].select(np.arange(8))
    row = run.model(task.prepare(jnp.asarray(split.inputs)), reset=split.reset)
    alone = run.model(task.prepare(jnp.asarray(split.inputs.reshape(32, 64, 1))))
    np.testing.assert_allclose(row.reshape(32, 64, 10), alone, rtol=1e-4, atol=1e-5)
    model, task = load_run(tmp_path / "runs/missing").model, importlib.import_module("mine.missing").load()
    split = task.splits["test"].select(np.arange(8))
    inputs = np.asarray(task.prepare(jnp.asarray(split.inputs)))
    other = np.where(split.mask[..., None], np.nan, inputs)
    np.testing.assert_array_equal(model(other, mask=split.mask), model(inputs, mask=split.mask))
    assert not np.allclose(model(inputs, mask=split.mask), model(inputs), atol=1e-3)
