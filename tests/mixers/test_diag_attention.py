"""DiagAttention of TransNormer against the published code's recorded numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everyday import variants
from numerics import load_case, relative_error
from small_models import quick_key
from test_norm_attention import ours

from s5jax.mixers import diag_attention
from s5jax.mixers.diag_attention import Options

CASES = ["transnormer_diag_softmax", "transnormer_diag_causal", "transnormer_diag_relu"]


@variants([("transnormer_diag_causal", False), ("transnormer_diag_relu", True)], case=CASES, double=[False, True])
def test_recorded_layers(case, double):
    meta, data = load_case(case)
    softmax = meta["use_softmax"]
    options = Options(
        heads=meta["n_heads"],
        block=meta["chunk_size"],
        causal=meta["causal"],
        weights="softmax" if softmax else "relu",
        published_softmax=softmax,
        positions="rotary" if meta["use_lrpe"] else "none",
    )

    def weighted_sum(params, x, w):
        y, _ = diag_attention.apply(params, x, options)
        return jnp.sum(y * w), y

    norm = None if softmax else "normalize"
    with jax.enable_x64(double):
        dtype = np.float64 if double else np.float32
        arrays = ours(data["param"], options.heads, norm), data["x"], data["w"]
        params, x, w = jax.tree.map(lambda a: jnp.asarray(a, dtype), arrays)
        gradients, y = jax.jit(jax.grad(weighted_sum, (0, 1), has_aux=True))(params, x, w)
    assert y.dtype == dtype
    assert relative_error(y, data["y"]) < (1e-9 if double else 1e-5)
    errors = jax.tree.map(relative_error, gradients, (ours(data["grad"], options.heads, norm), data["grad_x"]))
    assert max(jax.tree.leaves(errors)) < (1e-9 if double else 1e-4), errors


def test_whole_blocks_have_the_published_softmax():
    """If the blocks are full and the mixer is not causal, the published softmax counts nothing else."""
    options = {"heads": 2, "block": 4, "causal": False}
    params = diag_attention.init(quick_key(0), 8, Options(**options))
    x = jax.random.normal(quick_key(1), (2, 11, 8))
    published, _ = diag_attention.apply(params, x, Options(**options, published_softmax=True))
    y, _ = diag_attention.apply(params, x, Options(**options))
    assert relative_error(published[:, :8], y[:, :8]) < 1e-6
    assert relative_error(published[:, 8:], y[:, 8:]) > 0.01


@variants(["softmax"], weights=["softmax", "relu"])
def test_dropout(weights):
    options = Options(heads=2, block=8, causal=False, weights=weights)
    params = diag_attention.init(quick_key(0), 8, options)
    x = jax.random.normal(quick_key(1), (2, 19, 8))
    whole, _ = diag_attention.apply(params, x, options)
    with pytest.raises(ValueError, match="dropout needs a key"):
        diag_attention.apply(params, x, options, dropout=0.1)

    @jax.jit
    def dropped(key, dropout):
        return diag_attention.apply(params, x, options, key=key, dropout=dropout)[0]

    key = quick_key(2)
    assert relative_error(dropped(key, 0.0), whole) < 1e-6
    assert relative_error(dropped(key, 0.5), whole) > 0.1
    if weights == "softmax":  # there the norm comes last
        many = jax.jit(jax.vmap(dropped, (0, None)))(jax.random.split(key, 1000), 0.3)
        assert relative_error(many.mean(0), whole) < 0.05
    np.testing.assert_array_equal(dropped(key, 1.0)[0, 0], dropped(key, 1.0)[1, 5])


def test_a_long_stream_counts_within_its_block():
    options = Options(heads=1, block=4)
    params = diag_attention.init(quick_key(0), 4, options)
    state = diag_attention.init_state(params, options, 2)
    x = jax.random.normal(quick_key(1), (2, 10, 4))
    _, after = diag_attention.apply(params, x, options, state=state)
    np.testing.assert_array_equal(after["count"], [2, 2])
    np.testing.assert_array_equal(after["valid"], [[True, True, False, False]] * 2)


def test_parameters():
    assert "norm_scale" not in diag_attention.init(quick_key(0), 8, Options())
    relu = diag_attention.init(quick_key(0), 64, Options(weights="relu"))
    assert relu["norm_scale"].shape == relu["norm_bias"].shape == (64,)
    for name in "qkvo":
        assert float(relu[f"{name}_kernel"].var()) * 64 == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 0}, r"heads must lie in 1\.\.65536, got 0"),
        ({"block": 0}, r"block must lie in 1\.\.65536, got 0"),
        ({"qkv_width": -1}, r"qkv_width must lie in 0\.\.65536, got -1"),
        ({"weights": "relu", "published_softmax": True}, "published_softmax needs weights softmax, got relu"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        Options(**options)
