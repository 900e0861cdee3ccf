"""The guides do what they say: their commands and programs run one after the other, each in a process of its own."""

import os
import re
import shlex
import subprocess
import sys

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
