"""What a user may get wrong, and the line that says so."""

import dataclasses
import types
from typing import Literal, Optional

import jax
import pytest
import tiny

from s5jax import mixers
from s5jax.data.task import DataError
from s5jax.train import modules, workdir
from s5jax.train import resolve as configs
from s5jax.train.build import build, load_task
from s5jax.train.config import Duration, Optim, UserError

MINIMAL = {"task": {"name": "digits"}}
MIXERS = ", ".join(sorted(path.stem for path in (tiny.ROOT / "s5jax/mixers").glob("[!_]*.py")))


def test_a_config_survives_its_own_json():
    config = tiny.config()
    assert configs.resolve(config.to_dict()) == config
    assert config.model.d_model == 4 and config.mixers["s5"].options.state_size == 4
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1  # type: ignore[misc]


def test_left_out_fields_have_defaults():
    assert configs.resolve(MINIMAL).optim == Optim()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (
            "--config.optim.lrr=1",
            "unknown field config.optim.lrr; did you mean lr? (the fields of config.optim: name, lr, ssm_lr",
        ),
        ("--config.optm.lr=1", "unknown field config.optm; did you mean optim? (the fields of config: task, model"),
        ("--config.sed=1", "unknown field config.sed; did you mean seed?"),
        ("--config.ssm.state_size=1", "unknown field config.ssm"),
        ("--config.optim.lr.x=1", "config.optim.lr takes float, got {'x': 1} (dict)"),
        ("--config.optim.lr=fast", "config.optim.lr takes float, got 'fast' (str)"),
        ("--config.train.steps=2.5", "config.train.steps takes int, got 2.5 (float)"),
        ("--config.train.epochs=true", "config.train.epochs takes float, got True (bool)"),
        ("--config.train.epochs=0", "config.train: epochs must be positive, got 0.0"),
        ("--config.train.warmup_steps=-1", "config.train: warmup_steps must be at least 0, got -1"),
        ("--config.train.warmup=1", "unknown field config.train.warmup; did you mean warmup_steps?"),
        ("--config.train.duration=1", "unknown field config.train.duration"),
        ("--config.model.prenorm=1", "config.model.prenorm takes bool, got 1 (int)"),
        ("--config.log.wandb_project=7", "config.log.wandb_project takes str, got 7 (int)"),
        ("--config.optim=3", "config.optim is a section of fields, got 3"),
        ("--config.mixers=3", "config.mixers is a section of fields, got 3"),
        ("--config.mixers.s5=3", "config.mixers.s5 is a section of fields, got 3"),
        ("--config.task=digits", "config.task is a section of fields, got 'digits'"),
        (
            "--config.model.activation=relu",
            "config.model.activation must be one of none, gelu, full_glu, half_glu1, half_glu2; got 'relu'",
        ),
        (
            "--config.optim.grouping=x",
            "must be one of standard, BandCdecay, BfastandCdecay, noBCdecay, only_C, plain; got 'x'",
        ),
        (
            "--config.mixers.s5.discretization=euler",
            "config.mixers.s5.discretization must be one of zoh, bilinear; got 'euler'",
        ),
        ("--config.model.pattern=('s9',)", f"config.model.pattern: 's9' does not exist; there are {MIXERS}"),
        ("--config.model.pattern=('../s5',)", "config.model.pattern: '../s5' is not the name of a module"),
        ("--config.model.pattern=('nowhere.s5',)", "config.model.pattern: 'nowhere.s5' does not exist"),
        ("--config.model.pattern=('json.tool',)", "config.model.pattern: json.tool has no function apply"),
        ("--config.model.pattern=s5", """config.model.pattern takes a tuple such as "('s5', 'attention')", got 's5'"""),
        ("--config.optim.rules=foo", """takes a tuple such as "(('@dynamics', {'lr': 0.001}),)", got 'foo'"""),
        ("--config.model.pattern=()", "config.model: pattern must be a tuple of names of mixers, at least one, got ()"),
        ("--config.model.pattern=(5,)", "config.model.pattern[0] takes str, got 5 (int)"),
        ("--config.model.pattern=('s5','s5')", "config.model: pattern has 2 mixers, more than depth 1"),
        ("--config.mixers.s4.rank=1", "--config.mixers.s4.rank=1: model.pattern has the mixers s5"),
        ("--config.mixers.s5.module=attention", "unknown field config.mixers.s5."),
        ("--config.task.name=listopps", "config.task.name: 'listopps' does not exist; there are digits"),
        ("--config.mixers.s5.blocks=3", "config.mixers.s5: state_size 4 is not divisible by blocks 3"),
        ("--config.mixers.s5.blocks=4", "config.mixers.s5: conj_sym needs blocks of even size"),
        ("--config.mixers.s5.lr=3", "unknown field config.mixers.s5.lr"),
        ("--config.objective.module=classify", "config.objective: 'classify' does not exist; there are classification"),
        ("--config.evaluators.strid.stride=2", "config.evaluators: 'strid' does not exist; there are eigenvalues, st"),
        ("--config.evaluators.stride.stride=0", "config.evaluators.stride: need stride >= 1"),
        ("--config.model.dropout=1.0", "config.model: dropout must lie in [0, 1), got 1.0"),
        ("--config.optim.lr=-1", "config.optim: lr must be at least 0, got -1.0"),
        ("--config.optim.lr=1e-400", "config.optim.lr: '1e-400' is too small, it would be rounded to 0"),
        ("--config.optim.lr=1e999", "config.optim.lr must be a finite number, got '1e999'"),
        ("--config.model.depth=100000", "config.model: depth must lie in 1..1000, got 100000"),
        ("--config.model.norm=" + 20_000 * "x", "xxx... (20002 characters)"),
        ("--config.optim.name=adamm", "config.optim.name: optax has no optimizer 'adamm'; did you mean adam?"),
        ("--config.optim.name=chain", "config.optim.name: optax has no optimizer 'chain'"),
        ("--config.optim.arguments={'momentun':0.9}", "config.optim.arguments: optax.adamw has no argument 'momentun'"),
        ("--config.optim.arguments={'mu_dtype':'float99'}", "config.optim: optax.adamw cannot be used so: TypeError: "),
        ("--config.optim.name=lbfgs", "config.optim: optax.lbfgs cannot be used so: "),
        ("--config.optim.name=lamb", "config.optim.name: optax.lamb scales by the norm of a whole array, but here an"),
        ("--config.optim.name=scale_by_rprop", "config.optim.name: optax has no optimizer 'scale_by_rprop'"),
        ("--config.optim.name=_deprecated_dpsgd", "config.optim.name: optax has no optimizer '_deprecated_dpsgd'"),
        ("--config.optim.average=1", "config.optim: average must lie in [0, 1), got 1.0"),
        ("--config.optim.b2=1", "config.optim: b2 must lie in [0, 1), got 1.0"),
        ("--config.optim.micro_batches=3", "batch_size 64 is not divisible by config.optim.micro_batches 3"),
        ("--config.optim.rules=(('.*','lr'),)", "config.optim.rules[0][1] is a section of fields, got 'lr'"),
        ("--config.optim.rules=(('.*',{'lrr':1}),)", "unknown field config.optim.rules[0].lrr; did you mean lr?"),
        ("--config.optim.rules=(('.*',{'lr':-1}),)", "config.optim.rules[0]: lr must be at least 0, got -1.0"),
        ("--config.optim.rules=(('*',{'lr':1}),)", "config.optim.rules[0]: '*' is not a regular expression"),
        ("--config.seed=4294967296", "config: seed must lie in 0..4294967295"),
        ("--config.optim.lr=nan", "config.optim.lr must be a finite number, got nan"),
        ("--config.train.batch_size=0", "config.train: batch_size must be at least 1, got 0"),
        ("--config.train.epochs", "--config.train.epochs needs a value"),
        ("--epochs=3", "unknown option --epochs=3"),
        ("epochs=3", "unknown option epochs=3"),
    ],
)
def test_mistakes_on_the_command_line(argument, message):
    with pytest.raises(UserError) as error:
        tiny.config(argument)
    assert message in str(error.value)
    assert str(error.value).count("\n") == 0


def test_arguments_of_an_optimizer_are_fields_too():
    config = tiny.config("--config.optim.name=sgd", "--config.optim.arguments.momentum=0.9")
    assert config.optim.arguments == {"momentum": 0.9}


def test_sections_of_modules_whose_names_have_dots(tmp_path, monkeypatch):
    """Nested, as the command line and a ConfigDict have them; those of mixers that are not in the pattern, too."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "nest").mkdir()
    (tmp_path / "nest/probe.py").write_text("from s5jax.evaluators.eigenvalues import *")
    (tmp_path / "nest/mix.py").write_text("from s5jax.mixers.lru import *")
    fields = ["--config.evaluators.nest.probe.every_steps=5", "--config.evaluators.stride.stride=3"]
    config = tiny.config(*fields)
    assert {name: section.module for name, section in config.evaluators.items()} == {
        "nest.probe": "nest.probe", "stride": "stride",
    }  # fmt: skip
    assert config.evaluators["nest.probe"].options.every_steps == 5
    assert configs.resolve(config.to_dict()) == config
    values = {**MINIMAL, "mixers": {"nest": {"mix": {"r_min": 0.5}}}, "evaluators": {"nest": {"probe": {}}}}
    assert configs.resolve(values).mixers.keys() == {"s5"}
    assert configs.resolve(values).evaluators.keys() == {"nest.probe"}
    used = configs.resolve({**values, "model": {"pattern": ("nest.mix",)}})
    assert used.mixers["nest.mix"].options.r_min == 0.5
    with pytest.raises(UserError, match=r"unknown field config\.mixers\.nest\.mix\.rmin"):
        configs.resolve({**values, "mixers": {"nest": {"mix": {"rmin": 0.5}}}})


def test_a_section_that_a_config_leaves_out_can_be_set():
    values = configs.ml_collections.ConfigDict(MINIMAL)
    configs.override(values, ["--config.log.every_steps=5", "--config.seed=3"])
    assert configs.resolve(values).log.every_steps == 5 and configs.resolve(values).seed == 3


def test_durations_in_any_unit():
    steps = {"steps": 30, "epochs": 1.5, "examples": 1500}
    for unit, amount in steps.items():
        config = tiny.config(f"--config.train.{unit}={amount}", f"--config.train.warmup_{unit}={amount}")
        assert config.train.duration == config.train.warmup == Duration(amount, unit)
        assert config.train.duration.steps(steps_per_epoch=20, batch_size=50) == 30
        assert configs.resolve(config.to_dict()) == config
        assert config.to_dict()["train"][unit] == amount
    assert Duration(0.01).steps(20, 50) == 1 and Duration(0.0).steps(20, 50) == 0
    assert tiny.config("--config.train.eval_every_steps=39").train.eval_every == Duration(39, "steps")
    last = tiny.config("--config.train.steps=7", "--config.train.epochs=2", "--config.train.checkpoint_every_steps=3")
    assert (last.train.duration, last.train.checkpoint_every) == (Duration(2.0), Duration(3, "steps"))
    with pytest.raises(UserError, match=r"config\.train\.steps is given in another unit, too: choose one"):
        configs.resolve(MINIMAL | {"train": {"epochs": 2, "steps": 7}})


def test_the_optimizer_from_the_command_line():
    optim = {"b1": 0.5, "b2": 0.98, "eps": 1e-6, "clip_norm": 1.0, "micro_batches": 2, "average": 0.999, "lr_min": 1e-5}
    config = tiny.config(*(f"--config.optim.{name}={value}" for name, value in optim.items()))
    assert {name: getattr(config.optim, name) for name in optim} == optim
    build(config, load_task(config))


@pytest.mark.parametrize("pattern", [("lru",), ("attention",), ("s5", "attention"), ("s4d", "lru")])
def test_debug_shrinks_any_pattern(pattern):
    """Without knowing the mixers: their own options stay."""
    values = configs.load_config(f"{tiny.ROOT}/configs/digits.py:s5,debug")
    configs.override(values, [f"--config.model.pattern={pattern!r}", "--config.num_devices=1"])
    config = configs.resolve(values)
    assert (config.model.depth, config.model.d_model, config.task.limit) == (2, 8, 64)
    task = load_task(config)
    state = jax.eval_shape(lambda: build(config, task)[1])
    assert set(state.params["encoder"]["layers"]) == set(range(len(pattern)))


def test_another_pattern_than_the_file_s_leaves_the_file_s_mixer_alone():
    config = tiny.config(
        "--config.model.depth=3", "--config.model.pattern=('s4d','lru')", "--config.mixers.s4d.n_ssm=2"
    )
    assert set(config.mixers) == {"s4d", "lru"} and config.mixers["s4d"].options.n_ssm == 2
    named = tiny.config(
        "--config.model.depth=2", "--config.model.pattern=('s5','wide')", "--config.mixers.wide.module=s5",
        "--config.mixers.wide.state_size=16",
    )  # fmt: skip
    assert [named.mixers[name].options.state_size for name in ("s5", "wide")] == [4, 16]
    assert configs.resolve(named.to_dict()) == named


@pytest.mark.parametrize(
    ("loaded", "message"),
    [
        (None, "load\\(\\) must return a Task, got None"),
        (FileNotFoundError("no such file"), "cannot be loaded: no such file"),
    ],
)
def test_a_task_that_cannot_be_loaded(monkeypatch, loaded, message):
    def load():
        if loaded is None:
            return None
        raise loaded

    config = tiny.config()
    monkeypatch.setattr("s5jax.train.build.load_module", lambda kind, name: types.SimpleNamespace(load=load))
    with pytest.raises(UserError, match=message):
        load_task(config)


def test_a_mixer_that_cannot_be_imported_harms_nobody_else(tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text("import nothing_of_this_name")
    monkeypatch.setattr(mixers, "__path__", [*mixers.__path__, str(tmp_path)])
    assert ", ".join(modules.known("mixers")) == MIXERS
    message = (
        r"broken cannot be imported: ModuleNotFoundError: No module named 'nothing_of_this_name' \(.*broken.py, line 1"
    )
    with pytest.raises(UserError, match=message):
        tiny.config("--config.model.pattern=('broken',)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unions:
    count: int | None = 3
    place: int | tuple[float, ...] | Literal["auto"] = "auto"
    old: Optional[float] = None  # noqa: UP045


def test_options_of_several_types():
    module = types.ModuleType("mine")
    module.Options = Unions
    options = lambda **values: configs._options(module, values, "config.mine", [])  # noqa: E731
    assert options(count=None, place=(1, 2), old=2) == Unions(count=None, place=(1.0, 2.0), old=2.0)
    assert options(count=5, place=4) == Unions(count=5, place=4) and options(place="auto") == Unions()
    with pytest.raises(UserError, match=r"config.mine.count takes int \| None, got 'many' \(str\)"):
        options(count="many")
    with pytest.raises(UserError, match=r"config.mine.place takes .*int.*tuple.*, got 'x' \(str\)"):
        options(place="x")


@pytest.mark.parametrize("decorate", [lambda cls: cls, dataclasses.dataclass])
def test_options_must_be_a_frozen_dataclass(decorate):
    class Options:
        count: int = 3

    module = types.ModuleType("mine")
    module.Options = decorate(Options)
    with pytest.raises(UserError, match=r"config\.mine: Options of mine must be a frozen dataclass"):
        configs._options(module, {}, "config.mine", [])


def test_an_optimizer_is_tried_whatever_is_frozen():
    with pytest.raises(UserError, match=r"config\.optim: optax\.lbfgs cannot be used so"):
        tiny.config("--config.optim.name=lbfgs", "--config.optim.grouping=only_C")


def test_missing_sections():
    with pytest.raises(UserError, match="config lacks task"):
        configs.resolve({"seed": 1})
    with pytest.raises(UserError, match=r"config\.task\.name: is missing; there are digits"):
        configs.resolve({"task": {}})


def test_overrides_are_read_as_python_or_as_words():
    config = tiny.config(
        "--config.model.prenorm=false",
        "--config.optim.lr=3",
        "--config.optim.ssm_lr=1e-2",
        "--config.log.wandb_project=me",
    )
    assert config.model.prenorm is False and config.optim.lr == 3.0 and config.optim.ssm_lr == 0.01
    assert isinstance(config.optim.lr, float) and config.log.wandb_project == "me"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        ("", "does not define get_config"),
        ("def get_config(arg='a'):\n    raise ValueError(f'no recipe {arg}')", "no recipe b"),
        ("def get_config(arg):\n    return {}[arg]", "failed: KeyError"),
        ("def get_config():\n    return 3", "failed: TypeError"),
        ("def get_config(:", "cannot be run: SyntaxError"),
        ("import nothing_of_this_name", "cannot be run: ModuleNotFoundError"),
        ("def get_config(arg):\n    return 3", "must return a ConfigDict"),
    ],
)
def test_config_files(tmp_path, content, message):
    file = tmp_path / "mine.py"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match=message):
        configs.load_config(f"{file}:b")


def test_data_that_contradict_their_task(monkeypatch):
    def load():
        raise DataError("digits, split train: label 10 of example 3 is outside 0..9")

    config = tiny.config()
    monkeypatch.setattr("s5jax.train.build.load_module", lambda kind, name: types.SimpleNamespace(load=load))
    with pytest.raises(UserError, match="label 10 of example 3"):
        load_task(config)


def test_a_model_that_cannot_read_the_task():
    with pytest.raises(
        UserError, match=r"config\.model\.encoder is 'one_hot', but task digits gives values: use dense"
    ):
        load_task(tiny.config("--config.model.encoder=one_hot"))
    with pytest.raises(UserError, match="batch_size 1258 exceeds the 1257 training examples"):
        load_task(tiny.config("--config.train.batch_size=1258"))


def test_what_contradicts_the_frozen_protocol():
    with pytest.raises(UserError, match="dt_global trains step sizes, which grouping only_C does not"):
        tiny.config("--config.optim.grouping=only_C", "--config.optim.dt_global=true")


def test_a_workdir_from_before_a_field_existed_is_the_same_config_s(tmp_path):
    config = tiny.config()
    stored = config.to_dict()
    del stored["model"]["residual"], stored["evaluators"]
    workdir.write_json(tmp_path / "config.json", stored)
    (tmp_path / "checkpoints/1").mkdir(parents=True)
    with workdir.claim(tmp_path, config):
        pass
    other = workdir.claim(tmp_path, dataclasses.replace(config, seed=1))
    with pytest.raises(UserError, match=r"(?s)another config.*config.seed: 0 there, 1 now"), other:
        pass


def test_what_a_run_was_started_with_stays_written_down(tmp_path, monkeypatch):
    commits = iter("abba")
    monkeypatch.setattr(workdir, "_git_commit", lambda: next(commits))
    for _ in range(4):
        run = workdir.describe_run(tmp_path, tiny.config(), {}, {}, 1)
    assert (
        run.pop("changed") == []
        and run.pop("chosen") == run["auto"]
        and run == workdir.read_json(tmp_path / "run.json")
    )
    assert run["git_commit"] == "a"
    assert [resumed.get("git_commit") for resumed in run["resumed"]] == ["b", "b", None]
    assert all("started" in resumed and "device" not in resumed for resumed in run["resumed"])


def test_options_of_the_task_s_objective_need_no_module():
    config = tiny.config("--config.objective.label_smoothing=0.25")
    assert build(config, load_task(config))[0].of_objective["label_smoothing"] == 0.25
    assert configs.resolve(config.to_dict()) == config
    for field, message in [
        ("label_smoothin=0.1", r"unknown field config\.objective\.label_smoothin; did you mean label_smoothing\?"),
        ("label_smoothing=1.0", r"config\.objective: label_smoothing must lie in \[0, 1\)"),
        ("class_weights=(1.0,2.0)", "does not fit task digits: ValueError: class_weights has 2 numbers"),
    ]:
        config = tiny.config(f"--config.objective.{field}")
        with pytest.raises(UserError, match=message):
            build(config, load_task(config))
