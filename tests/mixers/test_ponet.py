"""PoNet against the published code's recorded numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everyday import variants
from numerics import load_case, relative_error

from s5jax.mixers import ponet

OURS = {"query": "W_q", "key": "W_k", "gate": "W_v", "segment": "W_segment", "local": "W_local", "out": "ff"}


def ours(recorded):
    kernels = {f"{name}_kernel": recorded[f"{theirs}.weight"].T for name, theirs in OURS.items()}
    return kernels | {f"{name}_bias": recorded[f"{theirs}.bias"] for name, theirs in OURS.items()}


@variants([("ponet_masked", False)], case=["ponet_full", "ponet_masked"], double=[False, True])
def test_recorded_layers(case, double):
    meta, data = load_case(case)
    options = ponet.Options(heads=meta["num_head"], segment_length=meta["segment_len"])
    mask = jnp.asarray(data["mask"] < 0.5)

    def weighted_sum(params, x, w):
        y, _ = ponet.apply(params, x, options, mask=mask)
        return jnp.sum(y * w), y

    with jax.enable_x64(double):
        dtype = np.float64 if double else np.float32
        params, x, w = jax.tree.map(lambda a: jnp.asarray(a, dtype), (ours(data["param"]), data["x"], data["w"]))
        gradients, y = jax.jit(jax.grad(weighted_sum, (0, 1), has_aux=True))(params, x, w)
        by_lengths, _ = ponet.apply(params, x, options, lengths=(~mask).sum(1))
    assert y.dtype == dtype
    assert relative_error(y, data["y"]) < (1e-9 if double else 1e-5)
    assert relative_error(by_lengths, data["y"]) < (1e-9 if double else 1e-5)
    errors = jax.tree.map(relative_error, gradients, (ours(data["grad"]), data["grad_x"]))
    assert max(jax.tree.leaves(errors)) < (1e-9 if double else 1e-4), errors


def test_initial_parameters():
    params = ponet.init(jax.random.key(0), 64, ponet.Options())
    assert set(params) == {f"{name}_{part}" for name in OURS for part in ("kernel", "bias")}
    for name, value in params.items():
        assert value.shape == ((64, 64) if name.endswith("kernel") else (64,))
        assert abs(value).max() <= 1 / 8
        assert float(value.std()) == pytest.approx(1 / 8 / np.sqrt(3), rel=0.2)


def test_impossible_options():
    with pytest.raises(ValueError, match=r"heads must lie in 1\.\.65536, got 0"):
        ponet.Options(heads=0)
    with pytest.raises(ValueError, match=r"segment_length must lie in 0\.\.1073741824, got -1"):
        ponet.Options(segment_length=-1)
    with pytest.raises(ValueError, match="heads must divide the width; got 3 heads for a width of 8"):
        ponet.init(jax.random.key(0), 8, ponet.Options(heads=3))
