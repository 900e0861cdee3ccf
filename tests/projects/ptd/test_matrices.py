import csv

import numpy as np
import pytest

from projects.ptd import matrices, methods


@pytest.mark.slow
def test_what_is_drawn_and_printed(tmp_path):
    found = matrices.compare(8)
    assert list(found) == list(methods.METHODS)
    matrices.plot_transfer(found, tmp_path / "transfer.png")
    lines = matrices.table(list(found.values())).splitlines()
    assert len(lines) == 6 and len({line.count("|") for line in lines}) == 1
    normal, *_, ours = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert normal[:4] == ["8", "normal", "1.00", "1.00"] and float(normal[8]) == pytest.approx(0.6438, abs=1e-4)
    assert ours[:7] == ["8", "ptd-conjugate", "4.50", "4.66", "5.11", "0.0653", "0.098"]
    assert (tmp_path / "transfer.png").read_bytes()[:4] == b"\x89PNG"


def test_the_trade(tmp_path, monkeypatch):
    monkeypatch.setattr(matrices, "KAPPAS", (1.5, 3.0, 6.0))
    steps = []
    found = matrices.pareto(4, ["random", "ptd-conjugate"], advance=lambda: steps.append(1))
    assert len(steps) == 6
    kappa, norm, error = np.array(found["ptd-conjugate"]).T
    assert (kappa <= [1.5, 3, 6]).all() and (np.diff(norm) < 0).all() and (error > 0).all()
    matrices.write_pareto(found, tmp_path / "trade.csv")
    matrices.plot_pareto(found, 4, tmp_path / "trade.png")
    rows = [
        r for r in csv.DictReader((tmp_path / "trade.csv").read_text().splitlines()) if r["method"] == "ptd-conjugate"
    ]
    np.testing.assert_allclose([float(r["norm"]) for r in rows], norm, rtol=1e-7)
    assert (tmp_path / "trade.png").read_bytes()[:4] == b"\x89PNG"


def test_the_command(tmp_path, call):
    code, out, err = call("matrices.py", "--n", "4", "8", "--methods", "normal", "ptd-conjugate", "--out", tmp_path)
    assert code == 0, err
    assert len([line for line in out.splitlines() if line.startswith("| 8 | ")]) == 2
    assert {file.name for file in tmp_path.iterdir()} == {"ptd_transfer_4.png", "ptd_transfer_8.png"}
    code, _, err = call("matrices.py", "--n", "7", "--out", tmp_path)
    assert code == 1 and err == "error: --n must be even and at least 2, got 7\n"
