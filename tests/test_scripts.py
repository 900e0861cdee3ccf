"""The launchers as a user calls them."""

import json
import subprocess
import sys

import pytest
import tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "mine"
    done = tiny.run(*tiny.command(workdir))
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout


def test_training_tells_what_a_user_wants_to_know(run):
    workdir, output = run
    assert "s5 on digits, 144 parameters, 1 x cpu" in output
    assert "start, import to first step: " in output
    assert "step 4/76  epoch 0.21  loss " in output and " steps/s  0:00:0" in output
    assert "validation loss" in output and "best so far" in output
    assert f"learning curves: {workdir}/learning_curves.png" in output
    assert (workdir / "learning_curves.png").read_bytes().startswith(b"\x89PNG")


def test_evaluation_repeats_the_result(run):
    workdir, _ = run
    result = json.loads((workdir / "result.json").read_text())
    for options, split, step in [
        ((), "test", result["best_step"]),
        (("--split=val", "--checkpoint=best"), "val", result["best_step"]),
        (("--checkpoint=latest",), None, 76),
    ]:
        done = tiny.run(sys.executable, "scripts/evaluate.py", f"--workdir={workdir}", *options)
        assert done.returncode == 0, done.stderr
        assert f"checkpoint, step {step})" in done.stdout
        if split:
            assert f"accuracy {result[f'{split}/accuracy']:.4f}, loss {result[f'{split}/loss']:.4f}" in done.stdout


def test_dry_run_shows_everything_and_trains_nothing(tmp_path):
    done = tiny.run(*tiny.command(tmp_path / "none", "--dry_run", "--config.ssm.bidirectional=false"))
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line.split()[-3:] for line in done.stdout.splitlines() if "layers_0/seq" in line}
    assert rows["encoder/layers_0/seq/B"] == ["ssm", "0.001", "0"]
    assert rows["encoder/layers_0/seq/C"] == ["regular", "0.004", "0.05"]
    assert "(2, 4, 2)" in done.stdout and "bidirectional: False" in done.stdout
    scratch = float(done.stdout.partition("scratch ")[2].split()[0])
    assert 0 < scratch < 100
    assert not (tmp_path / "none").exists()


def test_help_teaches():
    done = tiny.run(sys.executable, "scripts/train.py", "--help")
    assert done.returncode == 0
    for text in (
        "examples:",
        "configs/digits.py:s5",
        "optim.lr=",
        "ssm.name=s5",
        "task.name: digits",
        "(gelu, full_glu",
    ):
        assert text in done.stdout
    assert "best" in tiny.run(sys.executable, "scripts/evaluate.py", "--help").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train.py", "--config=configs/digits.py:s5", "--config.optim.lrr=1"), "Did you mean lr?"),
        (("train.py", "--config=configs/none.py"), "config file configs/none.py does not exist"),
        (("train.py", "--config=configs/digits.py:s6"), "no recipe for the model 's6'"),
        (("evaluate.py",), "is no run's directory"),
    ],
)
def test_mistakes_are_told_without_a_traceback(tmp_path, arguments, message):
    script, *rest = arguments
    done = tiny.run(sys.executable, f"scripts/{script}", f"--workdir={tmp_path / 'x'}", *rest)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and message in done.stderr
    assert done.stderr.count("\n") <= 2 and "Traceback" not in done.stderr
    assert not (tmp_path / "x").exists()


def test_an_evaluation_before_the_first_checkpoint(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(tiny.config().to_dict()))
    done = tiny.run(sys.executable, "scripts/evaluate.py", f"--workdir={tmp_path}")
    assert done.returncode == 1 and "has no checkpoint yet" in done.stderr


def test_divergence_is_an_error(tmp_path):
    done = tiny.run(*tiny.command(tmp_path / "x", "--config.optim.lr=1e38", "--config.optim.ssm_lr=1e38"))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: step ")


def test_the_lock_files_name_hashes_and_no_address():
    for name in ("requirements.txt", "requirements-dev.txt"):
        text = (tiny.ROOT / name).read_text()
        assert "://" not in text and "--index" not in text
        requirements = [block for block in text.replace("\\\n", "").splitlines() if block.strip()]
        assert all("==" in r and "--hash=sha256:" in r for r in requirements)


def test_shell_scripts_parse():
    for name in ("install", "quickstart", "test", "lock"):
        subprocess.run(["bash", "-n", f"scripts/{name}"], cwd=tiny.ROOT, check=True)
