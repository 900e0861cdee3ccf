"""Blocks with a mixer against what published code computed: S4 and S4D with their gate, LRU's whole layer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from everyday import variants
from flax import nnx
from numerics import load_case, relative_error
from small_models import double_precision

from s5jax.mixers import lru, s4, s4d
from s5jax.models.block import Block
from s5jax.models.options import Options


def block_of(options, mixer, params):
    """A function of (params, x): the block with the leaves `params` of a nested dict."""
    block = Block(options, mixer, length=1, rngs=nnx.Rngs(0))
    graphdef, state = nnx.split(block)
    assert jax.tree.map(jnp.shape, nnx.to_pure_dict(state)) == jax.tree.map(jnp.shape, params)
    return lambda params, x: nnx.merge(graphdef, params)(x)[0]


def unconditioned(recorded, L):
    """C of each direction as pairs, from the recorded C (I - A_bar^L) of S4, in float64."""
    P, C = (np.float64(recorded[name]) @ [1, 1j] for name in "PC")
    half = np.exp(np.float64(recorded["inv_dt"]))[..., None] / 2

    def pairs(z):
        return np.concatenate([z, z.conj()], -1)

    poles = pairs(-np.exp(np.float64(recorded["A_real"])) - 1j * np.float64(recorded["A_imag"]))
    identity = np.eye(poles.shape[-1])
    A = poles[..., None] * identity - np.einsum("rhn,rhm->hnm", pairs(P), pairs(P).conj())
    A_bar = np.linalg.solve(identity - half * A, identity + half * A)
    remainder = identity - np.linalg.matrix_power(A_bar, L)
    C = np.linalg.solve(np.swapaxes(remainder, 1, 2)[None], pairs(C)[..., None])[..., : C.shape[-1], 0]
    return np.stack([C.real, C.imag], -1)


@variants(  # the others every day as mixers, in test_recorded_s4
    [("s4d", "bidirectional"), ("s4", "causal")], kind=["s4d", "s4"], direction=["causal", "bidirectional"]
)
def test_s4_blocks(kind, direction):
    """The layer, exact GELU, a map to 2 H and its gate: values first. Causal ones sample by sample as well."""
    meta, data = load_case(f"{kind}_block_{direction}")
    flat = data["param"]
    recorded = {name.removeprefix("layer.kernel."): flat[name] for name in flat if "kernel" in name}
    C = unconditioned(recorded, meta["L"]) if kind == "s4" else recorded["C"]
    module = s4 if kind == "s4" else s4d
    mixer = (kind, module.Options(state_size=meta["N"], bidirectional=meta["bidirectional"]))
    names = ("C1", "C2") if meta["bidirectional"] else ("C",)
    seq = {name: recorded[name] for name in ("A_real", "A_imag", "P") if name in recorded}
    seq |= {
        "B": recorded["B"][0],
        "log_step": recorded["inv_dt"],
        "D": flat["layer.D"][0],
        **dict(zip(names, C, strict=True)),
    }
    value, gate = np.split(flat["output_linear.0.weight"].T, 2, axis=1)
    value_bias, gate_bias = np.split(flat["output_linear.0.bias"], 2)
    params = {
        "seq": seq,
        "out1": {"kernel": value, "bias": value_bias},
        "out2": {"kernel": gate, "bias": gate_bias},
    }
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    options = Options(
        depth=1, d_model=meta["H"], activation="full_glu", gelu="exact", norm="none", residual=False, pattern=(kind,)
    )
    block = block_of(options, mixer, params)

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradient(x):
        y = block(params, x)
        return jnp.sum(y * data["w"]), y

    grad, y = gradient(data["x"])
    assert relative_error(y, data["y"]) < 1e-4
    assert relative_error(grad, data["grad_x"]) < 1e-4
    if "y_recurrent" in data:
        alone = nnx.merge(nnx.graphdef(Block(options, mixer, length=1, rngs=nnx.Rngs(0))), params)
        cell = module.discretize(alone.params, mixer[1])
        start = module.init_state(alone.params, mixer[1], len(data["x"]))

        def advance(state, x_k):
            return alone(x_k, mix=lambda u: module.step(cell, state, u, mixer[1]))[::-1]

        _, ys = jax.jit(lambda x: jax.lax.scan(advance, start, x))(jnp.moveaxis(jnp.asarray(data["x"]), 1, 0))
        assert relative_error(jnp.moveaxis(ys, 0, 1), data["y_recurrent"]) < 1e-4


@variants([("prenorm", True)], order=["prenorm", "postnorm"], double=[False, True])
def test_lru_layers(order, double):
    """Layer norm, LRU, tanh GELU, the gate of two maps, residual sum: outputs, and gradients of everything."""
    meta, data = load_case(f"lru_layer_{order}")
    options = Options(
        depth=1,
        d_model=meta["H"],
        activation="full_glu",
        norm="layer",
        prenorm=meta["prenorm"],
        pattern=("lru",),
    )

    def renamed(tree):
        return {"norm" if name == "normalization" else name: value for name, value in tree.items()}

    with double_precision(double):
        kind = jnp.float64 if double else jnp.float32
        params = jax.tree.map(lambda x: jnp.asarray(x, kind), renamed(data["param"]))
        block = block_of(options, ("lru", lru.Options(state_size=meta["N"])), params)

        @jax.jit
        @functools.partial(jax.grad, argnums=(0, 1), has_aux=True)
        def gradient(params, u):
            y = block(params, u[None])[0]
            return jnp.sum(y * jnp.asarray(data["w"], kind)), y

        (grads, grad_u), y = gradient(params, jnp.asarray(data["u"], kind))
        assert y.dtype == kind
        assert relative_error(y, data["y"]) < (1e-10 if double else 1e-5)
        errors = jax.tree.map(relative_error, {**grads, "u": grad_u}, {**renamed(data["grad"]), "u": data["grad_u"]})
        assert max(jax.tree.leaves(errors)) < (1e-8 if double else 1e-4), errors
