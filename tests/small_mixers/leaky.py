"""Steps without `discretize`, and a rate that only `apply` understands: y_k = 0.5^rate_k y_{k-1} + w x_k."""

import jax
import jax.numpy as jnp

CAUSAL, RATE = True, "step"


def init(key, width, options, *, depth, length):
    return {"w": jax.random.normal(key, (width,))}


def apply(params, x, options, *, lengths=None, mask=None, reset=None, rate=None, state=None, key=None, dropout=0.0):
    assert lengths is mask is reset is None
    start = init_state(params, options, x.shape[0]) if state is None else state
    rate = jnp.broadcast_to(jnp.asarray(1.0 if rate is None else rate), x.shape[:2])

    def advance(y, sample):
        x_k, rate_k = sample
        y = 0.5 ** rate_k[:, None] * y + params["w"][None] * x_k
        return y, y

    end, y = jax.lax.scan(advance, start, (jnp.moveaxis(x, 1, 0), rate.T))
    return jnp.moveaxis(y, 0, 1), None if state is None else end


def init_state(params, options, batch, *, max_length=None):
    return jnp.zeros((batch, *params["w"].shape))


def step(cell, state, x_k, options, *, mask=None, reset=None):
    state = 0.5 * state + cell["w"][None] * x_k
    return state, state
