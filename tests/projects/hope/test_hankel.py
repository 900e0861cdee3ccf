import csv

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from numerics import relative_error

from projects.hope import hankel
from s5jax.mixers import hope, s4, s4d


def test_hope_by_a_balanced_state_space():
    """A delay line of n steps has the Gramians I and H H^T."""
    options = hope.Options(state_size=6)
    params = hope.init(jax.random.key(0), 2, options)
    found = hankel.singular_values(hope, params, options)
    for h, values in zip(np.float64(params["h"]), found, strict=True):
        A, B = np.eye(6, k=-1), np.eye(6)[0]
        P = scipy.linalg.solve_discrete_lyapunov(A, np.outer(B, B))
        Q = scipy.linalg.solve_discrete_lyapunov(A.T, np.outer(h, h))
        expected = np.sqrt(np.sort(np.linalg.eigvals(P @ Q).real)[::-1])
        assert relative_error(values, expected) < 1e-6


@pytest.mark.parametrize(("mixer", "given"), [(s4d, {"init": "inv"}), (s4d, {"bidirectional": True}), (s4, {})])
def test_others_by_the_frequency_response(mixer, given):
    """The Hankel matrix of the bilinear system's Markov parameters, which are the coefficients of G on the circle."""
    options = mixer.Options(state_size=4, D_init="zero", **given)
    params = mixer.init(jax.random.key(1), 2, options)
    found = hankel.singular_values(mixer, params, options)
    assert found.shape == (4 if options.bidirectional else 2, 4)
    one = {name: value for name, value in params.items() if name not in ("C1", "C2")}
    one["C"] = params.get("C", params.get("C1"))
    circle = np.exp(2j * np.pi * (np.arange(2048) + 0.5) / 2048)
    with jax.enable_x64(True):
        forward = mixer.Options(state_size=4, D_init="zero", **{**given, "bidirectional": False})
        wide = {name: jnp.asarray(np.float64(value)) for name, value in one.items()}
        G = mixer.transfer_function(wide, jnp.asarray(10 * (circle - 1) / (circle + 1)), forward)
    for i, values in enumerate(found[:2]):
        k = np.arange(1, 601)
        h = (np.asarray(G)[:, i, i] @ circle[:, None] ** k / 2048).real
        expected = np.linalg.svd(scipy.linalg.hankel(h[:300], h[299:599]), compute_uv=False)[:4]
        assert relative_error(values, expected) < 1e-3


def test_table_numbers_and_figure(tmp_path, call):
    code, out, err = call("hankel.py", "--state_size=8", "--features=4", "--out", tmp_path)
    assert code == 0, err
    rows = [line.split(" | ") for line in out.splitlines() if line.startswith("| ")]
    assert [row[0][2:] for row in rows[1:]] == list(hankel.STARTS)
    rank = {row[0][2:]: float(row[2].split()[0]) for row in rows[1:]}
    assert rank["HOPE"] > rank["S4D-Real"] and rank["HOPE"] > 6
    table = list(csv.DictReader((tmp_path / "hankel.csv").read_text().splitlines()))
    assert len(table) == 8 * len(hankel.STARTS) and float(table[0]["median"]) == 1
    assert (tmp_path / "hankel.png").read_bytes().startswith(b"\x89PNG")
    code, _, err = call("hankel.py", "--state_size=7", "--out", tmp_path)
    assert code == 1 and err == "error: --state_size must be even and at least 2, --features at least 1\n"
