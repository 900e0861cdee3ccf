"""Training is killed, and gets errors of the file system, at any of its changes to files (faults.c counts them): the
same command goes on, says in a line or two what happened, and ends with the same bits."""

import errno
import os
import random
import shutil
import subprocess

import numpy as np
import pytest
import tiny
from orbax.checkpoint import v1 as ocp

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not shutil.which("gcc"), reason="faults.c needs gcc")]

STEPS = 12
FIELDS = (
    f"--config.train.steps={STEPS}",
    "--config.train.warmup_steps=2",
    "--config.train.eval_every_steps=4",
    "--config.train.checkpoint_every_steps=2",
    "--config.log.every_steps=1",
    "--config.evaluators.eigenvalues.every_steps=3",
)
KILLS, ERRORS = 220, 120
FILES = ("metrics.jsonl", "result.json", "config.json")


def train(workdir, **faults):
    environment = {**tiny.ENVIRONMENT, "FAULT_DIR": str(workdir), **{k: str(v) for k, v in faults.items()}}
    return subprocess.run(
        tiny.command(workdir, *FIELDS), cwd=tiny.ROOT, env=environment, capture_output=True, text=True, timeout=120
    )


def arrays(workdir):
    stored = ocp.load(workdir / "checkpoints" / str(STEPS))
    return {name: np.asarray(value).tobytes() for name, value in stored.items()}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The library, a run without faults, and how often that run changes files."""
    folder = tmp_path_factory.mktemp("campaign")
    library = folder / "faults.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, tiny.ROOT / "tests/train/faults.c"], check=True)
    done = train(folder / "run", LD_PRELOAD=library, FAULT_LOG=folder / "changes")
    assert done.returncode == 0, done.stderr
    return library, folder / "run", os.path.getsize(folder / "changes")


def check_end(workdir, reference):
    """What a run leaves, and that nothing else is left."""
    for name in FILES:
        assert (workdir / name).read_bytes() == (reference / name).read_bytes(), name
    assert arrays(workdir) == arrays(reference)
    names, expected = ({str(p.relative_to(d)) for p in d.rglob("*")} for d in (workdir, reference))
    assert {name for name in expected - names if "/d/" not in name} == set()  # d: arrays, by names drawn at random
    assert not [name for name in names if "tmp" in name and "checkpoints" not in name], names - expected


@pytest.mark.parametrize("part", range(10))
def test_killed_at_any_change_of_a_file(uninterrupted, tmp_path, part):
    library, reference, changes = uninterrupted
    draw, kills, runs = random.Random(part), 0, 0
    while kills < KILLS // 10:
        workdir = tmp_path / str(runs)
        done = train(workdir, LD_PRELOAD=library, FAULT="kill", FAULT_AT=draw.randint(1, changes // 2))
        kills += done.returncode == -9
        assert done.returncode in (0, -9) and not done.stderr.strip(), done.stderr
        if done.returncode == 0:
            check_end(workdir, reference)
            runs += 1
    done = train(workdir)
    assert done.returncode == 0, done.stderr
    check_end(workdir, reference)


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
@pytest.mark.parametrize("part", range(6))
def test_an_error_at_any_change_of_a_file(uninterrupted, tmp_path, fault, part):
    library, reference, changes = uninterrupted
    draw, errors, runs = random.Random(part), 0, 0
    while errors < ERRORS // 12:
        workdir = tmp_path / str(runs)
        done = train(workdir, LD_PRELOAD=library, FAULT=int(fault), FAULT_AT=draw.randint(1, changes // 2))
        lines = done.stderr.strip().splitlines()
        assert len(lines) <= 2 and done.returncode in (0, 1), (done.returncode, done.stderr)
        errors += done.returncode
        if done.returncode:
            assert lines[-1].startswith("error: "), lines
            assert os.strerror(fault) in lines[-1] and str(workdir) in lines[-1], lines
        else:
            assert train(workdir).returncode == 0  # where nothing but the figure was lost
            check_end(workdir, reference)
            runs += 1
    done = train(workdir)
    assert done.returncode == 0, done.stderr
    check_end(workdir, reference)
