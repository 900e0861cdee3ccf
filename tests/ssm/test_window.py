"""Convolution with a finite kernel against a NumPy loop: whole, in pieces, in steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numerics import relative_error

from s5jax.ssm import window

B, L, H = 3, 9, 2


def loop(K, u):
    y = np.zeros(u.shape)
    for k in range(u.shape[1]):
        for lag in range(min(k + 1, K.shape[1])):
            y[:, k] += K[:, lag] * u[:, k - lag]
    return y


def drawn(W):
    rng = np.random.default_rng(W)
    return rng.normal(size=(H, W)), rng.normal(size=(B, L, H))


@pytest.mark.parametrize("W", [1, 2, 5, 9, 20])
@pytest.mark.parametrize("plain", [False, True])
def test_values_and_gradients(W, plain):
    K, u = drawn(W)
    w = np.random.default_rng(0).normal(size=u.shape)
    with jax.enable_x64(True):
        f = jax.jit(lambda K, u: window.apply(K, u, plain=plain)[0])
        y = f(K, u)
        of_K, of_u = jax.grad(lambda K, u: jnp.sum(f(K, u) * w), (0, 1))(K, u)
    assert relative_error(y, loop(K, u)) < 1e-12
    assert relative_error(of_u, loop(K, w[:, ::-1])[:, ::-1]) < 1e-12
    expected = [[(w[:, lag:, h] * u[:, : max(L - lag, 0), h]).sum() for lag in range(W)] for h in range(H)]
    assert relative_error(of_K, expected) < 1e-12


@pytest.mark.parametrize("W", [1, 2, 5, 20])
def test_pieces_and_steps_are_the_whole(W):
    K, u = drawn(W)
    lengths, rest = np.array([4, 0, 1]), np.array([5, 3, 2])
    first = np.where(np.arange(5)[None, :, None] < lengths[:, None, None], u[:, :5], 0)
    follow = np.stack([u[b, n : n + 5] for b, n in enumerate(lengths)])
    with jax.enable_x64(True):
        y_1, state = window.apply(
            jnp.asarray(K), jnp.asarray(first), jnp.asarray(lengths), window.init_state(B, jnp.asarray(K))
        )
        y_2, state = window.apply(jnp.asarray(K), jnp.asarray(follow), jnp.asarray(rest), state)
        y_3 = []
        for k in range(2):
            at = u[np.arange(B), np.minimum(lengths + rest + k, L - 1)]
            y, state = window.step(jnp.asarray(K), state, jnp.asarray(at))
            y_3.append(np.asarray(y))
    for b, (n, m) in enumerate(zip(lengths, rest, strict=True)):
        x = np.concatenate([u[b, : n + m], *(u[b, None, min(n + m + k, L - 1)] for k in range(2))])
        y = np.concatenate([y_1[b, :n], y_2[b, :m], np.stack(y_3)[:, b]])
        assert relative_error(y, loop(K, x[None])[0]) < 1e-12


def test_a_reset_and_a_kernel_for_each_sequence():
    K, u = drawn(4)
    each, flags = np.stack([K, -K, 2 * K]), np.array([False, True, False])
    with jax.enable_x64(True):
        state = window.init_state(B, jnp.asarray(K))
        for k in range(L):
            reset = jnp.asarray(flags & (k == 5))
            y, state = window.step(jnp.asarray(each), state, jnp.asarray(u[:, k]), reset=reset)
    for b, first in enumerate((0, 5, 0)):
        assert relative_error(y[b], loop(each[b], u[b : b + 1, first:])[0, -1]) < 1e-12
