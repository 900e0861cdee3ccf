import csv

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numerics import relative_error

from projects.hope import memory
from s5jax.mixers import hope, s5


@pytest.mark.parametrize("mixer", [hope, s5])
def test_the_response_is_the_derivative_by_the_first_input(mixer):
    options = mixer.Options(state_size=4, dt_min=0.1, dt_max=0.1)
    params = mixer.init(jax.random.key(0), 2, options)
    params["D"] = jnp.zeros(2)
    found = memory.response(mixer, params, options, 9)
    J = jax.jacrev(lambda x: mixer.apply(params, x, options)[0][0])(jnp.zeros((1, 9, 2)))
    expected = np.sqrt((np.float64(J[:, :, 0, 0]) ** 2).sum((1, 2)))
    assert relative_error(found, expected) < 1e-5


def test_shares():
    np.testing.assert_allclose(memory.remaining(np.array([3.0, 0.0, 4.0])), [1, 0.64, 0.64])
    row = memory.table({"a": np.array([3.0, 0.0, 4.0])}).splitlines()[-1]
    assert row == "| a | 2 | 2 | 2 |"


def test_table_numbers_and_figure(tmp_path, call):
    code, out, err = call("memory.py", "--state_size=8", "--features=2", "--lags=300", "--dt=0.1", "--out", tmp_path)
    assert code == 0, err
    rows = [line.strip("| ").split(" | ") for line in out.splitlines() if line.startswith("| ")]
    lags = {row[0]: int(row[3]) for row in rows[1:]}
    assert lags["HOPE"] > lags["S4D-Lin"]
    header, *rows = csv.reader((tmp_path / "memory.csv").read_text().splitlines())
    assert header == ["lag", *memory.STARTS] and float(rows[-1][0]) == 299
    assert (tmp_path / "memory.png").read_bytes().startswith(b"\x89PNG")
    code, _, err = call("memory.py", "--dt=0", "--out", tmp_path)
    assert code == 1 and err.startswith("error: --state_size, --dt: dt_min and dt_max must satisfy")
