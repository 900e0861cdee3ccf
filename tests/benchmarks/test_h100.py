"""What the training steps launch and move on an H100, and that several GPUs share what one does."""

import json
import pathlib
import pkgutil
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
NEEDS = "the plugin of jax for CUDA is not installed; benchmarks/h100.py says how"
PLUGINS = [m.name for m in pkgutil.iter_modules() if re.fullmatch(r"jax_cuda\d*_plugin", m.name)]  # of any CUDA
pytestmark = pytest.mark.skipif(not PLUGINS, reason=f"not run: {NEEDS}")

LIMITS = {
    "image": (350, 40),
    "text": (350, 78),
    "listops": (400, 23),
    "pathfinder": (350, 25),
    "pathx": (350, 145),
    "s4d": (550, 53),  # 45 GB were aimed at
}
"""Launches, and GB moved, of a training step with the recipe's batch size."""


def counted(*arguments):
    command = [sys.executable, "-m", "benchmarks.h100", *arguments, "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("case", list(LIMITS))
def test_a_training_step_stays_within_its_limits(case):
    launches, gigabytes = LIMITS[case]
    found = counted(case)
    assert found["launches"] <= launches and found["bytes"] <= 1e9 * gigabytes and found["passes"] == 0, found


@pytest.mark.slow
def test_bfloat16_moves_less():
    assert counted("image", "--config.model.dtype=bfloat16")["bytes"] < 0.85 * counted("image")["bytes"]


TWO = """
import os
os.environ["JAX_PLATFORMS"], os.environ["XLA_FLAGS"] = "cpu", "--xla_gpu_autotune_level=0"
from benchmarks import h100
step, given = h100.training_step("s4d")
print(h100.compile_for_h100(step, *given, donate=True, devices=2, divided=(1,)).text)
"""


@pytest.mark.slow
def test_two_gpus_transform_half_a_batch_each():
    done = subprocess.run([sys.executable, "-c", TWO], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert set(re.findall(r"= [fc]\d+\[(\d+),512,\d+\]\S* fft\(", done.stdout)) == {"25"}
