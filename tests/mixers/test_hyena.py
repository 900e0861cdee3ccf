"""Hyena against the published code's recorded numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everyday import variants
from numerics import load_case, relative_error

from s5jax.mixers import hyena


def ours(recorded, order):
    """Parameters from those of the published code, in which every second part of the network is the same sine."""
    network = "filter_fn.implicit_filter."
    params = {}
    names = {"in_proj": "in", "out_proj": "out"}
    layers = sorted({int(name.split(".")[2]) for name in recorded if name.startswith(network) and "weight" in name})
    names |= {f"{network}{layer}": f"filter_{i}" for i, layer in enumerate(layers)}
    for theirs, name in names.items():
        params[f"{name}_kernel"] = recorded[f"{theirs}.weight"].T
        if f"{theirs}.bias" in recorded:
            params[f"{name}_bias"] = recorded[f"{theirs}.bias"]
    return params | {
        "short_kernel": recorded["short_filter.weight"][:, 0, ::-1],
        "short_bias": recorded["short_filter.bias"],
        "freq": recorded[f"{network}1.freq"][0],
        "positions": recorded["filter_fn.pos_emb.z"][0],
        "D": recorded["filter_fn.bias"].reshape(-1, order - 1),
    }


@variants(
    [("hyena_order2", False), ("hyena_order3_short", True), ("hyena_blocks_normalized", False)],
    case=["hyena_order2", "hyena_order3_short", "hyena_blocks_normalized"],
    double=[False, True],
)
def test_recorded_outputs_and_gradients(case, double):
    meta, data = load_case(case)
    order = meta["order"]
    options = hyena.Options(
        order=order,
        short_filter=meta.get("short_filter_order", 3),
        filter_width=meta["filter_order"],
        filter_layers=meta.get("num_inner_mlps", 2),
        embedding=meta["emb_dim"],
        frequency=float(meta["w"]),
        shift=meta.get("shift", 0.0),
        normalized=meta.get("normalized", False),
        blocks=meta.get("num_blocks", 1),
    )
    params, L = ours(data["param"], order), meta["L"]
    initial = hyena.init(jax.random.key(0), meta["d_model"], options, length=meta["l_max"])
    assert {n: v.shape for n, v in params.items()} == {n: v.shape for n, v in initial.items()}

    def weighted_sum(arrays, w):
        y, state = hyena.apply(arrays["seq"], arrays["u"], options)
        assert state is None
        return jnp.sum(y * w), y

    arrays = {"u": data["u"], "seq": params}
    expected = {"u": data["grad_u"], "seq": ours(data["grad"], order)}
    values, gradients = (1e-9, 1e-9) if double else (1e-5, 1e-4)
    with jax.enable_x64(double):
        dtype = np.float64 if double else np.float32
        arrays, w = jax.tree.map(lambda v: jnp.asarray(v, dtype), (arrays, data["w"]))
        grads, y = jax.jit(jax.grad(weighted_sum, has_aux=True))(arrays, w)
        h = hyena.filters(arrays["seq"], L, options)
    assert y.dtype == dtype
    assert relative_error(y, data["y"]) < values
    assert relative_error(h.transpose(2, 1, 0).reshape(L, -1), data["filter"]) < values
    errors = jax.tree.map(relative_error, grads, expected)
    assert max(jax.tree.leaves(errors)) < gradients, errors


@pytest.mark.parametrize("case", ["hyena_order2", "hyena_order3_short", "hyena_blocks_normalized"])
def test_positions_start_as_published(case):
    """They are trained, but in the recorded cases not yet."""
    meta, data = load_case(case)
    options = hyena.Options(embedding=meta["emb_dim"])
    z = hyena.init(jax.random.key(0), 2, options, length=meta["l_max"])["positions"]
    assert relative_error(z, data["param"]["filter_fn.pos_emb.z"][0]) < 1e-6


def test_initial_parameters():
    H = 64
    options = hyena.Options(order=3, short_filter=4, filter_width=32, embedding=5, filter_layers=1, frequency=10.0)
    params = hyena.init(jax.random.key(0), H, options, length=50)
    shapes = {"in_kernel": (H, 4 * H), "in_bias": (4 * H,), "short_kernel": (4 * H, 4), "short_bias": (4 * H,)}
    shapes |= {"positions": (50, 5), "freq": (32,), "filter_0_kernel": (5, 32), "filter_0_bias": (32,)}
    shapes |= {"filter_1_kernel": (32, 32), "filter_1_bias": (32,), "filter_2_kernel": (32, 2 * H)}
    shapes |= {"D": (H, 2), "out_kernel": (H, H), "out_bias": (H,)}
    assert {name: value.shape for name, value in params.items()} == shapes
    for name, inputs in {"in_kernel": H, "short_kernel": 4, "filter_2_kernel": 32, "out_kernel": H}.items():
        bound = 1 / np.sqrt(inputs)
        assert np.abs(params[name]).max() < bound * (1 + 1e-6)
        assert params[name].std() == pytest.approx(bound / np.sqrt(3), rel=0.05)
    assert params["D"].std() == pytest.approx(1, rel=0.3)
    assert (params["freq"] == 10).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": 1}, "order must lie in 2..64, got 1"),
        ({"embedding": 4}, "embedding must be odd and at least 3, got 4"),
        ({"short_filter": 0}, "short_filter must lie in 1..1024, got 0"),
        ({"fast_decay": 2.0}, "fast_decay and slow_decay must satisfy 0 < fast_decay <= slow_decay, got 2.0 and 1.5"),
        ({"shift": -1.0}, "shift must be at least 0, got -1.0"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        hyena.Options(**options)


def test_impossible_arguments():
    options = hyena.Options(filter_width=2)
    params, x = hyena.init(jax.random.key(0), 2, options, length=4), jnp.ones((1, 5, 2))
    with pytest.raises(ValueError, match="a sequence of 5 steps is longer than the filters of hyena"):
        hyena.apply(params, x, options)
    with pytest.raises(ValueError, match="hyena takes no rate: it has no step size"):
        hyena.apply(params, x[:, :4], options, rate=2.0)
    with pytest.raises(ValueError, match="hyena takes no reset: it expects one sequence per row"):
        hyena.apply(params, x[:, :4], options, reset=jnp.zeros((1, 4), bool))
