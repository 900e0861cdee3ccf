import csv

import jax
import numpy as np
import pytest
from everyday import variants
from numerics import relative_error

from projects.ptd import transfer
from s5jax.mixers import s4, s4d, s5
from s5jax.ssm import hippo


def test_hippo_is_closest_to_itself_and_far_from_a_resonance_it_lacks():
    n, omega = 8, np.geomspace(0.1, 1000, 300)
    A, B, _ = hippo.legs(n)
    C = np.random.default_rng(0).normal(size=(2, n))
    own = np.array([C[0] @ np.linalg.solve(1j * w * np.eye(n) - A, B) for w in omega])
    reversed_ = np.array([C[1] @ np.linalg.solve(-1j * w * np.eye(n) - A, B) for w in omega])
    assert relative_error(transfer.closest_hippo(own, omega, n), own) < 1e-8
    assert relative_error(transfer.closest_hippo(own + reversed_, omega, n, two_sided=True), own + reversed_) < 1e-8
    assert relative_error(transfer.closest_hippo(own + reversed_, omega, n), own + reversed_) > 0.1
    spike = 1 / (1j * omega + 0.01 - 300j)
    assert relative_error(transfer.closest_hippo(spike, omega, n), spike) > 0.5


@pytest.mark.parametrize("bidirectional", [False, True])
def test_response_of_an_s4d_feature_by_hand(bidirectional):
    options = s4d.Options(state_size=6, init="inv", bidirectional=bidirectional)
    start, params = (s4d.init(jax.random.key(k), 3, options) for k in (0, 1))
    result = transfer.bode(s4d, options, params, start, output=2)
    for p, response in ((params, result.layer), (start, result.start)):
        p = {name: np.asarray(value, np.float64) for name, value in p.items()}
        A, B = -np.exp(p["A_real"][2]) - 1j * p["A_imag"][2], p["B"][2] @ [1, 1j]
        expected = 0
        for sign, name in ((1, "C1"), (-1, "C2")) if bidirectional else ((1, "C"),):
            v = (p[name][2] @ [1, 1j]) * B
            s = sign * 1j * result.omega[:, None]
            expected = expected + np.sum(v / (s - A) + v.conj() / (s - A.conj()), -1)
        assert relative_error(response, expected) < 1e-5
    peaks = -np.asarray(params["A_imag"], np.float64)[2]
    assert all(np.isclose(result.omega, abs(peak), rtol=1e-6).any() for peak in peaks if abs(peak) > 0.1)
    assert result.nyquist == pytest.approx(2 * (np.pi / np.exp(float(params["log_step"][2, 0])),))
    gain, frequency = result.peak
    assert gain == np.abs(result.layer).max() and frequency in result.omega
    assert result.misfit == pytest.approx(relative_error(result.hippo, result.layer))


def test_s5_from_one_feature_to_another():
    options = s5.Options(state_size=8, conj_sym=True)
    params = s5.init(jax.random.key(0), 3, options)
    params["Lambda_re"] = params["Lambda_re"].at[1].set(0.1)
    result = transfer.bode(s5, options, params, params, output=2, input=0)
    p = {name: np.asarray(value, np.float64) for name, value in params.items()}
    A = p["Lambda_re"] + 1j * p["Lambda_im"]
    v = (p["C"][2] @ [1, 1j]) * (p["B"][:, 0] @ [1, 1j])
    s = 1j * result.omega[:, None]
    assert relative_error(result.layer, np.sum(v / (s - A) + v.conj() / (s - A.conj()), -1)) < 1e-5
    assert result.nyquist[0] < result.nyquist[1]  # a step size for each state


def test_features_that_are_not_there_or_not_connected():
    options = s4.Options(state_size=4)
    params = s4.init(jax.random.key(0), 3, options)
    with pytest.raises(ValueError, match="features run from 0 to 2, got output 3 and input 3"):
        transfer.bode(s4, options, params, params, output=3)
    with pytest.raises(ValueError, match="no response of feature 0 to feature 1"):
        transfer.bode(s4, options, params, params, output=0, input=1)


@pytest.mark.slow
def test_numbers_and_figure(tmp_path):
    options = s4.Options(state_size=4)
    params = s4.init(jax.random.key(0), 3, options)
    result = transfer.bode(s4, options, params, params)
    transfer.write_bode({0: result}, tmp_path / "bode.csv", numbered=False)
    header, *rows = csv.reader((tmp_path / "bode.csv").read_text().splitlines())
    assert header[:3] == ["omega", "layer_dB", "layer_degrees"] and len(header) == 7
    table = np.array(rows, float)
    np.testing.assert_allclose(10 ** (table[:, 1] / 20), np.abs(result.layer), rtol=1e-5)
    np.testing.assert_allclose(np.cos(np.radians(table[:, 2])), np.cos(np.angle(result.layer)), atol=1e-5)
    transfer.plot_bode(result, tmp_path / "bode.png", "title")
    assert (tmp_path / "bode.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bode.csv", "bode.png"]


@variants([5], depth=[1, 2, 5])  # 5: in a grid with an empty corner
def test_numbers_and_figure_of_all_layers(tmp_path, depth):
    options = s4d.Options(state_size=4, init="inv")
    layers = [s4d.init(jax.random.key(k), 2, options) for k in range(depth)]
    results = [transfer.bode(s4d, options, params, layers[0], points=20) for params in layers]
    transfer.write_bode(dict(enumerate(results)), tmp_path / "all.csv", numbered=True)
    header, *rows = csv.reader((tmp_path / "all.csv").read_text().splitlines())
    assert header[:3] == ["layer", "omega", "layer_dB"] and len(header) == 8
    table = np.array(rows, float)
    for number, result in enumerate(results):
        own = table[table[:, 0] == number]
        np.testing.assert_allclose(own[:, 1], result.omega, rtol=1e-7)
        np.testing.assert_allclose(10 ** (own[:, 4] / 20), np.abs(result.start), rtol=1e-5)
    transfer.plot_magnitudes(dict(enumerate(results)), tmp_path / "all.png", "title")
    assert (tmp_path / "all.png").read_bytes().startswith(b"\x89PNG")
