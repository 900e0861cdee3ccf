"""What the house promises its readers: how much a run imports, how far it is from the loop to the scan."""

import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]

RUN = """
import json, pathlib, runpy, sys, traceback

root = pathlib.Path.cwd()
stacks = []
from s5jax.ssm import {module} as core
good = core.{function}

def watched(*arguments, **named):
    frames = [f for f in traceback.extract_stack()[:-1] if f.filename.startswith(str(root / "s5jax"))]
    stacks.append([f"{{pathlib.Path(f.filename).relative_to(root)}}:{{f.name}}" for f in frames])
    return good(*arguments, **named)

core.{function} = watched
sys.argv = ["train.py", "--config=configs/digits.py:s5", "--workdir={workdir}", "--config.task.limit=64",
    "--config.train.epochs=1", "--config.train.warmup_epochs=0", "--config.train.batch_size=32",
    "--config.num_devices=1", "--config.model.d_model=4", "--config.model.depth=1", "--config.mixers.s5.state_size=4"]
def imported():
    files = {{m.__file__ for m in sys.modules.values() if getattr(m, "__file__", None)}}
    return sorted(str(pathlib.Path(f).relative_to(root)) for f in files if f.startswith(str(root)) and ".venv" not in f)

from s5jax.train import loop
good_train = loop.train

def train(*arguments):
    good_train(*arguments)
    print(json.dumps({{"files": imported(), "stacks": stacks}}))
    raise SystemExit(0)  # before the figure

loop.train = train
runpy.run_path("scripts/train.py", run_name="__main__")
"""


def test_what_a_run_imports_and_how_deep_the_scan_is(tmp_path, capsys):
    """Two steps, an evaluation and a checkpoint of S5 on the digits."""
    code = RUN.format(module="scan", function="run", workdir=tmp_path / "run")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    files = [file for file in found["files"] if file.startswith(("s5jax", "configs"))]
    files += ["configs/digits.py", "scripts/train.py"]  # run by their paths
    lines = {file: len((ROOT / file).read_text().splitlines()) for file in files}
    deepest = max((stack for stack in found["stacks"] if "s5jax/train/step.py:train_step" in stack), key=len)
    with capsys.disabled():
        print(f"\nimported: {sum(lines.values())} lines in {len(lines)} files")
        print(f"frames from the loop to the scan: {len(deepest)} in {len({f.split(':')[0] for f in deepest})} files")
    assert sum(lines.values()) <= 4780, lines
    assert len(deepest) <= 14 and len({frame.split(":")[0] for frame in deepest}) <= 9, deepest
