"""With its own residual: g * skip + (1 - g) * w x, sample by sample."""

import jax

CAUSAL = OWN_RESIDUAL = MASK = RESET = True


def init(key, width, options, *, depth, length):
    keys = jax.random.split(key)
    return {"g": jax.random.uniform(keys[0], (width,)), "w": jax.random.normal(keys[1], (width,))}


def _mix(params, x, skip):
    g, w = (params[name].reshape((1,) * (x.ndim - 1) + (-1,)) for name in "gw")
    return g * skip + (1 - g) * w * x


def apply(params, x, options, *, skip, state=None, **_):
    return _mix(params, x, skip), state


def init_state(params, options, batch, *, max_length=None):
    return ()


def step(cell, state, x_k, options, *, skip, mask=None, reset=None):
    return _mix(cell, x_k, skip), state
