import csv

import numpy as np
import pytest

from s5jax.analysis import eigenvalues

STEPS = (0, 7, 100)


def record(workdir, Lambda, step_size, steps=STEPS):
    """Writes what a run of `len(Lambda)` layers would have recorded: lists of (T, ...) arrays."""
    (workdir / "eigenvalues").mkdir()
    for t, step in enumerate(steps):
        arrays = {f"layers_{i}/eigenvalues": x[t] for i, x in enumerate(Lambda)}
        arrays |= {f"layers_{i}/step_size": x[t] for i, x in enumerate(step_size)}
        np.savez(workdir / "eigenvalues" / f"{step:08d}.npz", **arrays)


def draw(rng, *shape):
    return np.complex64(-rng.uniform(0.1, 50, shape) + 1j * rng.uniform(-5000, 5000, shape))


def test_one_system_for_all_features(tmp_path):
    rng = np.random.default_rng(0)
    Lambda, step_size = draw(rng, 12, 3, 5), np.float32(rng.uniform(0.001, 0.1, (12, 3, 5, 1)))
    record(tmp_path, Lambda, step_size)
    result = eigenvalues.read(tmp_path, feature=99)  # no feature has a system of its own
    assert result.feature is None and result.steps.tolist() == list(STEPS)
    assert len(result.layers) == 12  # layer 10 after layer 9
    for layer, expected, size in zip(result.layers, Lambda, step_size, strict=True):
        np.testing.assert_array_equal(layer.eigenvalues, expected)
        np.testing.assert_array_equal(layer.step_size, size[..., 0])
        np.testing.assert_allclose(layer.moves, [abs(x[2] - x[0]) / abs(x[0]) for x in expected.T], rtol=1e-5)


@pytest.mark.parametrize("dt_per_state", [False, True])
def test_a_feature_s_copy_of_the_system(tmp_path, dt_per_state):
    rng = np.random.default_rng(0)
    Lambda, step_size = draw(rng, 1, 3, 2, 4), np.float32(rng.uniform(0.001, 0.1, (1, 3, 6, 4 if dt_per_state else 1)))
    record(tmp_path, Lambda, step_size)
    result = eigenvalues.read(tmp_path, feature=5)  # of 6, which share 2 copies
    np.testing.assert_array_equal(result.layers[0].eigenvalues, Lambda[0, :, 1])
    np.testing.assert_array_equal(result.layers[0].step_size, step_size[0, :, 5] * np.ones(4, np.float32))
    assert result.feature == 5
    for feature in (-1, 6):
        with pytest.raises(ValueError, match=f"features run from 0 to 5, got {feature}"):
            eigenvalues.read(tmp_path, feature)


def test_numbers(tmp_path):
    rng = np.random.default_rng(0)
    Lambda, step_size = draw(rng, 2, 3, 5), np.float32(rng.uniform(0.001, 0.1, (2, 3, 5, 1)))
    record(tmp_path, Lambda, step_size)
    eigenvalues.write_eigenvalues(eigenvalues.read(tmp_path), tmp_path / "all.csv")
    header, *rows = csv.reader((tmp_path / "all.csv").read_text().splitlines())
    assert header == ["step", "layer", "index", "re", "im", "step_size"] and len(rows) == 2 * 3 * 5
    for step, layer, index, re, im, size in rows:
        at = int(layer), STEPS.index(int(step)), int(index)
        assert complex(float(re), float(im)) == pytest.approx(complex(Lambda[at]), rel=1e-7)
        assert float(size) == pytest.approx(float(step_size[(*at, 0)]), rel=1e-7)


@pytest.mark.parametrize(("depth", "steps"), [(1, STEPS), (5, STEPS), (2, (0,))])
@pytest.mark.parametrize("kind", ["complex", "real", "growing"])
def test_figure(tmp_path, depth, steps, kind):
    Lambda = draw(np.random.default_rng(0), depth, len(steps), 5)
    if kind == "real":
        Lambda = np.complex64(Lambda.real)
    if kind == "growing":
        Lambda[-1, -1, 0] = 3 + 1j
    record(tmp_path, Lambda, np.full((*Lambda.shape, 1), 0.01, np.float32), steps)
    eigenvalues.plot_eigenvalues(eigenvalues.read(tmp_path), tmp_path / "figure.png", "title")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["eigenvalues", "figure.png"]


def test_records_that_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train with --config.evaluators.eigenvalues.every_steps=N"):
        eigenvalues.read(tmp_path)
    record(tmp_path, draw(np.random.default_rng(0), 1, 3, 5), np.ones((1, 3, 5, 1), np.float32))
    file = tmp_path / "eigenvalues" / "00000007.npz"
    whole = file.read_bytes()
    for content in (b"", b"no archive", whole[:-30], whole[:100] + bytes([whole[100] ^ 1]) + whole[101:]):
        file.write_bytes(content)
        with pytest.raises(OSError, match=r"00000007.npz is damaged"):
            eigenvalues.read(tmp_path)


def test_mixers_of_several_kinds(tmp_path):
    """A layer without eigenvalues is left out, and one without step sizes measures time in samples."""
    rng = np.random.default_rng(0)
    (tmp_path / "eigenvalues").mkdir()
    shared, own = draw(rng, 5), draw(rng, 2, 4)
    arrays = {"layers_0/eigenvalues": shared, "layers_2/eigenvalues": own}
    arrays["layers_2/step_size"] = np.float32(rng.uniform(0.001, 0.1, (6, 1)))
    np.savez(tmp_path / "eigenvalues" / "00000000.npz", **arrays)
    result = eigenvalues.read(tmp_path, feature=3)
    assert [layer.number for layer in result.layers] == [0, 2] and result.feature == 3
    np.testing.assert_array_equal(result.layers[0].eigenvalues[0], shared)
    np.testing.assert_array_equal(result.layers[0].step_size, np.ones((1, 5)))
    np.testing.assert_array_equal(result.layers[1].eigenvalues[0], own[1])
    np.testing.assert_array_equal(result.layers[1].step_size, np.full((1, 4), arrays["layers_2/step_size"][3, 0]))
    eigenvalues.write_eigenvalues(result, tmp_path / "all.csv")
    assert [row.split(",")[1] for row in (tmp_path / "all.csv").read_text().splitlines()[1:]] == ["0"] * 5 + ["2"] * 4
    eigenvalues.plot_eigenvalues(result, tmp_path / "figure.png", "title")
    np.savez(tmp_path / "eigenvalues" / "00000000.npz")
    with pytest.raises(FileNotFoundError, match="none of its mixers has eigenvalues"):
        eigenvalues.read(tmp_path)
