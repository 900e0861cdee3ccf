"""H3 against the published code's recorded numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everyday import variants
from numerics import load_case, relative_error

from s5jax.mixers import h3

OURS = {
    f"{name}_{ours}": f"{name}_proj.{theirs}"
    for name in "qkv"
    for ours, theirs in (("kernel", "weight"), ("bias", "bias"))
}
OURS |= {
    "o_kernel": "output_linear.weight",
    "o_bias": "output_linear.bias",
    "shift_B": "ssm_k_kernel.kernel.B",
    "shift_C": "ssm_k_kernel.kernel.C",
    "shift_D": "ssm_k_D",
    "A_real": "kernel.kernel.inv_A_real",
    "A_imag": "kernel.kernel.A_imag",
    "B": "kernel.kernel.B",
    "C": "kernel.kernel.C",
    "D": "D",
    "log_step": "kernel.kernel.log_dt",
}


def ours(recorded, head_dim):
    """The published code has A = -exp(inv_A_real) + i A_imag, C with an axis of channels, and, when it computes by FFT,
    the first features of all heads before the second ones."""
    params = {name: recorded[theirs] for name, theirs in OURS.items()}
    params = {name: value.T if name.endswith("kernel") else value for name, value in params.items()}
    params |= {"shift_C": params["shift_C"][0], "C": params["C"][0], "A_imag": -params["A_imag"]}
    H = len(params["o_kernel"])
    order = np.arange(H).reshape(head_dim, -1).T.ravel()
    return params | {"log_step": params["log_step"][:, None], "o_kernel": params["o_kernel"][order]}


@variants(
    [("h3_headdim1", False), ("h3_headdim2", True)],
    case=["h3_headdim1", "h3_headdim2", "h3_zoh_short"],
    double=[False, True],
)
def test_recorded_outputs_and_gradients(case, double):
    meta, data = load_case(case)
    assert meta["measure"] == "diag-lin"
    d = meta["head_dim"]
    options = h3.Options(state_size=meta["d_state"], head_dim=d, discretization=meta["disc"])

    def weighted_sum(arrays, w):
        y, state = h3.apply(arrays["seq"], arrays["u"], options)
        assert state is None
        return jnp.sum(y * w), y

    arrays = {"u": data["u"], "seq": ours(data["param"], d)}
    expected = {"u": data["grad_u"], "seq": ours(data["grad"], d)}
    with jax.enable_x64(double):
        dtype = np.float64 if double else np.float32
        arrays, w = jax.tree.map(lambda v: jnp.asarray(v, dtype), (arrays, data["w"]))
        grads, y = jax.jit(jax.grad(weighted_sum, has_aux=True))(arrays, w)
        K = h3.kernel(arrays["seq"], meta["L"], options)[0]
    assert y.dtype == dtype
    assert relative_error(y, data["y"]) < (1e-9 if double else 1e-5)
    assert relative_error(K, data["kernel_diag"]) < (1e-9 if double else 1e-5)
    errors = jax.tree.map(relative_error, grads, expected)
    assert max(jax.tree.leaves(errors)) < (1e-9 if double else 1e-4), errors


def test_initial_parameters():
    H, N, d = 64, 128, 4
    params = h3.init(jax.random.key(0), H, h3.Options(state_size=N, head_dim=d))
    shapes = {f"{n}_kernel": (H, H) for n in "qkvo"} | {f"{n}_bias": (H,) for n in "qkvo"}
    shapes |= {"shift_B": (H, N), "shift_C": (H, N), "shift_D": (H,), "D": (16,), "log_step": (16, 1)}
    shapes |= {**dict.fromkeys(("A_real", "A_imag"), (16, 64)), **dict.fromkeys(("B", "C"), (16, 64, 2))}
    assert {name: value.shape for name, value in params.items()} == shapes
    for name, inputs in {**dict.fromkeys([f"{n}_kernel" for n in "qkvo"], H), "shift_C": N}.items():
        bound = 1 / np.sqrt(inputs)
        assert np.abs(params[name]).max() < bound * (1 + 1e-6)
        assert params[name].std() == pytest.approx(bound / np.sqrt(3), rel=0.05)
    np.testing.assert_array_equal(params["shift_B"], np.eye(1, N).repeat(H, 0))
    A = h3.eigenvalues(params, h3.Options(state_size=N, head_dim=d))
    assert relative_error(A, np.tile(-0.5 - 1j * np.pi * np.arange(64), (16, 1))) < 1e-6
    assert params["shift_D"].std() == pytest.approx(1, rel=0.4)


def test_a_rate_changes_the_diagonal_system_only():
    """Where no time passes between samples, the diagonal system keeps its zero state, and the shift goes on."""
    options = h3.Options(state_size=4)
    params = h3.init(jax.random.key(0), 3, options)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 6, 3)), jnp.float32)
    y, _ = h3.apply(params, x, options, rate=0.0)
    q, k, v = (np.asarray(x[0] @ params[f"{n}_kernel"] + params[f"{n}_bias"][None]) for n in "qkv")
    taps = np.asarray(params["shift_C"])  # shift_B starts as the first unit vector
    shifted = np.asarray(params["shift_D"]) * k
    for lag in range(4):
        shifted[lag:] += taps[:, lag] * k[: 6 - lag]
    expected = (q * np.asarray(params["D"]) * shifted * v) @ np.asarray(params["o_kernel"]) + np.asarray(
        params["o_bias"]
    )
    assert relative_error(y[0], expected) < 1e-5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state_size": 5}, "state_size must be even"),
        ({"head_dim": 0}, "head_dim must lie in 1..1024, got 0"),
        ({"dt_min": 0.2}, "dt_min and dt_max must satisfy"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        h3.Options(**options)


def test_heads_that_do_not_divide_the_width():
    with pytest.raises(ValueError, match="head_dim 4 does not divide the width 6"):
        h3.init(jax.random.key(0), 6, h3.Options(head_dim=4))
