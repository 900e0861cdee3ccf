"""The blocks of the Long Range Arena's Transformer and linear Transformer against its code's recorded numbers."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everyday import variants
from flax import nnx
from numerics import load_case, relative_error
from small_models import double_precision

from s5jax import mixers
from s5jax.mixers import attention, linear_attention
from s5jax.models.block import Block
from s5jax.models.options import Options


def ours(recorded):
    """The parameters of `Block`; published kernels have an axis for the heads."""
    (of_attention,) = (group for name, group in recorded.items() if name.endswith("Attention_1"))
    kernels = {
        name: of_attention[theirs]["kernel"] for name, theirs in {"q": "query", "k": "key", "v": "value"}.items()
    }
    seq = {f"{name}_kernel": kernel.reshape(len(kernel), -1) for name, kernel in kernels.items()}
    seq["o_kernel"] = of_attention["out"]["kernel"].reshape(-1, len(kernels["q"]))
    mlp = recorded["MlpBlock_3"]
    norms = {"norm": recorded["LayerNorm_0"], "mlp_norm": recorded["LayerNorm_2"]}
    return {"seq": seq, **norms, "mlp_in": mlp["Dense_0"], "mlp_out": mlp["Dense_1"]}


def published_pads(p, u, heads):
    """What the published attention gives at padding, in single precision: each query attends to all positions alike,
    padding included, because -1e10 swallows its logits; their gradients are those of a softmax at 0."""
    q, k, v = ((u @ p[f"{name}_kernel"]).reshape(*u.shape[:2], heads, -1) for name in "qkv")
    logits = jnp.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1])
    weights = jax.nn.softmax(logits - jax.lax.stop_gradient(logits), axis=-1)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(*u.shape[:2], -1) @ p["o_kernel"]


@variants(
    [("lra_transformer_block", False), ("lra_linear_transformer_block", False)],
    case=["lra_transformer_block", "lra_linear_transformer_block"],
    double=[False, True],
)
def test_recorded_blocks(case, double):
    """Recorded in single precision. The published linear attention ignores the mask."""
    meta, data = load_case(case)
    name, padding = "linear_attention" if meta["linear"] else "attention", jnp.asarray(~data["mask"][..., 0])
    mixer, given = mixers.find(name), {"heads": meta["num_heads"], "qkv_width": meta["qkv_dim"]}
    given |= {} if meta["linear"] else {"positions": "none"}
    options = mixer.Options(**given, causal=False, bias=False)
    model = Options(d_model=meta["D"], norm="layer", activation="none", mlp=meta["mlp_dim"] // meta["D"])
    graphdef, _ = nnx.split(Block(model, (name, options), meta["L"], rngs=nnx.Rngs(0)))

    def weighted_sum(params, x, w):
        def mix(u):
            if meta["linear"]:
                return mixer.apply(params["seq"], u, options)
            y, _ = mixer.apply(params["seq"], u, options, mask=padding)
            return jnp.where(padding[..., None], published_pads(params["seq"], u, meta["num_heads"]), y), None

        y, _ = nnx.merge(graphdef, nnx.State(params))(x, mix=mix)
        return jnp.sum(y * w), y

    with double_precision(double):
        dtype = np.float64 if double else np.float32
        params, x, w = jax.tree.map(lambda a: jnp.asarray(a, dtype), (ours(data["param"]), data["x"], data["w"]))
        gradients, y = jax.jit(jax.grad(weighted_sum, (0, 1), has_aux=True))(params, x, w)
    assert y.dtype == dtype
    assert relative_error(y, data["y"]) < (1e-6 if double else 1e-5)
    errors = jax.tree.map(relative_error, gradients, (ours(data["grad"]), data["grad_x"]))
    assert max(jax.tree.leaves(errors)) < (1e-5 if double else 1e-4), errors


@pytest.mark.parametrize("mixer", [attention, linear_attention])
def test_another_width_inside(mixer):
    options = mixer.Options(heads=3, qkv_width=12)
    shapes = {**dict.fromkeys(("q_kernel", "k_kernel", "v_kernel"), (8, 12)), "o_kernel": (12, 8)}
    shapes |= {**dict.fromkeys(("q_bias", "k_bias", "v_bias"), (12,)), "o_bias": (8,)}
    params = mixer.init(jax.random.key(0), 8, options)
    assert {name: value.shape for name, value in params.items()} == shapes
    with pytest.raises(ValueError, match="heads must divide the width; got 3 heads for a width of 8"):
        mixer.init(jax.random.key(0), 12, mixer.Options(heads=3, qkv_width=8))
    with pytest.raises(ValueError, match=r"qkv_width must lie in 0\.\.65536, got -1"):
        mixer.Options(qkv_width=-1)
