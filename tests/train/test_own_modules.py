"""Mixers and tasks from outside the package: named with dots, found from the current folder, held to the contract."""

import itertools
import json
import runpy
import sys

import pytest
import tiny

from s5jax.train.build import build, load_task
from s5jax.train.config import UserError

MIXER = '''
"""A moving average."""

import dataclasses

import jax
import jax.numpy as jnp

from s5jax.ssm.sequence import border

CAUSAL = True
GROUPS = {"dynamics": "logit"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    start: float = 0.0


def init(key, width, options, *, depth=1, length=1):
    return {"logit": jnp.full((width,), options.start, jnp.float32)}


def apply(params, x, options, *, lengths=None, mask=None, reset=None, rate=None, state=None, key=None, dropout=0.0):
    x, _ = border(x, lengths, mask, reset, rate)
    start = jnp.zeros_like(x[:, 0]) if state is None else state
    keep = jax.nn.sigmoid(params["logit"])[None]

    def read(h, u):
        h = keep * h + (1 - keep) * u
        return h, h

    end, y = jax.lax.scan(read, start, jnp.moveaxis(x, 1, 0))
    return jnp.moveaxis(y, 0, 1), None if state is None else end


def init_state(params, options, batch, *, max_length=None):
    return jnp.zeros((batch, params["logit"].shape[0]), params["logit"].dtype)


def step(cell, state, x_k, options, *, mask=None, reset=None):
    keep = jax.nn.sigmoid(cell["logit"])[None]
    state = keep * state + (1 - keep) * x_k
    return state, state
'''
TASK = '''
"""Which half of a sequence is larger."""

import dataclasses

import numpy as np

from s5jax.data.task import Split, Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    noise: float = 0.1


def load(options):
    rng = np.random.default_rng(0)

    def split(n):
        labels = rng.integers(0, 2, n)
        inputs = options.noise * rng.normal(size=(n, 8, 1))
        inputs[labels == 0, :4] += 1
        inputs[labels == 1, 4:] += 1
        return Split(inputs, labels)

    splits = {"train": split(640), "val": split(64), "test": split(64)}
    return Task(name="halves", splits=splits, length=8, num_classes=2)
'''


numbers = itertools.count()


@pytest.fixture
def project(tmp_path):
    """A folder of a user's with a package of his."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/__init__.py").write_text("")
    (tmp_path / "mine/average.py").write_text(MIXER)
    (tmp_path / "mine/halves.py").write_text(TASK)
    return tmp_path


@pytest.fixture
def build_own(tmp_path, monkeypatch):
    """A model of a mixer of this text, in a module that no other test has imported."""

    def make(text, *fields):
        name = f"mixer_of_mine{next(numbers)}"
        (tmp_path / name).mkdir()
        (tmp_path / name / "average.py").write_text(text)
        pattern = f"--config.model.pattern=('{name}.average',)"
        config = tiny.config(*([field.replace("NAME", name) for field in fields] or [pattern]))
        return build(config, load_task(config))

    monkeypatch.syspath_prepend(tmp_path)
    return make


def test_a_mixer_of_ones_own_may_add_its_own_residual(build_own):
    text = MIXER.replace("CAUSAL = True", "CAUSAL = OWN_RESIDUAL = True")
    text = text.replace("options, *, lengths", "options, *, skip, lengths")
    text = text.replace("(y, 0, 1), None", "(y, 0, 1) + skip, None")
    _, state = build_own(text)
    assert state.params["encoder"]["layers"][0]["seq"]["logit"].shape == (1, 4)


def test_a_mixer_of_ones_own_may_have_buffers(build_own):
    text = MIXER + '\n\ndef init_buffers(key, width, options):\n    return {"seen": jnp.zeros((width,), jnp.float32)}\n'
    with pytest.raises(UserError, match=r"average\.apply must return \(y, state, buffers\)"):
        build_own(text.replace("options, *, lengths", "options, *, buffers, lengths"))
    text = text.replace("options, *, lengths", "options, *, buffers, lengths")
    _, state = build_own(text.replace("(y, 0, 1), None", "(y, 0, 1), None, buffers"))
    assert state.batch_stats["encoder"]["layers"][0]["buffers"]["seen"].shape == (1, 4)


def test_parameters_are_nested_dicts(build_own):
    text = MIXER.replace("CAUSAL = True", 'import collections\nParams = collections.namedtuple("Params", "logit")')
    text = text.replace('{"logit": jnp.full((width,), options.start, jnp.float32)}', "Params(jnp.zeros(width))")
    with pytest.raises(UserError, match=r"average\.init must return nested dicts of arrays, got Params\(logit="):
        build_own(text.replace('params["logit"]', "params.logit"))


def test_each_section_of_a_mixer_is_checked(build_own):
    text = MIXER.replace("    start =", "    assert options.start < 5, options.start\n    start =")
    fields = ["model.depth=2", "model.pattern=('one','two')", "mixers.one.module=NAME.average", "mixers.one.start=7.0"]
    fields += ["mixers.two.module=NAME.average"]
    with pytest.raises(UserError, match=r"average failed: AssertionError: 7\.0"):
        build_own(text, *(f"--config.{field}" for field in fields))


@pytest.fixture
def train(project, monkeypatch, capsys):
    """scripts/train.py in the user's folder: exit status, output and errors."""

    def forget():
        for name in [name for name in sys.modules if name.partition(".")[0] == "mine"]:
            del sys.modules[name]

    def run(*fields):
        forget()
        command = ["train.py", f"--config={tiny.ROOT}/{tiny.RECIPE}", "--workdir=run", *tiny.FIELDS]
        fields = ["--config.train.batch_size=32", *fields]
        fields += ["--config.model.pattern=('mine.average',)", "--config.task.name=mine.halves"]
        monkeypatch.chdir(project)
        monkeypatch.setattr(sys, "argv", [*command, *fields])
        monkeypatch.setattr(sys, "path", sys.path[:])
        capsys.readouterr()
        with pytest.raises(SystemExit) as status:
            runpy.run_path(f"{tiny.ROOT}/scripts/train.py", run_name="__main__")
        return status.value.code, *capsys.readouterr()

    yield run
    forget()


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype float64")  # of the task's examples
def test_a_task_and_a_mixer_of_ones_own(project, train):
    """They train, their options are fields, their hashes are recorded; on resume a changed file is told."""
    fields = ("--config.mixers.mine.average.start=1.0", "--config.task.noise=0.2", "--config.train.epochs=6")
    status, _, errors = train(*fields)
    assert status == 0, errors
    run = json.loads((project / "run/run.json").read_text())
    assert run["code"].keys() == {"mine.average", "mine.halves"} and all(len(h) == 64 for h in run["code"].values())
    assert json.loads((project / "run/config.json").read_text())["mixers"] == {
        "mine.average": {"module": "mine.average", "start": 1.0}
    }
    assert json.loads((project / "run/result.json").read_text())["test/accuracy"] > 0.7
    (project / "run/result.json").unlink()
    (project / "mine/average.py").write_text(MIXER + "\n# changed\n")
    status, output, errors = train(*fields)
    assert status == 0, errors
    assert "warning: mine.average has changed since this run started" in output
    assert "mine.halves has changed" not in output
    after = json.loads((project / "run/run.json").read_text())
    assert after["code"] == run["code"] and after["started"] == run["started"]
    (resumed,) = after["resumed"]
    assert resumed["code"]["mine.average"] != run["code"]["mine.average"] and "versions" not in resumed


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("average", "def apply(", "def aply(", "config.model.pattern: mine.average has no function apply"),
        ("average", "import jax\n", "import jaxx\n", "mine.average cannot be imported: ModuleNotFoundError: No module"),
        ("average", "jnp.moveaxis(y, 0, 1), None", "y, None", "mine.average.apply must return y of the shape of x"),
        (
            "average",
            "return jnp.moveaxis(y, 0, 1), None",
            "return jnp.moveaxis(y, 0, 1)[0] #",
            "must return (y, state)",
        ),
        ("average", "keep * h +", "keep * hh +", "mine.average failed: NameError: name 'hh' is not defined ("),
        ("average", "def init(key", "def init(key, what", "mine.average failed: TypeError"),
        ("halves", "def load(", "def lod(", "config.task.name: mine.halves has no function load"),
        ("halves", "num_classes=2", "num_classes=1", "halves, split train: label 1 of example"),
        ("halves", "rng.integers(0, 2, n)", "rng.integer(0, 2, n)", "mine.halves cannot be loaded: AttributeError"),
        ("halves", "noise: float", "noise float", "mine.halves cannot be imported: SyntaxError: "),
    ],
)
def test_a_mistake_in_ones_own_code_is_a_line(project, train, file, old, new, message):
    """Its file and line are in it where there is one to name."""
    path = project / f"mine/{file}.py"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    status, _, errors = train()
    assert status == 1
    assert errors.startswith("error: ") and message in errors, errors
    assert len(errors.strip().splitlines()) == 1 and "Traceback" not in errors
    if "Error: " in message or "NameError" in message:
        assert f"{file}.py, line " in errors


def test_an_argument_that_ones_mixer_does_not_take_is_refused(project, train):
    """A task with missing samples, and a mixer that knows no mask."""
    text = TASK.replace("Split(inputs, labels)", "Split(inputs, labels, mask=inputs[..., 0] > 1)")
    (project / "mine/halves.py").write_text(text)
    status, _, errors = train()
    assert status == 1
    assert "with the data of task mine.halves: average takes no mask of missing samples" in errors, errors
