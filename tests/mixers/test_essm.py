"""eSSM against the published code's recorded numbers, its initial parameters, and what it refuses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everyday import variants
from numerics import load_case, relative_error

from s5jax.mixers import essm

CASES = ["essm_multihead", "essm_no_conj", "essm_single_head"]
NAMES = {"Lambda": "Lambda", "B": "B", "C": "C", "D": "D", "log_step": "log_dt"}


def ours(recorded):
    """Recorded arrays by our names, and of our shapes."""
    arrays = {name: recorded[theirs][0] for name, theirs in NAMES.items()} | {"D": recorded["D"].ravel()}
    if "head_mixer.weight" in recorded:
        arrays["head_mixer_kernel"] = recorded["head_mixer.weight"].T
        arrays["head_mixer_bias"] = recorded["head_mixer.bias"]
    return arrays


def activated(y, outer, kind):
    """What follows the mixer in the published layer."""
    g = jax.nn.gelu(y, approximate=False)

    def linear(name, x):
        z = x @ outer[f"{name}_post.weight"].T
        return z + jnp.broadcast_to(outer[f"{name}_post.bias"], z.shape)

    value = y if kind == "half_glu2" else linear("out1", g) if kind == "full_glu" else g
    return value * jax.nn.sigmoid(linear("out2", g))


@variants(
    [("essm_multihead", "convolution", False), ("essm_no_conj", "scan", True)],
    case=CASES,
    mode=["convolution", "scan"],
    double=[False, True],
)
def test_recorded_outputs_and_gradients(case, mode, double):
    meta, data = load_case(case)
    options = essm.Options(
        state_size=meta["d_s"],
        heads=meta["head"],
        conj_sym=meta["conj_sym"],
        dt_per_state=meta["d_dt_is_n"],
        bidirectional=meta["bidirectional"],
        mode=mode,
    )

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1), has_aux=True)
    def gradient(params, u, outer, w):
        y = activated(essm.apply(params, u, options)[0], outer, meta["acttivation_post"])
        return jnp.sum(y * w), y

    outer = {name: value for name, value in data["param"].items() if "_post" in name}
    u, w, y_recorded, of_u_recorded = (np.swapaxes(data[name], 1, 2) for name in ("u", "w", "y", "grad_u"))
    with jax.enable_x64(double):
        dtype = np.float64 if double else np.float32
        args = jax.tree.map(lambda x: jnp.asarray(x, dtype), (ours(data["param"]), u, outer, w))
        (of_params, of_u), y = gradient(*args)
    values, gradients = (1e-12, 1e-12) if double else (1e-5, 1e-4)
    assert y.dtype == dtype
    assert relative_error(y, y_recorded) < values
    assert relative_error(of_u, of_u_recorded) < gradients
    for name, expected in ours(data["grad"]).items():
        assert relative_error(of_params[name], expected) < gradients, name


@variants([(True, "trunc_normal")], conj_sym=[True, False], C_init=["trunc_normal", "hippo"])
def test_initial_parameters(conj_sym, C_init):
    H, S, n = 96, 3, 16
    options = essm.Options(state_size=S * n, heads=S, conj_sym=conj_sym, C_init=C_init, dt_max=1.0, dt_min=0.01)
    params = jax.tree.map(np.float64, essm.init(jax.random.key(0), H, options))
    assert {name: x.shape for name, x in params.items()} == {
        "Lambda": (S, n, 2),
        "B": (S, n, H // S),
        "C": (S, H // S, n),
        "D": (H,),
        "log_step": (S, n),
        "head_mixer_kernel": (H, H),
        "head_mixer_bias": (H,),
    }
    m = 2 * n if conj_sym else n
    i = np.arange(m)
    skew = np.tril(np.sqrt(np.outer(2 * i + 1, 2 * i + 1)), -1) / 2
    frequency = np.linalg.eigvals(skew.T - skew).imag
    frequency = np.sort(frequency[frequency < 0] if conj_sym else -np.abs(frequency))
    for head in params["Lambda"]:
        np.testing.assert_allclose(head[:, 0], -0.5, atol=1e-6)
        np.testing.assert_allclose(np.sort(head[:, 1]), frequency, rtol=1e-5)
    assert (params["B"] == params["B"][:1]).all() and (params["D"] == 1).all()
    # Standard normals cut at +-2 have the variance 0.774; V^* X has the same in its real part. Five standard errors.
    variance = {"B": params["B"][0], "C": params["C"]}
    for name, values in variance.items():
        assert np.mean(values**2) == pytest.approx(0.774, rel=5 * np.sqrt(2 / values.size)), name
    assert (np.abs(params["C"]).max() <= 2) == (C_init == "trunc_normal")
    assert np.log(0.01) <= params["log_step"].min() < -4 and -0.6 < params["log_step"].max() < 0
    for name in ("head_mixer_kernel", "head_mixer_bias"):
        assert 0.9 * H**-0.5 < np.abs(params[name]).max() <= H**-0.5
    one = essm.init(jax.random.key(0), H, essm.Options(state_size=8, dt_per_state=False))
    assert one["log_step"].shape == (1, 1) and "head_mixer_kernel" not in one


def test_dropout_before_the_head_mixer():
    H, L = 16, 50
    options = essm.Options(state_size=8, heads=4)
    assert essm.DROPOUT(options) and not essm.DROPOUT(essm.Options())
    params = essm.init(jax.random.key(0), H, options)
    params |= {"head_mixer_kernel": jnp.eye(H), "head_mixer_bias": jnp.ones(H)}
    x = jax.random.normal(jax.random.key(1), (2, L, H))
    apply = jax.jit(functools.partial(essm.apply, options=options))
    whole = np.asarray(apply(params, x)[0]) - 1
    y = np.asarray(apply(params, x, key=jax.random.key(2), dropout=0.25)[0]) - 1
    kept = np.abs(y) > np.abs(whole) / 2
    np.testing.assert_allclose(y, np.where(kept, whole / 0.75, 0), atol=1e-5)
    assert kept.mean() == pytest.approx(0.75, abs=0.055)  # five standard errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state_size": 0}, "state_size must lie in 1..16384, got 0"),
        ({"heads": 3}, "heads 3 does not divide state_size 64"),
        ({"dt_min": 0.0}, "0 < dt_min <= dt_max"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        essm.Options(**options)


def test_heads_that_do_not_divide_the_width():
    with pytest.raises(ValueError, match="heads 4 does not divide the width 6"):
        essm.init(jax.random.key(0), 6, essm.Options(heads=4))
