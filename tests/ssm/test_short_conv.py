"""The short convolution against a loop, with resets, lengths and states."""

import jax.numpy as jnp
import numpy as np
import pytest
from numerics import relative_error

from s5jax.ssm import short_conv, window

L, H = 9, 2


def loop(K, u, reset, before):
    y, state = [], before
    for k in range(len(u)):
        state = np.concatenate([0 * state if reset[k] else state, u[k : k + 1]])
        y.append((K.T[::-1] * state).sum(0))
        state = state[1:]
    return np.array(y).reshape(u.shape), state


@pytest.mark.parametrize("W", [1, 2, 4, 12])
def test_outputs_and_states(W):
    rng = np.random.default_rng(W)
    K, u, state = (rng.normal(size=s).astype(np.float32) for s in ((H, W), (3, L, H), (3, W - 1, H)))
    lengths, reset = np.array([9, 5, 0]), np.zeros((3, L), bool)
    reset[0, [0, 2, 3]] = reset[1, 4] = True
    u[np.arange(L) >= lengths[:, None]] = 0
    y, after = short_conv.apply(*map(jnp.asarray, (K, u, lengths, reset, state)))
    for i, n in enumerate(lengths):
        expected, last = loop(K, u[i, :n], reset[i], state[i])
        np.testing.assert_allclose(y[i, :n], expected, atol=1e-5)
        np.testing.assert_array_equal(after[i], last)
    free, nothing = short_conv.apply(jnp.asarray(K), jnp.asarray(u))
    assert nothing is None
    plain, _ = window.apply(jnp.asarray(K), jnp.asarray(u))
    assert relative_error(free, plain) < 1e-5
