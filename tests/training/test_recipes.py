"""Recipes composed of a task and a model."""

import importlib
import json
import subprocess
import sys

import jax.numpy as jnp
import pytest
import tiny

from s5jax.data import digits
from s5jax.training import config as configs
from s5jax.training import loop
from s5jax.training import optimizer as optimizers
from s5jax.training import state as states
from s5jax.training.config import UserError

MODELS = ("s5", "s5-ptd", "s4d-lin", "s4d-inv", "s4d-legs", "s4d-real", "dss", "s4-ptd", "s4-legs", "s4-fout")


def test_a_recipe_names_all_fields():
    """So that what is run can be read in it: none is left to a default but the SSMs' rarer ones."""
    for model in MODELS:
        values = configs.load_config(f"{tiny.ROOT}/configs/digits.py:{model}")
        resolved = configs.resolve(values).to_dict()
        for section in resolved.keys() - {"ssm"}:
            given = values.to_dict()[section]
            assert given == resolved[section], section


def test_an_unknown_model_is_told_which_there_are():
    with pytest.raises(UserError, match=r"no recipe for the model 's4d-cos'; there are s5, s5-ptd, .*s4-fout"):
        configs.load_config(f"{tiny.ROOT}/configs/digits.py:s4d-cos")


@pytest.mark.parametrize("model", MODELS)
def test_groups_of_each_model(model):
    """A, B, the low-rank part and the step sizes at the SSM's rate without decay; C, D and all else as usual."""
    config = tiny.config(recipe=f"configs/digits.py:{model}")
    _, state = states.build(config, digits.load())
    ssm_params = importlib.import_module(f"s5jax.ssm.{config.ssm.name}").SSM_PARAMS
    labels = optimizers.label(state.params, config.optim, ssm_params)["encoder"]["layers"]["seq"]
    s5 = {"Lambda_re", "Lambda_im", "B", "log_step"}
    dynamics = {"s5": s5, "s5-ptd": s5, "dss": {"A_real", "A_imag", "log_step"}}
    if model in ("s4-legs", "s4-fout"):
        expected = {"A_real", "A_imag", "B", "P", "log_step"}
    else:
        expected = dynamics.get(model, {"A_real", "A_imag", "B", "log_step"})
    assert {name for name, group in labels.items() if group == "ssm"} == expected
    assert {name for name, group in labels.items() if group == "regular"} == {"C1", "C2", "D"}
    assert states.report_unstable(config, state.params) is None


def test_a_layer_that_does_not_fit_the_model_is_told():
    with pytest.raises(UserError, match=r"config.ssm, with model.d_model 4: n_ssm 3 does not divide d_model 4"):
        states.build(tiny.config("--config.ssm.n_ssm=3", recipe="configs/digits.py:s4d-lin"), digits.load())


@pytest.mark.parametrize(
    ("model", "field", "message"),
    [
        ("s4d-lin", "state_size=7", "config.ssm: state_size must be even, since states come in conjugate pairs"),
        ("s4-legs", "state_size=7", "config.ssm: state_size must be even"),
        ("s4-legs", "init=legt", "config.ssm: init legt needs a low-rank part of rank 2 or more, got rank 1"),
        ("s4-legs", "init=cos", "config.ssm.init: 'cos' is none of legs, legt, fout, legs_fout"),
        ("s4d-lin", "init=cos", "config.ssm.init: 'cos' is none of lin, inv, inv2, quad, real, legs, random"),
        (
            "s4d-lin",
            "real_scale=0.0",
            "config.ssm: real_scale must be positive, got 0.0: with Re(A) >= 0 A is unstable",
        ),
        ("s4-ptd", "B_init=legs", "config.ssm: init ptd-conjugate has a B and an A of its own"),
        ("s4d-legs", "ptd_kappa=5", "config.ssm: ptd_kappa bounds a condition number, with init ptd or ptd-conjugate"),
        ("s5-ptd", "ptd_kappa=0.5", "config.ssm: ptd_kappa bounds a condition number"),
        ("s5", "init=ptd", "config.ssm: init ptd has modes that are no conjugate pairs: conj_sym must be False"),
        ("dss", "dss_length=0", "config.ssm: discretization dss normalises over dss_length samples, at least 1"),
    ],
)
def test_mistakes_in_an_ssm(model, field, message):
    with pytest.raises(UserError) as error:
        tiny.config(f"--config.ssm.{field}", recipe=f"configs/digits.py:{model}")
    assert message in str(error.value)


def test_unstable_modes_are_reported(tmp_path, capsys):
    """A mode that grows is named at each evaluation, with what keeps it from growing; training goes on."""
    fields = ("--config.ssm.real_transform=none", "--config.optim.ssm_lr=1.0", "--config.train.epochs=2")
    loop.train(tiny.config(*fields, recipe="configs/digits.py:s4d-lin"), tmp_path / "run")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: may be unstable")]
    assert lines and "modes of layers_0 (largest Re " in lines[0] and "config.ssm.real_transform=exp" in lines[0]


def test_an_s5_that_grows_is_told_of_clipping():
    config = tiny.config()
    _, state = states.build(config, digits.load())
    state.params["encoder"]["layers"]["seq"]["Lambda_re"] = jnp.array([[0.0, 0.25]])
    message = states.report_unstable(config, state.params)
    assert message == (
        "may be unstable: Re(Lambda) >= 0 in 2 of 2 modes of layers_0 (largest Re 0.25);"
        " config.ssm.clip_eigs=True keeps them below"
    )
    clipped = tiny.config("--config.ssm.clip_eigs=true")
    assert states.report_unstable(clipped, state.params) is None


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_each_model_learns_the_digits_in_three_minutes(tmp_path, model):
    command = [sys.executable, "scripts/train.py", f"--config=configs/digits.py:{model}", f"--workdir={tmp_path}"]
    command += ["--config.num_devices=1"]  # the eight of the tests share two cores
    subprocess.run(command, cwd=tiny.ROOT, env=tiny.ENVIRONMENT, check=True, capture_output=True, timeout=180)
    assert json.loads((tmp_path / "result.json").read_text())["test/accuracy"] >= 0.93
