import argparse
import csv
import json
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx

from projects.ptd import sinusoid, sinusoid_task
from s5jax.train.config import UserError


class Known(nnx.Module):
    """Twice the mean of |u|, less 1, for an amplitude; the last sample for a frequency."""

    def __call__(self, inputs):
        return jnp.stack([2 * jnp.abs(inputs).mean((1, 2)) - 1, inputs[:, -1, 0]], axis=1)


@pytest.fixture(scope="module")
def response():
    return sinusoid.respond("known", Known(), points=26)


def test_predictions_of_a_known_model(response):
    true = 4.0 * np.arange(26)
    np.testing.assert_allclose(response.true, true)
    t, phases = 0.02 * np.arange(256), np.pi / 4 * np.arange(8)
    u = np.cos(true[:, None, None] * t + phases[:, None])
    np.testing.assert_allclose(response.amplitude, 2 * np.abs(u).mean(2) - 1, atol=1e-5)
    np.testing.assert_allclose(response.frequency, 100 * u[:, :, -1], atol=1e-3)
    amplitude, frequency, least = response.summary(beyond=True)  # 84, 88, 92, 96, 100
    assert amplitude == pytest.approx(np.mean(np.abs(2 * np.abs(u[21:]).mean(2) - 2)), rel=1e-5)
    assert frequency == pytest.approx(np.mean(np.abs(100 * u[21:, :, -1] - true[21:, None])), rel=1e-5)
    assert least == response.amplitude[21:].min()
    assert response.summary(beyond=False)[2] == response.amplitude.min() < least


def test_the_labels_of_the_task():
    """Against a least-squares fit to the samples of each example."""
    task = sinusoid_task.load()
    t = 0.02 * np.arange(256)
    assert task.targets == 2 and task.example_shape() == (256, 1)
    for name, end in (("train", 80), ("val", 80), ("test", 100)):
        split = task.splits[name]
        a, s = split.labels[:, 0].astype(np.float64), 100 * split.labels[:, 1].astype(np.float64)
        np.testing.assert_allclose(s, np.arange(len(split)) * end / (len(split) - 1), atol=1e-5)
        assert a.min() > 0.5 and a.max() < 1.5 and abs(a.mean() - 1) < 0.05
        for i in np.random.default_rng(0).integers(len(split) // 10, len(split), 20):
            basis = np.stack([np.cos(s[i] * t), np.sin(s[i] * t)], axis=1)
            c, residual, *_ = np.linalg.lstsq(basis, split.inputs[i, :, 0].astype(np.float64), rcond=None)
            assert np.hypot(*c) == pytest.approx(a[i], rel=1e-4) and residual < 1e-6
    first = np.concatenate([split.inputs[:, 0, 0] for split in task.splits.values()])
    assert first.min() < -1.2 and first.max() > 1.2 and abs(first.mean()) < 0.05  # any phase
    again = sinusoid_task.load().splits["test"]
    np.testing.assert_array_equal(again.inputs, task.splits["test"].inputs)


def test_table_numbers_and_figure(response, tmp_path):
    other = sinusoid.Response("other", response.true, response.amplitude + 1, response.frequency)
    heads, ranges, *rows = sinusoid.table([response, other]).splitlines()
    assert "least amplitude" in heads and ranges.split() == 3 * ["0..80", "80..100"]
    for row, r in zip(rows, (response, other), strict=True):
        name, *values = row.split()
        pairs = zip(r.summary(beyond=False), r.summary(beyond=True), strict=True)
        assert name == r.name
        np.testing.assert_allclose(np.array(values, float), np.ravel(list(pairs)), atol=6e-4)

    sinusoid.write_responses([response, other], tmp_path / "a.csv")
    header, *rows = csv.reader((tmp_path / "a.csv").read_text().splitlines())
    assert header == ["true", "known_amplitude", "known_frequency", "other_amplitude", "other_frequency"]
    columns = [response.true, *(x.mean(1) for r in (response, other) for x in (r.amplitude, r.frequency))]
    np.testing.assert_allclose(np.array(rows, float), np.stack(columns, axis=1), rtol=1e-6, atol=1e-6)
    sinusoid.plot_responses([response, other], tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.png"]


def test_mistakes(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(tiny.config().to_dict()))
    for workdir, out, message in [
        (tmp_path / "none", tmp_path / "a.png", "is not a run's directory"),
        (tmp_path, tmp_path / "a.png", "holds a model of the task digits, not of projects.ptd.sinusoid_task"),
        (tmp_path, tmp_path / "a.jpg", "--out: the figure's name must end in .png"),
        (tmp_path, tmp_path / "none" / "a.png", "--out: there is no directory"),
    ]:
        with pytest.raises(UserError, match=message):
            sinusoid.extrapolate(argparse.Namespace(workdirs=[workdir], out=out, checkpoint="best"))


@pytest.mark.slow
def test_perturbed_hippo_goes_beyond_training_and_its_normal_part_does_not(tmp_path):
    """Half the epochs of the recipe. Past the last spike of the normal part one model keeps the amplitude of 1."""
    workdirs = [tmp_path / model for model in ("s4d-legs", "s4-ptd")]
    for workdir in workdirs:
        recipe = f"--config=projects/ptd/configs/sinusoid.py:{workdir.name}"
        done = tiny.run(sys.executable, "scripts/train.py", recipe, f"--workdir={workdir}", "--config.train.epochs=10")
        assert done.returncode == 0, done.stderr
    out = tmp_path / "figure.png"
    done = tiny.run(sys.executable, "projects/ptd/sinusoid.py", "--workdirs", *map(str, workdirs), f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert str(out) in done.stdout and out.exists()
    numbers = np.genfromtxt(out.with_suffix(".csv"), delimiter=",", names=True, deletechars="")
    true, normal, perturbed = (numbers[name] for name in ("true", "s4d-legs_amplitude", "s4-ptd_amplitude"))
    for amplitude in (normal, perturbed):
        assert np.abs(amplitude - 1)[(true > 5) & (true < 75)].mean() < 0.1
    assert np.abs(perturbed - 1)[true > 80].max() < 0.2
    assert np.abs(normal - 1)[true > 85].min() > 0.25
