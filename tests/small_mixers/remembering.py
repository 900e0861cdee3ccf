"""With a buffer: the running mean of its inputs, which it subtracts."""

import jax.numpy as jnp

from s5jax.ssm.sequence import valid_steps

CAUSAL = True


def init(key, width, options, *, depth, length):
    return {"w": jnp.ones(width)}


def init_buffers(key, width, options):
    return {"seen": {"mean": jnp.zeros(width)}}


def _output(params, x, mean):
    rows = (1,) * (x.ndim - 1) + (-1,)
    return params["w"].reshape(rows) * (x - mean.reshape(rows))


def apply(params, x, options, *, buffers, lengths=None, state=None, **_):
    mean = buffers["seen"]["mean"]
    counted = jnp.ones(x.shape[:2], bool) if lengths is None else valid_steps(lengths, x.shape[1])
    now = jnp.mean(x, (0, 1), where=counted[..., None])
    return _output(params, x, mean), state, {"seen": {"mean": 0.75 * mean + 0.25 * now}}


def init_state(params, options, batch, *, max_length=None):
    return ()


def discretize(params, options, *, rate=None, buffers):
    return {**params, **buffers["seen"]}


def step(cell, state, x_k, options, **_):
    return _output(cell, x_k, cell["mean"]), state
