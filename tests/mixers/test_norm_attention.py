"""NormAttention of TransNormer against the published code's recorded numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everyday import variants
from numerics import load_case, relative_error

from s5jax.mixers import linear_attention, norm_attention
from s5jax.ssm.sequence import Sequences

CASES = ["transnormer_norm_layer", "transnormer_norm_causal", "transnormer_norm_batch"]


def ours(recorded, heads, norm):
    """Parameters or gradients. In each head of q and k, features 2d come first, then 2d + 1: ours rotate d and d + D/2,
    the published ones neighbours."""
    params = {}
    for name in ("q", "k", "v", "o"):
        theirs = f"{'out' if name == 'o' else name}_proj"
        kernel, bias = recorded[f"{theirs}.weight"].T, recorded[f"{theirs}.bias"]
        if name in "qk":
            features = np.arange(len(bias)).reshape(heads, -1)
            E = features.shape[1] // 2 * 2
            order = np.concatenate([features[:, 0:E:2], features[:, 1:E:2], features[:, E:]], 1).ravel()
            kernel, bias = kernel[:, order], bias[order]
        params |= {f"{name}_kernel": kernel, f"{name}_bias": bias}
    if norm is not None:
        params |= {"norm_scale": recorded[f"{norm}.norm.weight"], "norm_bias": recorded[f"{norm}.norm.bias"]}
    return params


@variants([("transnormer_norm_layer", False), ("transnormer_norm_batch", True)], case=CASES, double=[False, True])
def test_recorded_layers(case, double):
    """The batch norm, over batch and steps, is this test's."""
    meta, data = load_case(case)
    options = norm_attention.Options(
        heads=meta["n_heads"],
        activation=meta["act_fun"],
        causal=meta["causal"],
        positions="rotary" if meta["use_lrpe"] else "none",
    )

    def mixed(params, x):
        if meta["norm_type"] == "layer":
            return norm_attention.apply(params, x, options)[0]
        z, _ = norm_attention.sums(params, x, options, Sequences(), None)
        z = (z - z.mean((0, 1), keepdims=True)) / jnp.sqrt(z.var((0, 1), keepdims=True) + 1e-5)
        z = z * params["norm_scale"][None, None] + params["norm_bias"][None, None]
        return linear_attention.project(params, "o", z)

    def weighted_sum(params, x, w):
        y = mixed(params, x)
        return jnp.sum(y * w), y

    with jax.enable_x64(double):
        dtype = np.float64 if double else np.float32
        arrays = ours(data["param"], options.heads, "layer_norm"), data["x"], data["w"]
        params, x, w = jax.tree.map(lambda a: jnp.asarray(a, dtype), arrays)
        gradients, y = jax.jit(jax.grad(weighted_sum, (0, 1), has_aux=True))(params, x, w)
    assert y.dtype == dtype
    assert relative_error(y, data["y"]) < (1e-9 if double else 1e-5)
    expected = ours(data["grad"], options.heads, "layer_norm"), data["grad_x"]
    errors = jax.tree.map(relative_error, gradients, expected)
    assert max(jax.tree.leaves(errors)) < (1e-9 if double else 1e-4), errors


def test_initial_parameters():
    params = jax.tree.map(np.float64, norm_attention.init(jax.random.key(0), 64, norm_attention.Options()))
    shapes = {f"{name}_kernel": (64, 64) for name in "qkvo"} | {f"{name}_bias": (64,) for name in "qkvo"}
    assert {n: v.shape for n, v in params.items()} == {**shapes, "norm_scale": (64,), "norm_bias": (64,)}
    for name, variance in {"q": 1 / 2, "k": 1 / 2, "v": 1 / 2, "o": 1}.items():
        assert params[f"{name}_kernel"].var() * 64 == pytest.approx(variance, rel=0.1)
    assert "norm_bias" not in norm_attention.init(jax.random.key(0), 8, norm_attention.Options(norm="rms"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 0}, r"heads must lie in 1\.\.65536, got 0"),
        ({"qkv_width": -1}, r"qkv_width must lie in 0\.\.65536, got -1"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        norm_attention.Options(**options)
