"""The table of the package, and the command that makes it."""

import numpy as np
import pytest
import tiny

from projects.ptd import make_table
from s5jax.ssm import hippo, ptd
from s5jax.train import resolve


def test_a_row_is_made_of_a_decomposition():
    result = ptd.perturb_then_diagonalize(hippo.legs(8)[0])
    with np.load(ptd.TABLE) as table:
        np.testing.assert_allclose(make_table.pack(result.V, result.E), table["8"], rtol=1e-10)


def test_the_command(tmp_path, call):
    code, out, err = call("make_table.py", "--n", "4", "6", f"--out={tmp_path / 'table.npz'}")
    assert code == 0, err
    four, six, last = out.splitlines()
    assert four.startswith("n = 4: ||E||_2 / ||A||_2 0.") and "from the table" in four
    assert six.endswith("not in the table") and str(tmp_path / "table.npz") in last
    with np.load(tmp_path / "table.npz") as made, np.load(ptd.TABLE) as table:
        np.testing.assert_allclose(made["4"], table["4"], rtol=1e-8)
        assert made["6"].shape == (15,)
    code, _, err = call("make_table.py", "--n", "7")
    assert code == 1 and err == "error: --n must be even and at least 2, got 7\n"


@pytest.mark.parametrize("flag", ["", ",debug"])
def test_the_recipes_need_no_optimiser(flag):
    with np.load(ptd.TABLE) as table:
        sizes = set(table)
    recipes = sorted({*tiny.ROOT.glob("configs/**/*.py"), *tiny.ROOT.glob("projects/ptd/configs/*.py")})
    found = 0
    for recipe in recipes:
        for model in ("s5-ptd", "s4-ptd"):
            if recipe.parent.name == "lm" or recipe.stem in ("common", "transformers"):
                continue
            config = resolve.load_config(f"{recipe}:{model}{flag}")
            ((_, mixer),) = resolve.resolve(config).mixers.items()
            options = mixer.options
            assert str(options.state_size // getattr(options, "blocks", 1)) in sizes, (recipe, model)
            assert options.init == "ptd-conjugate" and not options.ptd_kappa
            found += 1
    assert found > 15
