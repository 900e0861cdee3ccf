"""A chain of all-pass filters against a loop over its filters and steps in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everyday import variants
from numerics import relative_error

from s5jax.ssm import allpass

DELTA = np.array([1e-3, 0.03, 0.5, 1.0, 2.0, 30.0])


def loop(h, Delta, u, start=None):
    """Outputs (L, H) and states (L, H, n) after each step; the states are those that `allpass` defines."""
    (H, n), a = h.shape, (1 - Delta) / (1 + Delta)
    x = np.zeros((H, n)) if start is None else start
    outputs, states = [], []
    for u_k in u:
        v = [u_k]
        for j in range(n):
            v.append(x[:, j] - a * v[j])
        x = np.stack([v[j] + a * v[j + 1] for j in range(n)], axis=1)
        outputs.append(sum(h[:, j] * v[j + 1] for j in range(n)))
        states.append(x)
    return np.stack(outputs), np.stack(states)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def impulse(L):
    return np.r_[np.ones((1, len(DELTA))), np.zeros((L - 1, len(DELTA)))]


@variants([(64, 700, True), (64, 700, False)], n=[1, 5, 64, 128], L=[1, 2, 33, 700, 4000], double=[False, True])
def test_the_kernel_is_the_impulse_response_at_any_step_size(n, L, double):
    h = np.float64(np.float32(draw(len(DELTA), n)))
    Delta = np.float64(np.float32(DELTA))
    expected = loop(h, Delta, impulse(L))[0].T
    with jax.enable_x64(double):
        dtype = np.float64 if double else np.float32
        K = np.asarray(jax.jit(allpass.kernel, static_argnums=2)(h.astype(dtype), Delta.astype(dtype), L))
    assert K.dtype == dtype
    for K_h, expected_h in zip(K, expected, strict=True):
        assert relative_error(K_h, expected_h) < (1e-12 if double else 1e-5)


def test_with_step_size_one_the_chain_delays():
    h = jnp.asarray(draw(1, 9), jnp.float32)
    K = allpass.kernel(h, jnp.ones(1), 20)
    np.testing.assert_allclose(K[0], np.r_[0, h[0], np.zeros(10)], atol=1e-6)


@functools.cache
def responses():
    return jax.jit(lambda h, Delta, u, start, lengths: (
        allpass.response(h, Delta, start, u.shape[1]), allpass.final_state(Delta, u, lengths, start)
    ))  # fmt: skip


@variants([45], L=[1, 2, 45, 64])
def test_states(L):
    """The response to a state, and the states after sequences of several lengths."""
    H, lengths = len(DELTA), np.array([L, L // 2, 0])
    h, u, start = draw(H, 7), draw(3, L, H, seed=1), draw(3, H, 7, seed=2)
    u = np.where(np.arange(L)[None, :, None] < lengths[:, None, None], u, 0)
    with jax.enable_x64(True):
        free, last = responses()(h, DELTA, u, start, lengths)
    for i, n in enumerate(lengths):
        assert relative_error(free[i].T, loop(h, DELTA, 0 * u[i], start[i])[0]) < 1e-12
        expected = loop(h, DELTA, u[i, :n], start[i])[1][-1] if n else start[i]
        assert relative_error(last[i], expected) < 1e-12


def test_steps():
    h, u, start = draw(len(DELTA), 7), draw(2, 12, len(DELTA), seed=1), draw(2, len(DELTA), 7, seed=2)

    def run(h, Delta, u, start):
        def advance(state, u_k):
            y_k, state = allpass.step(h, Delta, state, u_k)
            return state, y_k

        state, y = jax.lax.scan(advance, start, jnp.swapaxes(u, 0, 1))
        return y, state

    with jax.enable_x64(True):
        y, state = jax.jit(run)(h, np.stack([DELTA, 1.3 * DELTA]), u, start)  # a step size for each sequence
    for i, Delta in enumerate([DELTA, 1.3 * DELTA]):
        outputs, states = loop(h, Delta, u[i], start[i])
        assert relative_error(y[:, i], outputs) < 1e-12
        assert relative_error(state[i], states[-1]) < 1e-12


@pytest.mark.slow
def test_gradients_of_the_kernel():
    """By central differences of the loop, also at step size 1, where a = 0."""
    h, w = draw(len(DELTA), 4), draw(len(DELTA), 40, seed=1)

    def loss(h, Delta):
        return (w * loop(h, Delta, impulse(40))[0].T).sum()

    with jax.enable_x64(True):
        f = jax.jit(jax.grad(lambda h, Delta: jnp.sum(w * allpass.kernel(h, Delta, 40)), argnums=(0, 1)))
        of_h, of_Delta = f(h, DELTA)
    for i in range(len(DELTA)):
        moved = np.zeros(len(DELTA))
        moved[i] = 1e-5 * DELTA[i]
        difference = (loss(h, DELTA + moved) - loss(h, DELTA - moved)) / (2e-5 * DELTA[i])
        assert of_Delta[i] == pytest.approx(difference, rel=1e-6)
        for j in range(4):
            moved_h = np.zeros_like(h)
            moved_h[i, j] = 1e-4
            difference = (loss(h + moved_h, DELTA) - loss(h - moved_h, DELTA)) / 2e-4
            assert of_h[i, j] == pytest.approx(difference, rel=1e-6)
