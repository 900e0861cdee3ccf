"""MEGA against the published code's recorded numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract import mega as reference
from everyday import variants
from flax import nnx
from numerics import load_case, relative_error

from s5jax.mixers import mega
from s5jax.models.block import Block
from s5jax.models.options import Options
from s5jax.ssm.sequence import Sequences

EMA = ("delta", "alpha", "beta", "gamma", "omega")
DENSE = {"v_proj": "v", "mx_proj": "a", "h_proj": "h"}
TABLES = {"gamma": "qk_gamma", "beta": "qk_beta", "rel_pos_bias.rel_pos_bias": "bias"}
TABLES |= {"rel_pos_bias.alpha": "bias_a", "rel_pos_bias.beta": "bias_b"}


def ours(recorded, prefix=""):
    """Parameters of the layer by our names."""
    params = {name: recorded[f"{prefix}move.{name}"] for name in EMA}
    params |= {name: value[..., 0] for name, value in params.items() if value.ndim == 3}
    for theirs, name in DENSE.items():
        params[f"{name}_kernel"] = recorded[f"{prefix}{theirs}.weight"].T
        params[f"{name}_bias"] = recorded[f"{prefix}{theirs}.bias"]
    tables = {name: recorded[prefix + theirs] for theirs, name in TABLES.items() if prefix + theirs in recorded}
    return params | {name: value[0] if name in ("bias_a", "bias_b") else value for name, value in tables.items()}


def options_of(meta):
    return mega.Options(
        key_size=meta["zdim"],
        value_size=meta["hdim"],
        ema_size=meta["ndim"],
        attention=meta["attention_activation"],
        positions=meta["rel_pos_bias"],
        chunk=max(0, meta["chunk_size"]),
        max_positions=meta["bias_max_positions"],
        truncation=meta.get("truncation") or 0,
        bidirectional=meta["bidirectional"],
    )


def held(actual, expected, double, rotary=False):
    """Rotary positions are recorded with a table of sines in single precision."""
    y, gradients = ((1e-8, 1e-7) if rotary else (1e-9, 1e-9)) if double else (1e-5, 1e-4)
    assert actual[0].dtype == (np.float64 if double else np.float32)
    assert relative_error(actual[0], expected[0]) < y
    errors = jax.tree.map(relative_error, actual[1], expected[1])
    assert max(jax.tree.leaves(errors)) < gradients, errors


def by_batch(x):
    """From (L, B, D), as recorded."""
    return np.swapaxes(x, 0, 1)


@variants(
    [("mega_ema_truncated", False)],
    case=["mega_ema_causal", "mega_ema_bidirectional", "mega_ema_truncated"],
    double=[False, True],
)
def test_recorded_moving_averages(case, double):
    meta, data = load_case(case)
    given = {"truncation": meta["truncation"] or 0, "bidirectional": meta["bidirectional"]}
    options = mega.Options(ema_size=meta["ndim"], **given)

    def weighted_sum(arrays, w):
        y, _ = mega.average(arrays["ema"], arrays["x"], options)
        return jnp.sum(y * w), y

    def named(recorded):
        return {name: recorded[name].reshape(recorded[name].shape[:2]) for name in EMA}

    arrays = {"x": by_batch(data["x"]), "ema": named(data["param"])}
    expected = {"x": by_batch(data["grad_x"]), "ema": named(data["grad"])}
    with jax.enable_x64(double):
        dtype = np.float64 if double else np.float32
        arrays, w = jax.tree.map(lambda v: jnp.asarray(v, dtype), (arrays, by_batch(data["w"])))
        gradients, y = jax.jit(jax.grad(weighted_sum, has_aux=True))(arrays, w)
        L = data["kernel"].shape[1]
        K = mega.kernel(arrays["ema"], L, options)
    held((y, gradients), (by_batch(data["y"]), expected), double)
    assert relative_error(K.reshape(-1, L), data["kernel"]) < (1e-12 if double else 1e-6)


def block_of(meta, recorded, prefix):
    """A block with the recorded norm, layer and MLP."""
    kind = {"layernorm": "layer", "batchnorm": "batch", "scalenorm": "scale"}[meta["norm_type"]]
    options = Options(
        depth=1,
        d_model=meta["D"],
        pattern=("mega",),
        norm=kind,
        norm_epsilon=meta["norm_eps"],
        prenorm=meta["prenorm"],
        mlp=(meta["ffn_dim"] or 0) // meta["D"],
        mlp_activation="silu",
    )
    block = Block(options, ("mega", options_of(meta)), meta["L"], rngs=nnx.Rngs(0))
    return block, loaded(recorded, prefix)


def loaded(recorded, prefix):
    """The block's parameters, from the recorded ones or their gradients."""
    params = {"seq": ours(recorded, prefix)}
    norms = {"norm": f"{prefix}norm.norm.", "mlp_norm": "nffn.norm.norm."}
    for name, start in norms.items():
        found = {"scale": f"{start}weight", "bias": f"{start}bias"}
        found = {"scale": f"{start}scalar"} if f"{start}scalar" in recorded else found
        if found["scale"] in recorded:
            params[name] = {ours: recorded[theirs] for ours, theirs in found.items()}
    for name, theirs in {"mlp_in": "nffn.fc1", "mlp_out": "nffn.fc2"}.items():
        if f"{theirs}.weight" in recorded:
            params[name] = {"kernel": recorded[f"{theirs}.weight"].T, "bias": recorded[f"{theirs}.bias"]}
    return params


BLOCKS = ["mega_attention_laplace_chunk", "mega_attention_relu2_rotary", "mega_attention_softmax_padded"]
BLOCKS += ["mega_layer_laplace_batchnorm", "mega_layer_laplace_padded"]


@variants(
    [("mega_attention_relu2_rotary", False), ("mega_layer_laplace_padded", True)], case=BLOCKS, double=[False, True]
)
def test_recorded_blocks(case, double):
    """Norm, layer, residual sum, MLP. Where the recorded sequences are padded, padding reaches omega x in the published
    code, and from there its own outputs, which are part of the recorded loss: only valid outputs are compared."""
    meta, data = load_case(case)
    prefix = "mega_layer." if meta["kind"] == "mega_layer" else ""
    padding = data.get("padding_mask", np.zeros((data["x"].shape[1], meta["L"]), bool)).astype(bool)
    lengths = (~padding).sum(1)
    with jax.enable_x64(double), jax.numpy_dtype_promotion("standard" if double else "strict"):
        dtype = np.float64 if double else np.float32
        block, params = block_of(meta, data["param"], prefix)
        graphdef, _, others = nnx.split(block, nnx.Param, ...)
        arrays = {"x": by_batch(data["x"]), "params": params}
        others = nnx.to_pure_dict(others)
        arrays, w, others = jax.tree.map(lambda v: jnp.asarray(v, dtype), (arrays, by_batch(data["w"]), others))
        given = Sequences(jnp.asarray(lengths)) if padding.any() else Sequences()

        def weighted_sum(arrays, w, others):
            block = nnx.merge(graphdef, arrays["params"], others)
            y, _ = block(arrays["x"], given, train=True)
            return jnp.sum(y * w), y

        gradients, y = jax.jit(jax.grad(weighted_sum, has_aux=True))(arrays, w, others)
    if padding.any():
        assert relative_error(y[~padding], by_batch(data["y"])[~padding]) < (1e-9 if double else 1e-5)
        return
    expected = {"x": by_batch(data["grad_x"]), "params": loaded(data["grad"], prefix)}
    held((y, gradients), (by_batch(data["y"]), expected), double, "rotary" in case)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [1, 3, 8, 40])
@pytest.mark.parametrize("two", [False, True])
def test_chunks_of_any_length(chunk, two):
    """Longer than the sequence, shorter, with a short one at the end; with and without resets, which take other
    blocks of keys."""
    small = {"key_size": 4, "value_size": 3, "ema_size": 2, "attention": "laplace"}
    options = mega.Options(chunk=chunk, bidirectional=two, **small)
    rng = np.random.default_rng(chunk)
    params = mega.init(jax.random.key(0), 3, options)
    params = {name: value + 0.3 * rng.normal(size=value.shape).astype(np.float32) for name, value in params.items()}
    x = rng.normal(size=(2, 17, 3)).astype(np.float32)
    system = reference.system(jax.tree.map(np.float64, params), options)
    for reset in (None, rng.random((2, 17)) < 0.15):
        y, _ = mega.apply(params, jnp.asarray(x), options, reset=None if reset is None else jnp.asarray(reset))
        assert relative_error(y, np.stack(system.run_batch(x, reset=reset)[0])) < 1e-5


def test_the_residual_is_the_blocks_input():
    options = mega.Options(key_size=4, ema_size=2, chunk=4)
    params = mega.init(jax.random.key(0), 3, options)
    x, skip = (jax.random.normal(jax.random.key(i), (2, 9, 3)) for i in (1, 2))
    without, _ = mega.apply(params, x, options, skip=jnp.zeros_like(x))
    y, _ = mega.apply(params, x, options, skip=skip)
    kept = (y - without) / skip  # 1 - u, the same whatever is skipped
    assert relative_error(mega.apply(params, x, options)[0], without + kept * x) < 1e-5
    assert (kept > 0).all() and (kept < 1).all()


def test_dropout_of_single_samples():
    """With everything dropped, y is (1 - u) skip with the u of an average of zero, 1/2 without a bias."""
    options = mega.Options(key_size=4, ema_size=2, chunk=4)
    params = mega.init(jax.random.key(0), 3, options)
    x = jax.random.normal(jax.random.key(1), (2, 9, 3))
    y, _ = mega.apply(params, x, options, key=jax.random.key(2), dropout=1.0)
    assert relative_error(y, x / 2) < 1e-6
    one, other = (mega.apply(params, x, options, key=jax.random.key(i), dropout=0.5)[0] for i in (2, 3))
    assert relative_error(one, other) > 0.01


def test_a_cache_without_chunks_fills_up():
    options = mega.Options(key_size=4, ema_size=2, positions="rotary")
    params = mega.init(jax.random.key(0), 3, options)
    with pytest.raises(ValueError, match="attention without chunks needs a max_length for its cache"):
        mega.init_state(params, options, 2)
    x, state = jnp.ones((2, 5, 3)), mega.init_state(params, options, 2, max_length=4)
    with pytest.raises(ValueError, match="the cache is full: it holds 4 samples"):
        mega.apply(params, x, options, state=state)
    y, _ = jax.jit(lambda params, x, state: mega.apply(params, x, options, state=state))(params, x, state)
    assert np.isfinite(y[:, :4]).all() and np.isnan(y[:, 4:]).all()


def test_a_sequence_longer_than_the_table_of_positions():
    options = mega.Options(key_size=4, ema_size=2, max_positions=6)
    params = mega.init(jax.random.key(0), 3, options)
    mega.apply(params, jnp.ones((1, 6, 3)), options)
    with pytest.raises(ValueError, match="a sequence of 7 steps is longer than the 6 positions of the table"):
        mega.apply(params, jnp.ones((1, 7, 3)), options)


def test_initial_parameters():
    options = mega.Options(key_size=32, ema_size=16, chunk=100, bidirectional=True)
    params = jax.tree.map(np.float64, mega.init(jax.random.key(0), 64, options, length=400))
    shapes = {"v_kernel": (64, 128), "v_bias": (128,), "a_kernel": (64, 288), "a_bias": (288,), "h_kernel": (128, 64)}
    shapes |= {"h_bias": (64,), "qk_gamma": (2, 32), "qk_beta": (2, 32), "bias": (199,), "omega": (64,)}
    shapes |= dict.fromkeys(("delta", "alpha", "beta", "gamma"), (128, 16))
    assert {name: value.shape for name, value in params.items()} == shapes
    scales = {"delta": 0.2, "alpha": 0.2, "gamma": 1, "omega": 1}
    scales |= dict.fromkeys(("v_kernel", "a_kernel", "h_kernel", "qk_gamma", "bias"), 0.02)
    for name, scale in scales.items():
        assert params[name].std() == pytest.approx(scale, rel=0.3), name
    assert not any(params[name].any() for name in ("v_bias", "a_bias", "h_bias", "qk_beta"))
    assert np.abs(params["beta"][:, ::2] - 1).max() < 0.15 and np.abs(params["beta"][:, 1::2] + 1).max() < 0.15


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ema_size": 0}, "ema_size must lie in 1..4096, got 0"),
        ({"truncation": -1}, "truncation must lie in 0..1048576, got -1"),
        ({"key_size": 5, "positions": "rotary"}, "rotary positions need an even key_size, got 5"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        mega.Options(**options)
