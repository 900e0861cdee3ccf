"""Products with a matrix, values and gradients, against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numerics import relative_error

from s5jax.models.one_hot import rows
from s5jax.ssm.product import ROWS, product


# One sequence, none of the sizes alike; several groups of sequences (3 of them at a time); axes in front; one sample.
@pytest.mark.parametrize("shape", [(7, 5), (9, ROWS // 2, 5), (2, 3, 11, 5), (1, 5), (4, 0, 5)])
def test_product_and_gradients(shape):
    rng = np.random.default_rng(0)
    x, W, g = rng.normal(size=shape), rng.normal(size=(5, 3)), rng.normal(size=(*shape[:-1], 3))
    y, vjp = jax.vjp(product, jnp.float32(x), jnp.float32(W))
    dx, dW = vjp(jnp.float32(g))
    for got, expected in ((y, x @ W), (dx, g @ W.T), (dW, x.reshape(-1, 5).T @ g.reshape(-1, 3))):
        assert got.shape == expected.shape
        assert relative_error(got, expected) < 1e-6


def test_rows_and_gradient():
    rng = np.random.default_rng(0)
    W, k, g = rng.normal(size=(4, 3)), np.array([[0, 3, 3, 1], [2, -1, 4, 0]]), rng.normal(size=(2, 4, 3))
    expected, dW = np.full((2, 4, 3), np.nan), np.zeros((4, 3))
    for at, row in np.ndenumerate(k):
        if 0 <= row < 4:
            expected[at] = W[row]
            dW[row] += g[at]
    y, vjp = jax.vjp(lambda W: rows(W, jnp.asarray(k)), jnp.float32(W))
    np.testing.assert_array_equal(y, np.float32(expected))
    assert relative_error(vjp(jnp.float32(g))[0], dW) < 1e-6


@pytest.mark.parametrize(("dtype", "size"), [("uint8", 256), ("int8", 128), ("uint8", 300)])
def test_rows_by_narrow_integers(dtype, size):
    W, k = jnp.arange(1.0, size + 1)[:, None], jnp.array([0, 2, 127], dtype)
    y, vjp = jax.vjp(lambda W: rows(W, k), W)
    np.testing.assert_array_equal(y[:, 0], [1, 3, 128])
    np.testing.assert_array_equal(np.flatnonzero(vjp(jnp.ones_like(y))[0]), [0, 2, 127])


@pytest.mark.parametrize("shape", [(9, ROWS // 2, 5), (2, 11, 5)])
def test_forward_mode_under_vmap(shape):
    rng = np.random.default_rng(0)
    x, dx = (rng.normal(size=(2, *shape)) for _ in range(2))
    W, dW = (rng.normal(size=(2, 5, 3)) for _ in range(2))
    k = rng.integers(-1, 6, (2, *shape[:-1]))
    args = jax.tree.map(jnp.float32, ((x, W), (dx, dW)))
    _, dy = jax.jit(jax.vmap(lambda primals, tangents: jax.jvp(product, primals, tangents)))(*args)
    for i in range(2):
        assert relative_error(dy[i], dx[i] @ W[i] + x[i] @ dW[i]) < 1e-6
    _, dy = jax.vmap(lambda W, dW, k: jax.jvp(lambda W: rows(W, k), (W,), (dW,)))(
        args[0][1], args[1][1], jnp.asarray(k)
    )
    for i in range(2):
        expected = np.where((k[i] >= 0)[..., None] & (k[i] < 5)[..., None], dW[i][np.clip(k[i], 0, 4)], 0)
        assert relative_error(dy[i], expected) < 1e-6


def test_a_batch_of_any_size():
    (B,) = jax.export.symbolic_shape("B")
    f = jax.jit(jax.grad(lambda W, x: jnp.sum(jnp.sin(product(x, W)))))
    shapes = (jax.ShapeDtypeStruct((5, 3), jnp.float32), jax.ShapeDtypeStruct((B, 7, 5), jnp.float32))
    x, W = jax.random.normal(jax.random.key(0), (4, 7, 5)), jnp.ones((5, 3))
    assert relative_error(jax.export.export(f)(*shapes).call(W, x), f(W, x)) < 1e-6
