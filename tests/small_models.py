"""Small models of every kind, for the tests of models and objectives."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from s5jax.mixers import attention, lru, s4, s4d, s5
from s5jax.models.model import Model
from s5jax.models.options import Options

H = 8
MIXERS = {
    "s5": ("s5", s5.Options(state_size=8, dt_min=0.05)),
    "s5-two": ("s5", s5.Options(state_size=4, dt_min=0.05, bidirectional=True, scan_method="sequential")),
    "s4d": ("s4d", s4d.Options(state_size=8)),
    "s4d-two": ("s4d", s4d.Options(state_size=8, bidirectional=True)),
    "s4d-scan": ("s4d", s4d.Options(state_size=8, mode="scan", n_ssm=2)),
    "dss": ("s4d", s4d.Options(state_size=8, discretization="dss", dss_length=21)),
    "s4": ("s4", s4.Options(state_size=8, init="legt", rank=2)),
    "lru": ("lru", lru.Options(state_size=8)),
    "attention": ("attention", attention.Options(heads=2)),
    "attention-two": ("attention", attention.Options(heads=2, causal=False)),
}
SMALL = ("averaging", "leaky", "noisy", "remembering", "skipping")  # tests/small_mixers


def build(*pattern, input_size=2, outputs=3, head="sequence", seed=0, **options):
    """A model whose batch statistics do something."""
    options = Options(**{"depth": max(2, len(pattern)), "d_model": H, "pattern": pattern or ("s5",), **options})
    names = {name: (f"small_mixers.{name}", None) if name in SMALL else MIXERS[name] for name in options.pattern}
    model = Model(options, names, input_size, outputs, head=head, length=32, rngs=nnx.Rngs(seed))
    for i, layer in enumerate(model.encoder.layers):
        if options.norm == "batch":
            n = len(layer.norm.mean[...])
            layer.norm.mean[...] = values(n, options.d_model, seed=i)
            layer.norm.var[...] = 1 + values(n, options.d_model, seed=i + 10) ** 2
    return model


@contextlib.contextmanager
def double_precision(on=True):
    """With promotion as users have it: the norms of flax promote float64 with float32."""
    with jax.enable_x64(on), jax.numpy_dtype_promotion("standard" if on else "strict"):
        yield


def values(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def quick_key(seed):
    """For dropout: the masks of a program compile in a third of the time that the usual random generator takes."""
    return jax.random.key(seed, impl="rbg")


def split(model):
    """Definition, parameters and batch statistics of a model, as trees."""
    graphdef, *states = nnx.split(model, nnx.Param, nnx.BatchStat)
    return graphdef, *map(nnx.to_pure_dict, states)


def differentiated(model, **fixed):
    """A function of (params, inputs, weights, arguments): outputs, batch statistics after them, and the gradients of
    sum(weights * outputs) in params and inputs."""
    graphdef, _, stats = split(model)

    def loss(params, inputs, weights, arguments):
        model = nnx.merge(graphdef, params, stats)
        outputs = model(inputs, **arguments, **fixed)
        return jnp.sum(outputs * weights), (outputs, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))

    def everything(*arguments):
        (params, inputs), (outputs, stats) = jax.grad(loss, argnums=(0, 1), has_aux=True)(*arguments)
        return {"outputs": outputs, "stats": stats, "params": params, "inputs": inputs}

    return jax.jit(everything)
