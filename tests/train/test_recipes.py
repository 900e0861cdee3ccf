"""Recipes composed of a task and a model."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
import tiny
from everyday import variants

from s5jax.data.tasks import digits
from s5jax.evaluators.stability import report_unstable
from s5jax.train import loop
from s5jax.train import resolve as configs
from s5jax.train.build import build
from s5jax.train.config import UserError

MODELS = ("s5", "s5-ptd", "s4d-lin", "s4d-inv", "s4d-legs", "s4d-real", "dss", "s4-ptd", "s4-legs", "s4-fout")


def test_an_unknown_model_lists_the_known_ones():
    with pytest.raises(
        UserError, match=r"'s4d-cos' is neither a model nor a flag; the models are s5, .*s4-fout, .*; the flags"
    ):
        configs.load_config(f"{tiny.ROOT}/configs/digits.py:s4d-cos")


@variants(["s5", "dss", "s4-legs"], model=MODELS)
def test_groups_of_each_model(model):
    """A, B, the low-rank part and the step sizes at the SSM's rate without decay; C, D and all else as usual."""
    config = tiny.config(recipe=f"configs/digits.py:{model}")
    experiment, state = build(config, digits.load())
    groups = experiment.optimizer.groups
    labels = jax.tree.map(lambda i: groups[i].name, experiment.optimizer.labels)["encoder"]["layers"][0]["seq"]
    s5 = {"Lambda_re", "Lambda_im", "B", "log_step"}
    dynamics = {"s5": s5, "s5-ptd": s5, "dss": {"A_real", "A_imag", "log_step"}}
    if model in ("s4-legs", "s4-fout"):
        expected = {"A_real", "A_imag", "B", "P", "log_step"}
    else:
        expected = dynamics.get(model, {"A_real", "A_imag", "B", "log_step"})
    assert {name for name, group in labels.items() if group == "ssm"} == expected
    assert {name for name, group in labels.items() if group == "regular"} == {"C1", "C2", "D"}
    assert report_unstable(config, state.params) is None


def test_groups_of_hyena():
    """The filters' network and positions without decay, the positions at their published rate."""
    experiment, _ = build(configs.resolve(configs.load_config(f"{tiny.ROOT}/configs/digits.py:hyena")), digits.load())
    labels, groups = experiment.optimizer.labels["encoder"]["layers"][0]["seq"], experiment.optimizer.groups
    rates = {name: (groups[i].lr, groups[i].weight_decay) for name, i in labels.items()}
    assert rates["positions"] == (1e-5, 0.0)
    assert rates["freq"] == rates["filter_0_kernel"] == rates["filter_3_kernel"] == (0.001, 0.0)
    assert rates["D"] == rates["in_kernel"] == rates["short_kernel"] == (0.004, 0.05)


def test_a_layer_that_does_not_fit_the_model_is_told():
    with pytest.raises(UserError, match=r"config.mixers, with model.d_model 4: n_ssm 3 does not divide d_model 4"):
        build(tiny.config("--config.mixers.s4d.n_ssm=3", recipe="configs/digits.py:s4d-lin"), digits.load())


@pytest.mark.parametrize(
    ("model", "field", "message"),
    [
        ("s4d-lin", "state_size=7", "config.mixers.s4d: state_size must be even, since states come in conjugate pairs"),
        ("s4-legs", "state_size=7", "config.mixers.s4: state_size must be even"),
        ("s4-legs", "init=legt", "config.mixers.s4: init legt needs a low-rank part of rank 2 or more, got rank 1"),
        ("s4-legs", "init=cos", "config.mixers.s4.init must be one of legs, legt, fout, legs_fout; got 'cos'"),
        ("s4d-lin", "init=cos", "config.mixers.s4d.init must be one of lin, inv, inv2, quad, real, legs, random"),
        (
            "s4d-lin",
            "real_scale=0.0",
            "config.mixers.s4d: real_scale must be positive, got 0.0: with Re(A) >= 0 A is unstable",
        ),
        ("s4-ptd", "B_init=legs", "config.mixers.s4d: init ptd-conjugate has its own A and B"),
        (
            "s4d-legs",
            "ptd_kappa=5",
            "config.mixers.s4d: ptd_kappa must be 0 (the default bound) or, with init=ptd-conjugate",
        ),
        ("s5-ptd", "ptd_kappa=0.5", "config.mixers.s5: ptd_kappa must be 0 (the default bound)"),
        ("s5", "init=ptd", "config.mixers.s5.init must be one of normal, ptd-conjugate; got 'ptd'"),
        ("dss", "dss_length=0", "config.mixers.s4d: discretization dss normalises over dss_length samples, at least 1"),
    ],
)
def test_mistakes_in_a_mixer(model, field, message):
    mixer = {"s5": "s5", "s5-ptd": "s5", "s4-legs": "s4"}.get(model, "s4d")
    with pytest.raises(UserError) as error:
        tiny.config(f"--config.mixers.{mixer}.{field}", recipe=f"configs/digits.py:{model}")
    assert message in str(error.value)


def test_unstable_modes_are_reported(without_model, tmp_path, capsys):
    """A mode that grows is named at each evaluation, with what keeps it from growing; training goes on."""
    fields = ("--config.mixers.s4d.real_transform=none", "--config.optim.ssm_lr=1.0", "--config.train.epochs=2")
    loop.train(tiny.config(*fields, recipe="configs/digits.py:s4d-lin"), tmp_path / "run")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: may be unstable")]
    assert lines and "modes of layers_0 (largest Re " in lines[0] and "config.mixers.s4d.real_transform=exp" in lines[0]


def test_an_s5_that_grows_is_told_of_clipping():
    config = tiny.config()
    _, state = build(config, digits.load())
    state.params["encoder"]["layers"][0]["seq"]["Lambda_re"] = jnp.array([[0.0, 0.25]])
    assert report_unstable(config, state.params) == (
        "may be unstable: Re(lambda) >= 0 in 2 of 2 modes of layers_0 (largest Re 0.25);"
        " config.mixers.s5.clip_eigs=True keeps them below"
    )
    state.params["encoder"]["layers"][0]["seq"]["Lambda_re"] = jnp.array([[-1.0, jnp.nan]])
    assert "Re(lambda) >= 0 in 1 of 2 modes of layers_0 (largest Re nan)" in report_unstable(config, state.params)
    state.params["encoder"]["layers"][0]["seq"]["Lambda_re"] = jnp.array([[0.0, 0.25]])
    clipped = tiny.config("--config.mixers.s5.clip_eigs=true")
    assert report_unstable(clipped, state.params) is None


def test_each_mixer_of_a_hybrid_has_its_own_hint():
    fields = ["--config.model.depth=2", "--config.model.pattern=('s5','s4d')", "--config.mixers.s4d.state_size=4"]
    config = tiny.config(*fields, "--config.mixers.s4d.real_transform=none")
    _, state = build(config, digits.load())
    layers = state.params["encoder"]["layers"]
    layers[0]["seq"]["Lambda_re"] = jnp.abs(layers[0]["seq"]["Lambda_re"])
    layers[1]["seq"]["A_real"] = -layers[1]["seq"]["A_real"]
    hint = "; config.mixers.s5.clip_eigs=True keeps them below; config.mixers.s4d.real_transform=exp keeps them below"
    assert report_unstable(config, state.params).endswith(hint)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_each_model_learns_the_digits_in_three_minutes(tmp_path, model):
    command = [sys.executable, "scripts/train.py", f"--config=configs/digits.py:{model}", f"--workdir={tmp_path}"]
    command += ["--config.num_devices=1"]  # the eight of the tests share two cores
    subprocess.run(command, cwd=tiny.ROOT, env=tiny.ENVIRONMENT, check=True, capture_output=True, timeout=180)
    assert json.loads((tmp_path / "result.json").read_text())["test/accuracy"] >= 0.93
