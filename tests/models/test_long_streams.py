"""Means over long streams do not drift: within 1e-5 of the same model in float64, which reads the whole at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from small_models import build, double_precision

from s5jax.mixers import s5
from s5jax.models.model import Model
from s5jax.models.options import Options
from s5jax.models.recurrent import Pooled
from s5jax.ssm.sequence import Sequences

whole = nnx.jit(lambda model, inputs: model(inputs))
rollout = nnx.jit(lambda model, state, inputs: model.rollout(state, inputs))
prefill = nnx.jit(lambda model, state, inputs: model.prefill(state, inputs))


def in_double_precision(model, inputs):
    """The outputs after all samples."""
    with double_precision():
        graphdef, arrays = nnx.split(model)
        exact = nnx.merge(graphdef, jax.tree.map(lambda x: x.astype(np.result_type(x.dtype, np.float64)), arrays))
        return np.asarray(whole(exact, jnp.asarray(inputs, np.float64)))


def one_layer():
    options = {"s5": ("s5", s5.Options(state_size=4))}
    return Model(Options(depth=1, d_model=4, norm="layer"), options, 1, 2, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("n", [100_000, pytest.param(4_000_000, marks=pytest.mark.slow)])
def test_a_constant(n):
    """Before sums were compensated: 7e-4 off after 1e5 samples, 0.05 after 4e6."""
    model, inputs = one_layer(), np.full((1, n, 1), 0.7, np.float32)
    after_each, end = rollout(model, model.init_state(1), inputs)
    state = model.init_state(1)
    for piece in np.split(inputs, 100, axis=1):
        outputs, state = prefill(model, state, piece)
    expected = in_double_precision(model, inputs)
    for actual in (after_each[:, -1], outputs):
        np.testing.assert_allclose(actual, expected, atol=1e-5, rtol=0)
    early = n // 10 + 1
    expected_early = in_double_precision(model, inputs[:, :early])
    np.testing.assert_allclose(after_each[:, early - 1], expected_early, atol=1e-5, rtol=0)
    assert end.head.total[0, -1] == state.head.total[0, -1] == n
    if n == 4_000_000:  # by an earlier version of this code, in float64
        np.testing.assert_allclose(expected[0], [1.084690, -0.150489], atol=1e-6, rtol=0)


@pytest.mark.slow
def test_sample_by_sample():
    n, model, sample = 100_000, one_layer(), np.full((1, 1), 0.7, np.float32)
    graphdef, arrays = nnx.split(model)
    step = jax.jit(lambda arrays, state, cells: nnx.merge(graphdef, arrays).step(state, sample, cells))
    state, cells = model.init_state(1), model.discretize()
    for _ in range(n):
        outputs, state = step(arrays, state, cells)
    expected = in_double_precision(model, np.full((1, n, 1), 0.7))
    np.testing.assert_allclose(outputs, expected, atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("pattern", [("s5",), ("s4d",), ("lru",), ("s5", "lru"), ("dss",)])
@pytest.mark.parametrize("head", ["sequence", "pair"])
def test_noise_with_a_mean(pattern, head):
    n, model = 200_000, build(*pattern, head=head, norm="layer")
    inputs = np.random.default_rng(0).normal(3, 1, (2, *([2] if head == "pair" else []), n, 2)).astype(np.float32)
    state = model.init_state(2)
    for piece in np.split(inputs, 20, axis=-2):
        outputs, state = prefill(model, state, piece)
    expected = in_double_precision(model, inputs)
    np.testing.assert_allclose(outputs, expected, atol=1e-5 * np.abs(expected).max(), rtol=0)


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_more_samples_than_an_int32_counts(pooling):
    """After 3e9 samples whose mean is 2, a thousand ones."""
    n, more = 3 * 10**9, 1000
    state = Pooled(jnp.array([[2.0 * n, 2.0 * n, n]]), jnp.zeros((1, 3)))
    for _ in range(3):
        read, state = state.read(jnp.ones((1, more, 2)), Sequences(), pooling)
    expected = (2 * n + 3 * more) / (n + 3 * more) if pooling == "mean" else 1.0
    np.testing.assert_allclose(read, np.full((1, 2), expected), rtol=2e-7)
