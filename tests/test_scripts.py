"""The launchers as a user calls them."""

import contextlib
import io
import json
import re
import runpy
import subprocess
import sys

import jax
import pytest
import tiny
from everyday import variants

from benchmarks import epoch, lengths, measure, methods, mixers, numerics, recurrent
from s5jax.mixers import s5
from s5jax.train import resolve

BODE = "projects/ptd/bode.py"


@pytest.fixture
def call(monkeypatch, capsys):
    """A launcher's exit status, output and errors. Run in this process: starting jax takes longer than most tests."""

    def run_script(script, *arguments):
        monkeypatch.chdir(tiny.ROOT)
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        capsys.readouterr()
        path = script if "/" in script else f"scripts/{script}"
        with pytest.raises(SystemExit) as status, jax.numpy_dtype_promotion("standard"):
            runpy.run_path(path, run_name="__main__")
        return status.value.code, *capsys.readouterr()

    return run_script


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's directory, and what it printed."""
    workdir, output = tmp_path_factory.mktemp("runs") / "mine", io.StringIO()
    fields = ("--config.mixers.s5.bidirectional=false", "--config.evaluators.eigenvalues.every_steps=30")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output):
        patch.chdir(tiny.ROOT)
        patch.setattr(sys, "argv", tiny.command(workdir, *fields)[1:])
        with pytest.raises(SystemExit) as status, jax.numpy_dtype_promotion("standard"):
            runpy.run_path("scripts/train.py", run_name="__main__")
    assert status.value.code == 0
    return workdir, output.getvalue()


def test_training_tells_what_a_user_wants_to_know(run):
    workdir, output = run
    assert "s5 on digits, 128 parameters, 1 x cpu" in output
    assert "start, import to first step: " in output
    assert "step 4/76  epoch 0.21  loss " in output and " steps/s  0:00:0" in output
    assert "validation loss" in output and "best so far" in output
    assert f"learning curves: {workdir}/learning_curves.png" in output
    assert (workdir / "learning_curves.png").read_bytes().startswith(b"\x89PNG")


def test_evaluation_repeats_the_result(run, call, monkeypatch):
    workdir, _ = run
    result = json.loads((workdir / "result.json").read_text())
    for options, split, step in [
        ((), "test", result["best_step"]),
        (("--split=val", "--checkpoint=best"), "val", result["best_step"]),
        (("--checkpoint=latest",), None, 76),
    ]:
        with monkeypatch.context() as patch:
            if options:  # without any, on the eight devices of the tests
                patch.setattr(jax, "device_count", lambda: 1)
            status, output, errors = call("evaluate.py", f"--workdir={workdir}", *options)
        assert status == 0, errors
        assert f"checkpoint, step {step})" in output
        if split:
            assert f"accuracy {result[f'{split}/accuracy']:.4f}, loss {result[f'{split}/loss']:.4f}" in output


def test_evaluation_of_a_run_that_cannot_be_read_is_told(tmp_path, call, monkeypatch):
    (tmp_path / "config.json").mkdir()
    monkeypatch.setattr("pathlib.Path.is_file", lambda self: True)
    status, _, errors = call("evaluate.py", f"--workdir={tmp_path}")
    assert status == 1 and errors.startswith("error: [Errno") and "Traceback" not in errors


def test_dry_run_shows_everything_and_trains_nothing(tmp_path, call):
    fields = ("--config.mixers.s5.bidirectional=false", "--config.model.activation=none", "--config.model.norm=layer")
    arguments = tiny.command(tmp_path / "none", "--dry_run", *fields)[2:]
    status, output, errors = call("train.py", *arguments)
    assert status == 0, errors
    rows = {line.split()[0]: line.split()[-3:] for line in output.splitlines() if "layers/0/seq" in line}
    assert rows["encoder/layers/0/seq/B"] == ["ssm", "0.001", "0"]
    assert rows["encoder/layers/0/seq/C"] == ["regular", "0.004", "0.05"]
    assert "(1, 2, 4, 2)" in output and "bidirectional: False" in output
    scratch = float(output.partition("scratch ")[2].split()[0])
    assert 0 < scratch < 100
    assert not (tmp_path / "none").exists()


def test_help_teaches(call):
    status, output, _ = call("train.py", "--help")
    assert status == 0
    for text in (
        "examples:",
        "configs/digits.py:s5",
        "optim.lr=",
        "mixers.s4",
        "mixers.s5",
        "task.name: digits",
        "(none, gelu, full_glu",
    ):
        assert text in output
    assert "s4-fout" not in output
    status, output, _ = call("train.py", "--help", "--config=configs/lra/listops.py")
    assert status == 0 and "--config=configs/lra/listops.py:MODEL: s5, s5-ptd, " in output and "flags, " in output
    for text in (
        "optim.b2=",
        "Decay of the running mean of the squared gradient.",
        "train.warmup_epochs=1  (or train.warmup_s",
    ):
        assert text in output
    assert "best" in call("evaluate.py", "--help")[1]
    assert "--config.evaluators.eigenvalues.every_steps=" in call("eigenvalues.py", "--help")[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train.py", "--config=configs/digits.py:s5", "--config.optim.lrr=1"), "did you mean lr?"),
        (("train.py",), "--config=FILE:MODEL is missing"),
        (("train.py", "--config=configs/none.py"), "config file configs/none.py does not exist"),
        (("train.py", "--config=configs/digits.py:s6"), "'s6' is neither a model nor a flag"),
        (("evaluate.py",), "is not a run's directory"),
        (("stream.py",), "is not a run's directory"),
        ((BODE,), "is not a run's directory"),
        (("eigenvalues.py",), "is not a run's directory"),
    ],
)
def test_mistakes_are_told_without_a_traceback(tmp_path, call, arguments, message):
    script, *rest = arguments
    status, _, errors = call(script, f"--workdir={tmp_path / 'x'}", *rest)
    assert status == 1
    assert errors.startswith("error: ") and message in errors
    assert errors.count("\n") <= 2 and "Traceback" not in errors
    assert not (tmp_path / "x").exists()


@variants([40], prefill=[0, 40, 64])
def test_a_stream_ends_in_the_parallel_answer(run, call, prefill):
    workdir, _ = run
    status, output, errors = call("stream.py", f"--workdir={workdir}", "--example=3", f"--prefill={prefill}")
    assert status == 0, errors
    lines = output.splitlines()
    assert lines[0].startswith("digits, test example 3, 64 samples, class ")
    first, last = (line.split() for line in (lines[1], lines[-4]))
    assert (int(first[0]), int(last[0])) == (max(prefill, 1), 64)
    answer, whole = lines[-3].split(), lines[-2].split()
    assert answer[:3] == ["sample", "by", "sample:"] and answer[4].rstrip(",") == last[2] == whole[4].rstrip(";")
    assert float(whole[-1]) < 1e-5
    assert lines[-3].endswith("samples/s") and (float(answer[6].replace(",", "")) > 0) == (prefill < 64)
    assert (workdir / "stream_test_3.png").read_bytes().startswith(b"\x89PNG")


def test_the_bode_plot_of_a_run(run, call):
    workdir, _ = run
    status, output, errors = call(BODE, f"--workdir={workdir}", "--feature=3", "--input=1", "--checkpoint=latest")
    assert status == 0, errors
    assert "s5, layer 0, latest checkpoint, step 76" in output and "misfit" in output
    assert (workdir / "bode_layer0_feature3_input1.png").read_bytes().startswith(b"\x89PNG")
    numbers = (workdir / "bode_layer0_feature3_input1.csv").read_text().splitlines()
    assert numbers[0].startswith("omega,layer_dB") and len(numbers) > 400


def test_the_magnitudes_of_all_layers_of_a_run(run, call):
    workdir, _ = run
    status, output, errors = call(BODE, f"--workdir={workdir}", "--layer=all", "--feature=3", "--input=1")
    assert status == 0, errors
    assert "s5, all layers, best checkpoint" in output and "layer 0: largest |G| " in output
    assert (workdir / "bode_all_layers_feature3_input1.png").read_bytes().startswith(b"\x89PNG")
    numbers = (workdir / "bode_all_layers_feature3_input1.csv").read_text().splitlines()
    assert numbers[0].startswith("layer,omega,layer_dB") and len(numbers) > 400


def test_the_eigenvalues_of_a_run(run, call):
    workdir, _ = run
    status, output, errors = call("eigenvalues.py", f"--workdir={workdir}")
    assert status == 0, errors
    assert "s5, 4 records, step 0 to 76" in output and "layer 0: 2 modes" in output
    assert (workdir / "eigenvalues.png").read_bytes().startswith(b"\x89PNG")
    assert len((workdir / "eigenvalues.csv").read_text().splitlines()) == 1 + 4 * 2


def test_eigenvalues_that_were_not_recorded(tmp_path, call):
    (tmp_path / "config.json").write_text(json.dumps(tiny.config().to_dict()))
    status, _, errors = call("eigenvalues.py", f"--workdir={tmp_path}")
    assert status == 1 and errors.count("\n") == 1
    assert "has no records of eigenvalues: train with --config.evaluators.eigenvalues.every_steps=N" in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("stream.py", "--example=360"), "--example: the test split has 0 to 359, got 360"),
        (("stream.py", "--example=-1"), "--example: the test split has 0 to 359, got -1"),
        (("stream.py", "--prefill=65"), "--prefill: prefill must lie in 0..64, the sequence's length; got 65"),
        ((BODE, "--layer=1"), "--layer: layers run from 0 to 0, or all; got 1"),
        ((BODE, "--feature=4"), "--feature, --input: features run from 0 to 3, got output 4"),
    ],
)
def test_what_a_run_does_not_have(run, call, arguments, message):
    script, *rest = arguments
    status, _, errors = call(script, f"--workdir={run[0]}", *rest)
    assert status == 1 and errors.startswith(f"error: {message}") and errors.count("\n") == 1


def test_a_layer_without_a_recurrent_mode_is_told(tmp_path, call, monkeypatch):
    monkeypatch.delattr(s5, "step")
    monkeypatch.delattr(s5, "transfer_function")
    config = tiny.config("--config.mixers.s5.bidirectional=false").to_dict()
    (tmp_path / "config.json").write_text(json.dumps(config))
    for script, message in (
        ("stream.py", "s5 has no step, which"),
        (BODE, "--layer=0: s5 has no transfer_function, which"),
    ):
        status, _, errors = call(script, f"--workdir={tmp_path}")
        assert status == 1 and errors == f"error: {message} this needs\n"


def test_a_model_of_two_directions_cannot_be_streamed(tmp_path, call):
    (tmp_path / "config.json").write_text(json.dumps(tiny.config().to_dict()))
    status, _, errors = call("stream.py", f"--workdir={tmp_path}")
    assert status == 1 and "train one with --config.mixers.s5.bidirectional=false" in errors


def test_an_evaluation_before_the_first_checkpoint(tmp_path, call):
    (tmp_path / "config.json").write_text(json.dumps(tiny.config().to_dict()))
    status, _, errors = call("evaluate.py", f"--workdir={tmp_path}")
    assert status == 1 and "has no best checkpoint that can be read" in errors


def test_divergence_is_an_error(tmp_path, call):
    fields = ("--config.optim.lr=1e38", "--config.optim.ssm_lr=1e38", "--config.mixers.s5.bidirectional=false")
    status, _, errors = call("train.py", *tiny.command(tmp_path / "x", *fields)[2:])
    assert status == 1 and re.match(r"error: step \d+: .* is (nan|inf)", errors), errors


def test_the_lock_files_name_hashes_and_no_address():
    for name in ("requirements.txt", "requirements-dev.txt"):
        text = (tiny.ROOT / name).read_text()
        assert "://" not in text and "--index" not in text
        requirements = [block for block in text.replace("\\\n", "").splitlines() if block.strip()]
        assert all("==" in r and "--hash=sha256:" in r for r in requirements)


@pytest.mark.slow
def test_the_readme_s_layers_run():
    blocks = re.findall(r"```python\n(.*?)```", (tiny.ROOT / "README.md").read_text(), re.DOTALL)
    names: dict = {}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for code in (block for block in blocks if "import jax" in block and "runs/" not in block):
            exec(code, names)
    assert names["irregular"].shape == names["y"].shape == (8, 1000, 32)
    assert names["G"].shape == (50, 32, 32) and names["K"].shape == (1, 32, 1000)
    assert names["logits"].shape == (8, 10)


def test_shell_scripts_parse():
    for name in ("install", "quickstart", "test", "lock"):
        subprocess.run(["bash", "-n", f"scripts/{name}"], cwd=tiny.ROOT, check=True)


def test_a_benchmark_of_nothing_known_is_told(call):
    assert call("benchmark.py", "lstops")[0::2] == (
        1,
        "error: no part 'lstops'; there are image, text, pathfinder, listops, s4d, s4, s4d-long, methods, recurrent,"
        " loop, lengths, mixers, numerics, epoch, start\n",
    )
    assert call("benchmark.py", "listops", "--repeats=0")[0::2] == (
        1,
        "error: --repeats must be at least 1, --batch at least 0\n",
    )
    assert call("benchmark.py", "listops", "--out=.")[0::2] == (
        1,
        "error: --out=.: give a name for the files, as in --out=benchmark\n",
    )
    code, _, error = call("benchmark.py", "listops", "--out=/proc/none/benchmark")
    assert code == 1 and error.startswith("error: ") and "/proc/none" in error


@pytest.mark.slow
def test_benchmarks_of_numerics_and_of_an_epoch(monkeypatch):
    """On a CPU, with a tiny model: the numbers mean nothing, except the errors."""
    monkeypatch.setattr(numerics, "SHAPES", ((2, 37, 6), (1, 1, 5)))
    found = numerics.run(1, lambda _: None)
    assert len(found["scan"]) == 2 and set(found["layers"]) == {"s5", "s4d", "s4", "lru"} and not found["losses"]
    assert 0 < max(found["scan"].values()) < 1e-5 and 0 < max(found["layers"].values()) < 1e-4
    assert "aim: 1e-05): reached" in "\n".join(numerics.report(found))
    override = resolve.override
    small = ["model.depth=1", "model.d_model=8", "task.limit=200", "train.warmup_epochs=0"]

    def shrink(values, fields):
        size = "s5.state_size=12" if "s5" in values.mixers else "s4d.state_size=4"
        override(values, [*fields, *(f"--config.{field}" for field in (*small, f"mixers.{size}"))])

    monkeypatch.setattr(epoch.resolve, "override", shrink)
    monkeypatch.setattr(epoch, "STEPS", 2)
    with jax.numpy_dtype_promotion("standard"):
        found = epoch.run(1, lambda _: None)
    assert len(epoch.report(found)) == 7 and all(min(case.values()) > 0 for case in found.values())


@pytest.mark.slow
def test_a_benchmark_writes_its_numbers_and_keeps_notes(call, tmp_path):
    out = tmp_path / "new" / "b-1.0"
    out.parent.mkdir()
    (tmp_path / "new" / "b-1.0.md").write_text("old\n\n## Notes \n\nwhy\n")
    status, output, _ = call("benchmark.py", "listops", "--batch=1", "--repeats=1", f"--out={out}")
    assert status == 0
    assert (tmp_path / "new" / "b-1.0.md").read_text() == f"{output}\n## Notes \n\nwhy\n"
    case = json.loads((tmp_path / "new" / "b-1.0.json").read_text())["cases"]["listops"]
    assert case["tokens"] == 2048
    assert case["baseline train"]["scratch_bytes"] > 2 * case["s5jax train"]["scratch_bytes"]


@pytest.mark.slow
def test_benchmarks_of_methods_recurrence_loop_and_lengths(call, tmp_path, monkeypatch):
    monkeypatch.setattr(lengths, "LENGTHS", [256, 1024])
    monkeypatch.setattr(recurrent, "BATCHES", {1: 3})
    monkeypatch.setattr(measure, "keep_memory", lambda: None)  # it would hold for the tests after this
    monkeypatch.setattr(methods, "SHAPES", {"64, 8, 4": (64, 8, 4)})
    monkeypatch.setattr(mixers, "LENGTHS", [32, 64])
    monkeypatch.setattr(mixers, "names", lambda: ["attention", "s4d", "s5"])
    for part in ("methods", "recurrent", "loop", "lengths", "mixers"):
        status, output, errors = call("benchmark.py", part, "--repeats=1", f"--out={tmp_path / part}")
        assert status == 0, errors
        assert len(output.splitlines()) > 5
    assert all((tmp_path / f"{name}-{name}.png").stat().st_size > 5000 for name in ("lengths", "mixers"))
    measured = json.loads((tmp_path / "loop.json").read_text())["loop"]
    assert len(measured["loop"]) == len(measured["step"]) == 2
