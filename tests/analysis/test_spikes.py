import csv

import numpy as np
import pytest

from s5jax.analysis import spikes
from s5jax.ssm import hippo, ptd


def test_frequency_response_is_that_of_a_solve():
    rng = np.random.default_rng(0)
    for A in (hippo.legs(7)[0], rng.normal(size=(5, 5)), -np.eye(1)):
        B, C, omega = rng.normal(size=len(A)), rng.normal(size=len(A)), np.array([0.0, 0.3, 20.0])
        expected = [C @ np.linalg.solve(1j * w * np.eye(len(A)) - A, B) for w in omega]
        np.testing.assert_allclose(ptd.frequency_response(A, B, C, omega), expected, rtol=1e-11)


def test_what_is_drawn_and_told(tmp_path):
    found = spikes.compare(8)
    assert list(found) == list(spikes.METHODS)
    spikes.plot_transfer(found, tmp_path / "transfer.png")
    lines = spikes.table(list(found.values())).splitlines()
    assert len(lines) == 6
    normal = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert normal[:3] == ["8", "normal", "1.00"] and float(normal[5]) == pytest.approx(0.6438, abs=1e-4)
    assert "5.11, 0.098" in lines[-1]
    assert (tmp_path / "transfer.png").read_bytes()[:4] == b"\x89PNG"


def test_the_trade(tmp_path, monkeypatch):
    monkeypatch.setattr(spikes, "KAPPAS", (1.5, 3.0, 6.0))
    steps = []
    found = spikes.pareto(4, ["random", "ptd-conjugate"], advance=lambda: steps.append(1))
    assert len(steps) == 6
    kappa, norm, error = np.array(found["ptd-conjugate"]).T
    assert (kappa <= [1.5, 3, 6]).all() and (np.diff(norm) < 0).all() and (error > 0).all()
    spikes.write_pareto(found, tmp_path / "trade.csv")
    spikes.plot_pareto(found, 4, tmp_path / "trade.png")
    rows = [
        r for r in csv.DictReader((tmp_path / "trade.csv").read_text().splitlines()) if r["method"] == "ptd-conjugate"
    ]
    np.testing.assert_allclose([float(r["norm"]) for r in rows], norm, rtol=1e-7)
    assert (tmp_path / "trade.png").read_bytes()[:4] == b"\x89PNG"
