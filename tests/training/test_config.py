"""What a user may get wrong, and the line that says so."""

import dataclasses
import types

import pytest
import tiny

from s5jax.data.task import DataError
from s5jax.training import config as configs
from s5jax.training import workdir
from s5jax.training.config import UserError

MINIMAL = {"task": {"name": "digits"}, "ssm": {"name": "s5"}}


def test_a_config_survives_its_own_json():
    config = tiny.config()
    assert configs.resolve(config.to_dict()) == config
    assert config.model.d_model == 4 and config.ssm.options.state_size == 4
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1  # type: ignore[misc]


def test_left_out_fields_have_defaults():
    assert configs.resolve(MINIMAL).optim == configs.Optim()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (
            "--config.optim.lrr=1",
            "config.optim.lrr is no field. Did you mean lr? The fields of config.optim are lr, ssm_lr",
        ),
        ("--config.optm.lr=1", "config.optm is no field. Did you mean optim? The fields of config are task, ssm"),
        ("--config.sed=1", "config.sed is no field. Did you mean seed?"),
        ("--config.optim.lr.x=1", "config.optim.lr is no section"),
        ("--config.optim.lr=fast", "config.optim.lr takes float, got 'fast' (str)"),
        ("--config.train.epochs=2.5", "config.train.epochs takes int, got 2.5 (float)"),
        ("--config.train.epochs=true", "config.train.epochs takes int, got True (bool)"),
        ("--config.model.prenorm=1", "config.model.prenorm takes bool, got 1 (int)"),
        ("--config.log.wandb_project=7", "config.log.wandb_project takes str, got 7 (int)"),
        ("--config.optim=3", "config.optim is a section of fields, got 3"),
        ("--config.ssm=3", "config.ssm is a section of fields, got 3"),
        ("--config.task=digits", "config.task is a section of fields, got 'digits'"),
        (
            "--config.model.activation=relu",
            "config.model.activation: 'relu' is none of gelu, full_glu, half_glu1, half_glu2",
        ),
        ("--config.optim.grouping=x", "'x' is none of standard, BandCdecay, BfastandCdecay, noBCdecay, only_C, plain"),
        ("--config.ssm.discretization=euler", "config.ssm.discretization: 'euler' is none of zoh, bilinear"),
        ("--config.ssm.name=s9", "config.ssm.name: 's9' does not exist; there are: s4, s4d, s5"),
        ("--config.ssm.name=hippo", "config.ssm.name: 'hippo' does not exist; there are: s4, s4d, s5"),
        ("--config.task.name=listopps", "config.task.name: 'listopps' does not exist; there are: digits"),
        ("--config.ssm.blocks=3", "config.ssm: state_size 4 is not divisible by blocks 3"),
        ("--config.ssm.blocks=4", "config.ssm: conj_sym needs blocks of even size"),
        ("--config.ssm.lr=3", "config.ssm.lr is no field"),
        ("--config.model.dropout=1.0", "config.model: dropout must lie in [0, 1), got 1.0"),
        ("--config.optim.lr=-1", "config.optim.lr must be at least 0, got -1"),
        ("--config.optim.lr=1e999", "config.optim.lr takes float, got inf"),
        ("--config.optim.lr_min=1.0", "config.optim.lr_min 1.0 exceeds lr or ssm_lr"),
        ("--config.seed=4294967296", "config.seed must lie in 0..4294967295"),
        ("--config.optim.lr=nan", "config.optim.lr takes float, got 'nan'"),
        ("--config.train.batch_size=0", "config.train.batch_size must be at least 1, got 0"),
        ("--config.train.warmup_epochs=9", "config.train.warmup_epochs 9.0 leaves nothing of 4 epochs"),
        ("--config.train.epochs", "--config.train.epochs needs a value"),
        ("--epochs=3", "--epochs=3 is no option"),
        ("epochs=3", "epochs=3 is no option"),
    ],
)
def test_mistakes_on_the_command_line(argument, message):
    with pytest.raises(UserError) as error:
        tiny.config(argument)
    assert message in str(error.value)
    assert str(error.value).count("\n") == 0


def test_a_section_that_a_config_leaves_out_can_be_set():
    values = configs.ml_collections.ConfigDict(MINIMAL)
    configs.override(values, ["--config.log.every_steps=5", "--config.seed=3"])
    assert configs.resolve(values).log.every_steps == 5 and configs.resolve(values).seed == 3


def test_another_layer_than_the_file_s_drops_the_file_s_fields_of_it():
    values = configs.ml_collections.ConfigDict({**MINIMAL, "ssm": {"name": "other", "decay": 3}})
    configs.override(values, ["--config.ssm.blocks=2", "--config.ssm.name=s5"])
    assert values.ssm.to_dict() == {"name": "s5", "blocks": 2}


@pytest.mark.parametrize(
    ("loaded", "message"),
    [
        (None, "load\\(\\) returned None, not a Task"),
        (FileNotFoundError("no such file"), "cannot be loaded: no such file"),
    ],
)
def test_a_task_that_cannot_be_loaded(monkeypatch, loaded, message):
    def load():
        if loaded is None:
            return None
        raise loaded

    config = tiny.config()
    monkeypatch.setattr(configs.importlib, "import_module", lambda name: types.SimpleNamespace(load=load))
    with pytest.raises(UserError, match=message):
        configs.load_task(config)


def test_a_layer_that_cannot_be_imported_harms_nobody_else(tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text("import nothing_of_this_name")
    monkeypatch.setattr(configs.s5jax.ssm, "__path__", [*configs.s5jax.ssm.__path__, str(tmp_path)])
    assert configs.known_modules("ssm") == ["s4", "s4d", "s5"]
    with pytest.raises(UserError, match=r"s5jax/ssm/broken\.py cannot be imported: ModuleNotFoundError"):
        tiny.config("--config.ssm.name=broken")


def test_missing_sections():
    with pytest.raises(UserError, match="config lacks task"):
        configs.resolve({"ssm": {"name": "s5"}})
    with pytest.raises(UserError, match=r"config\.task\.name: is missing; there are: digits"):
        configs.resolve({**MINIMAL, "task": {}})


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
        ("", "defines no get_config"),
        ("def get_config(arg='a'):\n    raise ValueError(f'no recipe {arg}')", "no recipe b"),
        ("def get_config(arg):\n    return {}[arg]", "failed: KeyError"),
        ("def get_config():\n    return 3", "failed: TypeError"),
        ("def get_config(:", "cannot be run: SyntaxError"),
        ("import nothing_of_this_name", "cannot be run: ModuleNotFoundError"),
        ("def get_config(arg):\n    return 3", "returns no ConfigDict"),
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
    monkeypatch.setattr(configs.importlib, "import_module", lambda name: types.SimpleNamespace(load=load))
    with pytest.raises(UserError, match="label 10 of example 3"):
        configs.load_task(config)


def test_a_model_that_cannot_read_the_task():
    with pytest.raises(
        UserError, match=r"config\.model\.encoder is 'one_hot', but task digits gives values: use dense"
    ):
        configs.load_task(tiny.config("--config.model.encoder=one_hot"))
    with pytest.raises(UserError, match="batch_size 1258 exceeds the 1257 training examples"):
        configs.load_task(tiny.config("--config.train.batch_size=1258"))


def test_what_contradicts_the_frozen_protocol():
    with pytest.raises(UserError, match="dt_global trains step sizes, which grouping only_C does not"):
        tiny.config("--config.optim.grouping=only_C", "--config.optim.dt_global=true")


def test_a_workdir_from_before_a_field_existed_is_the_same_config_s(tmp_path):
    config = tiny.config()
    stored = config.to_dict()
    del stored["model"]["residual"], stored["log"]["eigenvalues_every_steps"]
    workdir.write_json(tmp_path / "config.json", stored)
    with workdir.claim(tmp_path, config):
        pass
    other = workdir.claim(tmp_path, dataclasses.replace(config, seed=1))
    with pytest.raises(UserError, match=r"(?s)another config.*config.seed: 0 there, 1 now"), other:
        pass
