"""Convolutions with few taps against a loop, in one piece and in several."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numerics import relative_error

from s5jax.ssm import tap_conv, window
from s5jax.ssm.sequence import Sequences

B, L, H = 2, 23, 3


def loop(K, u, starts, dilation=1):
    y = np.zeros(u.shape)
    for b in range(B):
        for k in range(L):
            for tap in range(K.shape[1]):
                lag = dilation * tap
                if lag > k or starts[b, k - lag + 1 : k + 1].any():
                    break
                y[b, k] += K[:, tap] * u[b, k - lag]
    return y


@pytest.mark.parametrize(("W", "dilation"), [(1, 1), (3, 1), (tap_conv.UNROLLED + 5, 1), (3, 4), (2, 30)])
def test_sequences_in_a_row(W, dilation):
    rng = np.random.default_rng(W)
    K, u = rng.normal(size=(H, W)).astype(np.float32), rng.normal(size=(B, L, H)).astype(np.float32)
    starts = rng.random((B, L)) < 0.15
    whole, state = tap_conv.apply(jnp.asarray(K), jnp.asarray(u), starts=jnp.asarray(starts), dilation=dilation)
    assert state is None and relative_error(whole, loop(K, u, starts, dilation)) < 1e-6

    state, pieces = jnp.zeros((B, dilation * (W - 1), H), jnp.float32), []
    for first, end in ((0, 9), (9, 10), (10, L)):
        piece = jnp.asarray(u[:, first:end]), None, state
        y, state = tap_conv.apply(jnp.asarray(K), *piece, starts=jnp.asarray(starts[:, first:end]), dilation=dilation)
        pieces.append(y)
    assert relative_error(np.concatenate(pieces, 1), whole) < 1e-6


def test_lengths_and_gradients():
    """Against the convolution by FFT, and the state after the last valid step."""
    rng = np.random.default_rng(0)
    W = tap_conv.UNROLLED + 2
    K, u = (jnp.asarray(rng.normal(size=size), jnp.float32) for size in ((H, W), (B, L, H)))
    past, lengths = jnp.asarray(rng.normal(size=(B, W - 1, H)), jnp.float32), jnp.array([L, 4], jnp.int32)
    u = jnp.where(Sequences(lengths).counted(L)[..., None], u, 0)

    def loss(apply, K, u, past):
        y, last = apply(K, u, lengths, past)
        return jnp.sum(jnp.sin(y)) + jnp.sum(last**2), (y, last)

    both = [jax.grad(loss, (1, 2, 3), has_aux=True)(f, K, u, past) for f in (tap_conv.apply, window.apply)]
    for actual, expected in zip(*map(jax.tree.leaves, both), strict=True):
        assert relative_error(actual, expected) < 1e-5
