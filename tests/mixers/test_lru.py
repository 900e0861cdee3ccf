"""The LRU against the published code's recorded numbers. (Its whole layer, `lru_layer_*`, is a block of `models`.)"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everyday import variants
from numerics import load_case, relative_error

from s5jax.mixers import lru


@variants([("lru_default", False), ("lru_ring", True)], case=["lru_default", "lru_ring"], double=[False, True])
def test_recorded_outputs_and_gradients(case, double):
    meta, data = load_case(case)
    options = lru.Options(state_size=meta["N"], r_min=meta["r_min"], r_max=meta["r_max"], max_phase=meta["max_phase"])

    def weighted_sum(params, u, w):
        y, state = lru.apply(params, u[None], options)
        assert state is None
        return jnp.sum(y[0] * w), y[0]

    with jax.enable_x64(double):
        dtype = np.float64 if double else np.float32
        args = jax.tree.map(lambda x: jnp.asarray(x, dtype), (data["param"], data["u"], data["w"]))
        (grad_params, grad_u), y = jax.jit(jax.grad(weighted_sum, argnums=(0, 1), has_aux=True))(*args)
    assert y.dtype == dtype
    assert relative_error(y, data["y"]) < (1e-10 if double else 1e-5)
    tolerance = 1e-8 if double else 1e-4
    assert relative_error(grad_u, data["grad_u"]) < tolerance
    for name, expected in data["grad"].items():
        assert relative_error(grad_params[name], expected) < tolerance, name


@variants(["ring"], ring=["default", "ring"])
def test_recorded_distribution_of_initial_parameters(ring):
    meta, data = load_case("lru_init")
    r_min, r_max, max_phase = meta["rings"][ring]
    options = lru.Options(
        state_size=20000, r_min=float(r_min), r_max=float(r_max), max_phase=max_phase, bidirectional=True
    )
    params = jax.tree.map(np.float64, lru.init(jax.random.key(0), 3, options))
    assert {name: x.shape for name, x in params.items()} == {
        **dict.fromkeys(("nu_log", "theta_log", "gamma_log"), (20000,)),
        **dict.fromkeys(("B_re", "B_im"), (20000, 3)),
        **dict.fromkeys(("C_re", "C_im", "C2_re", "C2_im"), (3, 20000)),
        "D": (3,),
    }
    modulus, recorded = np.exp(-np.exp(params["nu_log"])), data[ring]
    drawn = {"abs_lambda": modulus, "phase": np.exp(params["theta_log"]), "gamma": np.exp(params["gamma_log"])}
    for name, values in drawn.items():
        expected = recorded[f"q_{name}"]
        # Quantiles of 20,000 draws are off by 0.0035 of the distribution, here and in the record.
        np.testing.assert_allclose(np.quantile(values, meta["q"]), expected, atol=0.05 * np.ptp(expected))
    np.testing.assert_allclose(drawn["gamma"] ** 2 + modulus**2, 1, atol=1e-6)
    for name in ("B_re", "B_im", "C_re", "C_im"):
        assert params[name].std() == pytest.approx(float(recorded[f"std_{name}"]), rel=0.03)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state_size": 0}, "state_size must lie in 1..65536, got 0"),
        ({"r_min": 0.9, "r_max": 0.5}, "0 <= r_min < r_max <= 1, got 0.9 and 0.5"),
        ({"max_phase": 0.0}, "max_phase must be a positive number"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        lru.Options(**options)
