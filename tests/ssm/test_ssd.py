"""State space duality against the published code's recorded numbers and a loop in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everyday import variants
from numerics import load_case, relative_error

from s5jax.ssm.ssd import ssd


@variants(
    [("ssd_chunked", 7, False), ("ssd_initial_state", 64, True)],
    case=["ssd_chunked", "ssd_initial_state"],
    block=[1, 7, 8, 64],
    double=[False, True],
)
def test_recorded_outputs_and_gradients(case, block, double):
    _, data = load_case(case)
    names = [name for name in ("X", "A", "B", "C", "initial_states") if name in data]

    def weighted_sum(arrays, w):
        start = arrays["initial_states"][:, 0] if "initial_states" in arrays else None
        y, last = ssd(*(arrays[name] for name in "XABC"), state=start, block=block)
        return jnp.sum(y * w), (y, last)

    with jax.enable_x64(double):
        dtype = np.float64 if double else np.float32
        arrays, w = jax.tree.map(lambda v: jnp.asarray(v, dtype), ({n: data[n] for n in names}, data["w"]))
        gradients, (y, last) = jax.jit(jax.grad(weighted_sum, has_aux=True))(arrays, w)
    assert y.dtype == dtype
    assert relative_error(y, data["y"]) < (1e-10 if double else 1e-5)
    assert relative_error(last, data["final_state"]) < (1e-10 if double else 1e-5)
    for name in names:
        assert relative_error(gradients[name], data[f"grad_{name}"]) < (1e-9 if double else 1e-4), name


@pytest.mark.parametrize("block", [4, 16])
def test_groups_resets_and_strong_decays(block):
    """A running sum of these decays reaches 1e4, of which a difference in float32 would have no digit left."""
    rng = np.random.default_rng(0)
    L, heads, P, G, N = 30, 4, 2, 2, 3
    x, a = rng.normal(size=(2, L, heads, P)), -rng.uniform(0, 1, (2, L, heads))
    a[:, ::3] *= 1000
    B, C = rng.normal(size=(2, 2, L, G, N))
    reset = rng.random((2, L)) < 0.1
    x, a, B, C = (v.astype(np.float32) for v in (x, a, B, C))
    start = rng.normal(size=(2, heads, P, N)).astype(np.float32)
    y, last = ssd(*map(jnp.asarray, (x, a, B, C)), reset=jnp.asarray(reset), state=jnp.asarray(start), block=block)
    h, expected = start.astype(np.float64), np.zeros(x.shape)
    for k in range(L):
        h = np.where(reset[:, k, None, None, None], 0, h) * np.exp(a[:, k].astype(np.float64))[..., None, None]
        b, c = (np.repeat(M[:, k], heads // G, axis=1)[:, :, None] for M in (B, C))
        h = h + x[:, k, :, :, None] * b
        expected[:, k] = (h * c).sum(-1)
    assert relative_error(y, expected) < 1e-6 and relative_error(last, h) < 1e-6


def test_mistakes():
    x, a, B = np.ones((1, 4, 3, 2)), np.ones((1, 4, 3)), np.ones((1, 4, 2, 5))
    x, a, B = (jnp.asarray(v, jnp.float32) for v in (x, a, B))
    with pytest.raises(ValueError, match="groups of B and C must divide 3 heads, got 2"):
        ssd(x, a, B, B)
    with pytest.raises(ValueError, match="a sequence must have at least one step"):
        ssd(x[:, :0], a[:, :0], B[:, :0, :1], B[:, :0, :1])
