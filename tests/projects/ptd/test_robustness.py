import csv
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx

from projects.ptd import disturbance, robustness
from projects.ptd.disturbance import Disturbance
from s5jax.data.tasks import digits
from s5jax.evaluators.stability import mixers_of
from s5jax.mixers import attention
from s5jax.models.model import Model
from s5jax.models.options import Options
from s5jax.ssm.sequence import Sequences
from s5jax.train import resolve
from s5jax.train import trained as trained_runs
from s5jax.train.build import build
from s5jax.train.trained import Trained

SMALL = "projects/ptd/configs/robustness.py:s5"


def untrained(recipe, *overrides):
    config = tiny.config("--config.train.epochs=2", *overrides, recipe=recipe)
    task = digits.load()
    experiment, state = build(config, task)
    model = nnx.merge(experiment.graphdef, state.params, state.batch_stats)
    logits = jax.jit(lambda x: model(x))(task.prepare(jnp.asarray(task.splits["test"].inputs)))
    model.decoder.bias[...] -= logits.mean(0)  # or one class is always first
    return model, task


@pytest.fixture(scope="module", params=["s4d-legs", pytest.param("s5", marks=pytest.mark.slow)])
def trained(request):
    return untrained(f"projects/ptd/configs/robustness.py:{request.param}", "--config.model.depth=2")


@pytest.fixture(scope="module")
def small():
    return untrained(SMALL)


def by_hand(trained, waves, place):
    """One layer after the other, the sum written out; the accuracy under each wave."""
    model, task = trained
    blocks = model.encoder.blocks
    data = np.asarray(task.prepare(jnp.asarray(task.splits["test"].inputs)))
    k = np.arange(data.shape[1])

    def wave_of(block, wave):
        log_step = np.asarray(block.params["log_step"], np.float64)
        step = np.exp(log_step[:, 0]) if block.mixer_name == "s4d" else np.full(4, np.exp(log_step.mean()))
        return wave.amplitude * np.cos(wave.frequency * k[:, None] * step), step

    @jax.jit
    def outputs(inputs, added):
        x = model.encoder.encoder(inputs)
        for block, wave in zip(blocks, added, strict=True):
            u = x + jnp.broadcast_to(wave, x.shape)
            y, _ = block.mixer.apply(block.params, u, block.mixer_options)
            x = block._normalize(block.norm, x + block._activate(y, None), counted=None, train=False)
        return model.decoder(x.mean(1))

    accuracies = []
    for wave in waves:
        inputs, added = data, [np.zeros((len(k), 4)) for _ in blocks]
        if place == "data":
            step = np.exp(np.log(wave_of(blocks[0], wave)[1]).mean())
            inputs = inputs + (wave.amplitude * np.cos(wave.frequency * k * step))[:, None]
        else:
            added = [wave_of(block, wave)[0] for block in blocks]
        logits = np.asarray(outputs(*jax.tree.map(np.float32, (inputs, added))))
        accuracies.append(np.mean(logits.argmax(-1) == task.splits["test"].labels))
    return accuracies


@pytest.mark.parametrize("place", ["ssm", "data"])
def test_a_sinusoid_is_added_in_the_time_of_each_feature(trained, place):
    waves = [Disturbance("sinusoid", 0.0), Disturbance("sinusoid", 2.0, 30.0), Disturbance("sinusoid", 0.7, 3.0)]
    found = disturbance.accuracy(*trained, waves, place=place, batch_size=128)
    np.testing.assert_allclose(found, by_hand(trained, waves, place), atol=1.5 / 360)
    assert len(set(found)) > 1


def test_no_disturbance_and_any_batch_size_give_the_accuracy_of_the_model(small):
    model, task = small
    split = task.splits["test"]
    logits = jax.jit(model)(task.prepare(jnp.asarray(split.inputs)))
    expected = np.mean(np.asarray(logits).argmax(-1) == split.labels)
    for kind, size in (("white", 100), ("pink", 360), ("sinusoid", 77)):
        (found,) = disturbance.accuracy(*small, [Disturbance(kind, 0.0)], batch_size=size)
        assert found == pytest.approx(expected, abs=1.5 / 360)


@pytest.mark.parametrize("length", [65, pytest.param(64, marks=pytest.mark.slow)])
def test_noise_is_white_or_pink(length):
    like = jnp.zeros((200, length, 3))
    for kind, slope in (("white", 0.0), ("pink", -1.0)):
        noise_of = jax.jit(disturbance._noise, static_argnums=0)
        noise = np.asarray(noise_of(kind, like, jnp.ones(3), jnp.ones(()), jax.random.key(0)))
        assert noise.std() == pytest.approx(1, abs=0.02) and abs(noise.mean()) < 0.02
        power = (np.abs(np.fft.rfft(noise, axis=1)) ** 2).mean((0, 2))[1:31]
        fitted = np.polyfit(np.log(np.arange(1, 31)), np.log(power), 1)[0]
        assert fitted == pytest.approx(slope, abs=0.1)


def test_frequencies_hold_the_spikes_of_the_normal_part():
    omega = disturbance.frequencies(32, 10)
    assert len(omega) == 26 and omega.max() > 325.5 and (np.diff(omega) > 0).all()
    assert np.abs(omega - 325.4263).min() < 1e-3


@pytest.mark.slow
def test_tables_and_figures_of_a_sweep(small, tmp_path):
    model, task = small
    found = robustness.sweep("mine", [model, model], task, [0.1, 3.0], place="data", count=2)
    assert found.sinusoid.shape == (2, 2, 4) and found.white.shape == found.pink.shape == (2, 2)
    np.testing.assert_array_equal(found.sinusoid[0], found.sinusoid[1])
    direct = disturbance.accuracy(*small, [Disturbance("sinusoid", 3.0, found.frequencies[1])], place="data")
    assert found.sinusoid[0, 1, 1] == direct[0]
    lines = robustness.table([found]).splitlines()
    assert len(lines) == 4 and f"{found.sinusoid[:, 1].min():.3f}" in lines[3] and "| mine | data | 3 |" in lines[3]
    robustness.write_sweeps([found], tmp_path / "numbers.csv")
    robustness.plot_sweeps([found], tmp_path / "figure.png", "title")
    rows = list(csv.DictReader((tmp_path / "numbers.csv").read_text().splitlines()))
    assert len(rows) == 2 * (1 + 2 * (4 + 2))
    (row,) = [r for r in rows if r["run"] == "1" and r["kind"] == "pink" and r["amplitude"] == "3"]
    assert float(row["accuracy"]) == pytest.approx(found.pink[1, 1], abs=1e-7)
    assert (tmp_path / "figure.png").read_bytes()[:4] == b"\x89PNG" and not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("model", ["s5-ptd", "s4-legs"])
def test_the_frozen_protocol_trains_nothing_of_an_ssm_but_C(model):
    config = tiny.config(recipe=f"projects/ptd/configs/robustness.py:{model}-frozen")
    experiment, state = build(config, digits.load())
    grads = jax.tree.map(jnp.ones_like, state.params)
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam does not survive the strict one
        updates, _ = jax.jit(experiment.optimizer.update)(grads, state.opt_state, state.params, experiment.hyper(0))
    ((_, _, ssm),) = mixers_of(config, updates).values()
    moved = {name for name, update in ssm.items() if np.asarray(update).any()}
    assert moved == {"C"}
    assert not np.asarray(state.params["encoder"]["layers"][0]["seq"]["D"]).any()
    others = [u for path, u in jax.tree_util.tree_leaves_with_path(updates) if "seq" not in jax.tree_util.keystr(path)]
    assert all(np.asarray(u).any() for u in others)


@pytest.mark.parametrize("recipe", ["robustness", "sinusoid"])
def test_the_flag_debug_keeps_all_but_sizes_and_durations(recipe):
    file = tiny.ROOT / f"projects/ptd/configs/{recipe}.py"
    whole, small = (resolve.resolve(resolve.load_config(f"{file}:s4d-legs{flag}")) for flag in ("", ",debug"))
    assert (small.model.depth, small.model.d_model, small.train.batch_size, small.task.limit) == (2, 8, 8, 64)
    assert small.mixers["s4d"].options == dataclasses.replace(whole.mixers["s4d"].options, state_size=8)
    assert whole.mixers["s4d"].options.B_clip == 0 and small.optim == whole.optim
    assert small.model == dataclasses.replace(whole.model, depth=2, d_model=8)


@pytest.mark.slow
def test_without_residual_nothing_leads_around_an_ssm():
    """With C zero, no output depends on the input."""
    model, _ = untrained("projects/ptd/configs/robustness.py:s4d-legs-frozen")
    seq = model.encoder.layers[0].seq
    seq["C"][...] = jnp.zeros_like(seq["C"][...])
    inputs = jax.random.normal(jax.random.key(0), (3, 64, 1))
    logits = np.asarray(jax.jit(model)(inputs))
    np.testing.assert_array_equal(logits[0], logits[1])
    after, state = jax.jit(model.prefill)(model.init_state(3), inputs)
    np.testing.assert_allclose(after, logits, atol=1e-6)
    after, _ = jax.jit(model.step)(state, inputs[:, 0])
    np.testing.assert_allclose(after, logits, atol=1e-6)


@pytest.mark.slow
def test_in_a_model_of_several_mixers_only_the_ssms_are_disturbed():
    pattern = "--config.model.pattern=('s5', 'attention')"
    heads = "--config.mixers.attention.heads=2"
    model, task = untrained(SMALL, "--config.model.depth=2", pattern, heads)
    inputs = jax.random.normal(jax.random.key(0), (2, 64, 1))
    places = []

    def noise(number, u, step):
        places.append((number, u.shape, step.shape))
        return jnp.zeros_like(u)

    found = jax.jit(lambda inputs: disturbance._outputs(model, inputs, Sequences(), noise))(inputs)
    np.testing.assert_allclose(found, jax.jit(model)(inputs), atol=1e-5)
    assert places == [(0, (2, 64, 4), (4,))]
    options = Options(depth=1, d_model=4, pattern=("attention",))
    model = Model(options, {"attention": ("attention", attention.Options(heads=2))}, 1, 10, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"no mixer of the model has a time_step, .*: attention"):
        disturbance.check(model, task, "ssm")


def test_the_command(small, tmp_path, call, monkeypatch):
    """Runs of the same name that are different experiments stay apart."""
    model, task = small
    configs = {
        "a/mine-0": tiny.config(recipe=SMALL),
        "a/mine-1": tiny.config("--config.seed=1", recipe=SMALL),
        "b/mine": tiny.config("--config.optim.lr=0.5", recipe=SMALL),
    }

    def load(workdir):
        return Trained(configs[str(workdir.relative_to(tmp_path))], task, model, None, None)

    workdirs = [tmp_path / name for name in configs]
    few = ("--amplitudes", "0.5", "--frequencies", "1", "--place", "data", "--out", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(trained_runs, "load", load)
        code, out, err = call("robustness.py", "--workdirs", *workdirs, *few)
    assert code == 0, err
    assert "| mine | data | 0.5 |" in out and "| mine' | data | 0.5 |" in out
    assert (tmp_path / "robustness.md").read_text() in out
    assert (tmp_path / "robustness.png").exists() and (tmp_path / "robustness.csv").exists()
    for arguments, message in (
        (("--workdirs", tmp_path), "is not a run's directory"),
        (("--workdirs", tmp_path, "--amplitudes", "-1"), "--amplitudes: none may be negative"),
    ):
        code, _, err = call("robustness.py", *arguments)
        assert code == 1 and message in err and err.count("\n") == 1
