"""Wrong command lines: each is refused in a line or two, with an exit status, and leaves nothing behind."""

import itertools
import os
import runpy
import sys

import jax
import pytest
import tiny

TRAIN = ("scripts/train.py", "--config=configs/digits.py:s5", "--dry_run")
INTEGERS = {
    "task.limit", "model.depth", "model.d_model", "mixers.s5.state_size", "mixers.s5.blocks", "optim.micro_batches",
    "train.batch_size", "train.patience", "train.buckets", "log.every_steps", "seed", "num_devices", "model.mlp",
}  # fmt: skip
ENDLESS = {"log.every_steps", "task.limit", "train.patience"}
"""For which a huge number is right: never, or no limit."""
FLOATS = {
    "model.norm_epsilon", "model.bn_momentum", "model.dropout", "mixers.s5.dt_min", "mixers.s5.dt_max",
    "mixers.s5.ptd_kappa", "optim.lr", "optim.ssm_lr", "optim.weight_decay", "optim.lr_min", "optim.clip_norm",
    "optim.average", "optim.b1", "optim.b2", "optim.eps", "train.resident_gib", "train.epochs", "train.warmup_epochs",
    "train.schedule_epochs", "train.eval_every_epochs", "train.checkpoint_every_epochs",
}  # fmt: skip
CHOICES = {
    "model.encoder", "model.activation", "model.gelu", "model.norm", "model.pooling", "model.remat", "mixers.s5.init",
    "mixers.s5.C_init", "mixers.s5.D_init", "mixers.s5.discretization", "mixers.s5.scan_method", "optim.grouping",
    "optim.schedule", "optim.name", "log.wandb",
}  # fmt: skip
FLAGS = {
    "model.prenorm", "model.residual", "model.mask_padding", "model.unroll", "mixers.s5.bidirectional",
    "mixers.s5.conj_sym", "mixers.s5.clip_eigs", "optim.dt_global", "train.carry_state", "log.tensorboard",
}  # fmt: skip


def fields():
    for name, value in itertools.product(sorted(INTEGERS), ["x", "1.5", "nan", "-1", "1e30", "9" * 30, "", "(1,)"]):
        if not (value.startswith("99") and name in ENDLESS):
            yield name, value
    for name, value in itertools.product(sorted(FLOATS), ["x", "nan", "inf", "-inf", "1e999", "-0.5", "(1,)", ""]):
        yield name, value
    for name, value in itertools.product(sorted(CHOICES), ["nothing", "3", ""]):
        yield name, value
    for name, value in itertools.product(sorted(FLAGS), ["perhaps", "2", "nan"]):
        yield name, value
    for name in (
        "lr",
        "optim.rate",
        "optim.lr.x",
        "model",
        "model.depht",
        "mixers.s6.state_size",
        "x",
        "train.step",
        "",
    ):
        yield name, "1"
    for value in ("s5", "()", "('s6',)", "('s5', 3)", "3", "('no.such.module',)", "('',)"):
        yield "model.pattern", value
    for value in ("3", "(1,)", "(('(',{}),)", "(('.*',{'lr':'x'}),)", "(('.*',{'lr':-1}),)", "(('.*',{'lrr':1}),)"):
        yield "optim.rules", value
    for value in ("nothing", "no.such.task", "", "3", "../digits", "os.path"):
        yield "task.name", value


COMMANDS = [
    *((*TRAIN, f"--config.{name}={value}") for name, value in fields()),
    ("scripts/train.py",),
    ("scripts/train.py", "--config="),
    ("scripts/train.py", "--config=none.py"),
    ("scripts/train.py", "--config=configs"),
    ("scripts/train.py", "--config=README.md"),
    ("scripts/train.py", "--config=configs/digits.py:s6", "--dry_run"),
    ("scripts/train.py", "--config=configs/digits.py:s5,s4d-lin", "--dry_run"),
    ("scripts/train.py", "--config=configs/digits.py:s5,nothing", "--dry_run"),
    ("scripts/train.py", "--config=configs/digits.py:s5"),
    ("scripts/train.py", "--config=configs/digits.py:s5", "--workdir="),
    ("scripts/train.py", "--config=configs/digits.py:s5", "--workdir=FILE"),
    ("scripts/train.py", "--config=configs/digits.py:s5", "--workdir=FILE/below"),
    ("scripts/train.py", "--config=configs/digits.py:s5", "--workdir=DANGLING"),
    ("scripts/train.py", "--config=configs/digits.py:s5", "--workdir=/proc/none"),
    ("scripts/train.py", "--config=configs/lra/text.py:s5", "--workdir=NEW", "--config.task.data_dir=EMPTY"),
    ("scripts/train.py", "--config=configs/lra/image.py:s5", "--workdir=NEW", "--config.task.data_dir=NONE"),
    ("scripts/train.py", "--config=configs/digits.py:s5", "--workdir=NEW", "--nothing"),
    ("scripts/train.py", "--config=configs/digits.py:s5", "--workdir=NEW", "more"),
    ("scripts/train.py", "--config=configs/digits.py:s5", "--workdir=NEW", "--config.optim.lr"),
    *(("scripts/train.py", f"--config={name}", "--workdir=NEW") for name in ("BROKEN", "RAISES", "EXITS", "NOTHING")),
    *(
        (script, *words)
        for script in ("evaluate.py", "generate.py", "stream.py", "eigenvalues.py", "../projects/ptd/bode.py")
        for words in ((), ("--workdir=",), ("--workdir=NONE",), ("--workdir=EMPTY",), ("--workdir=FILE",), ("--wrong",))
    ),
    *(
        (script, "--workdir=EMPTY", "--checkpoint=newest")
        for script in ("evaluate.py", "generate.py", "stream.py", "../projects/ptd/bode.py")
    ),
    *(("evaluate.py", "--workdir=EMPTY", f"--{word}") for word in ("split=all", "stride=x", "stride=1.5", "stride=")),
    *(
        ("generate.py", "--workdir=EMPTY", f"--{name}={value}")
        for name, values in {
            "tokens": ("0", "-1", "x", "nan", "1.5"),
            "samples": ("0", "-3", "x"),
            "temperature": ("-1", "nan", "inf", "x"),
            "top_p": ("0", "1.5", "nan", "-1", "x"),
            "seed": ("-1", "x", "9999999999999"),
        }.items()
        for value in values
    ),
    *(("stream.py", "--workdir=EMPTY", f"--{word}") for word in ("example=x", "prefill=x", "split=none", "example=")),
    *(
        ("prepare_data.py", *words)
        for words in ((), ("nothing",), ("digits",), ("pieces",), ("__init__",), ("text_file",))
    ),
    *(
        ("prepare_data.py", name, "--data_dir=EMPTY", *words)
        for name in ("image", "text", "pathfinder")
        for words in ((), ("--check",), ("--seed=1",), ("--sizes", "1", "2"), ("--sizes", "0", "0", "0"), ("--seed=x",))
    ),
    *(("prepare_data.py", name, "--data_dir=NONE") for name in ("image", "smnist", "listops")),
    ("prepare_data.py", "image", "--data_dir=FILE"),
    ("prepare_data.py", "image", "--data_dir="),
    ("prepare_data.py", "image", "--data_dir=EMPTY", "--generate"),
    ("prepare_data.py", "listops", "--data_dir=EMPTY", "--generate", "--seed=-1"),
    ("prepare_data.py", "listops", "--data_dir=EMPTY", "--generate", "--sizes", "-1", "2", "3"),
    ("prepare_data.py", "listops", "--data_dir=EMPTY", "--generate", "--tfds_dir=EMPTY"),
    *(("benchmark.py", "digits", *words) for words in ((), ("--batch=-1",), ("--out=NONE/x",))),
    *(("benchmark.py", "listops", f"--{word}") for word in ("batch=-2", "batch=x", "repeats=0", "out=FILE/x", "out=")),
    *(("benchmark_input.py", *words) for words in ((), ("--config=none.py",), ("--config=configs/digits.py:s6",))),
    *(("benchmark_input.py", "--config=configs/digits.py:s5", f"--{w}") for w in ("steps=0", "rounds=0", "steps=x")),
    *(("pathfinder_picture.py", f"--{word}") for word in ("task=image", "seed=x", "seed=-1", "out=NONE/x.png")),
]


@pytest.fixture
def places(tmp_path):
    for name in ("EMPTY",):
        (tmp_path / name).mkdir()
    (tmp_path / "FILE").write_text("a file")
    (tmp_path / "DANGLING").symlink_to(tmp_path / "nowhere")
    (tmp_path / "BROKEN").write_text("def get_config(:\n")
    (tmp_path / "RAISES").write_text("def get_config(arg=''):\n    raise RuntimeError('two\\nlines')\n")
    (tmp_path / "EXITS").write_text("import sys\nsys.exit(3)\n")
    (tmp_path / "NOTHING").write_text("")
    return tmp_path


def everything_in(folder):
    return {str(path.relative_to(folder)): path.lstat().st_mtime_ns for path in folder.rglob("*") if not path.is_dir()}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command)[:80])
def test_a_wrong_command(command, places, monkeypatch, capfd):
    names = ("EMPTY", "FILE", "DANGLING", "BROKEN", "RAISES", "EXITS", "NOTHING", "NONE", "NEW")
    script, *words = command
    for name in names:
        words = [word.replace(f"={name}", f"={places}/{name}") for word in words]
    script = os.path.normpath(script if "/" in script and not script.startswith("..") else f"scripts/{script}")
    monkeypatch.chdir(tiny.ROOT)
    monkeypatch.setattr(sys, "argv", [script, *words])
    before = everything_in(places)
    with pytest.raises(SystemExit) as status, jax.numpy_dtype_promotion("standard"):
        runpy.run_path(script, run_name="__main__")
    output, errors = (text.strip().splitlines() for text in capfd.readouterr())
    errors = [line for line in output if "WRONG" in line] if "--check" in words else errors
    assert status.value.code in (1, 2), (status.value.code, errors)
    assert 1 <= len(errors) <= 2 and "Traceback" not in errors[0], errors
    assert all(len(line) < 1000 for line in errors), errors
    assert everything_in(places) == before


def test_there_are_enough():
    assert len(set(COMMANDS)) == len(COMMANDS) >= 250 and len({script for script, *_ in COMMANDS}) >= 9
