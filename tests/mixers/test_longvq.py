"""LongVQ's codebook; the mixer itself is compared in the contract."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from numerics import relative_error

from s5jax.mixers import longvq
from s5jax.models.model import Model
from s5jax.models.options import Options
from s5jax.ssm import vq_attention

SMALL = {"key_size": 4, "ema_size": 2, "chunk": 3, "codebook_size": 6}


def test_codes_move_to_the_keys_that_are_nearest():
    rng = np.random.default_rng(0)
    codes, weight, k = rng.normal(size=(6, 4)), rng.uniform(0.5, 2, 6), rng.normal(size=(3, 20, 4))
    codes[5] = 9  # far from all keys
    counted = rng.random((3, 20)) < 0.7
    k[~counted] = np.nan
    sums, weights = 0.9 * codes * weight[:, None], 0.9 * weight
    for key in k[counted]:
        nearest = ((key - codes) ** 2).sum(-1).argmin()
        sums[nearest] += 0.1 * key
        weights[nearest] += 0.1
    arrays = (jnp.asarray(x, jnp.float32) for x in (codes, weight, k))
    new, new_weight = vq_attention.moved(*arrays, jnp.asarray(counted), 0.9)
    assert relative_error(new, sums / weights[:, None]) < 1e-6 and relative_error(new_weight, weights) < 1e-6
    np.testing.assert_array_equal(new[5], codes[5].astype(np.float32))


def test_a_code_without_keys_stays_for_ever():
    codes, weight = jnp.array([[0.0, 0.0], [5.0, 5.0]]), jnp.ones(2)
    for _ in range(3):
        codes, weight = vq_attention.moved(codes, weight * 1e-30, jnp.zeros((1, 4, 2)) + 0.1, None, 0.5)
    assert np.isfinite(codes).all() and relative_error(codes[1], np.array([5.0, 5.0])) < 1e-6


def test_training_moves_the_codebook_and_evaluation_does_not():
    options = Options(depth=2, d_model=8, pattern=("longvq",), norm="layer")
    model = Model(
        options, {"longvq": ("longvq", longvq.Options(**SMALL, decay=0.1))}, 2, 3, length=11, rngs=nnx.Rngs(0)
    )
    x = jax.random.normal(jax.random.key(0), (4, 11, 2))
    model(x)
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))
    assert before["encoder"]["layers"][0]["buffers"]["codes"].shape == (2, 6, 4)
    outputs = model(x)
    model(x, lengths=jnp.array([11, 3, 5, 7]), train=True)
    after = nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))
    moved = jax.tree.map(relative_error, after, before)
    assert min(jax.tree.leaves(moved)) > 1e-4
    assert not np.array_equal(model(x), outputs)
    state = model.init_state(4)
    for k in range(11):
        stepped, state = model.step(state, x[:, k])
    assert relative_error(stepped, model(x)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("two", [False, True])
def test_many_blocks_equal_one(two):
    """The sums of far samples, over many blocks of `chunk` samples, against all pairs."""
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.normal(size=(2, 41, n)), jnp.float32) for n in (4, 4, 3))
    codes, near = jnp.asarray(rng.normal(size=(6, 4)), jnp.float32), jnp.asarray(rng.normal(size=7), jnp.float32)
    given = vq_attention.Sequences(jnp.array([41, 30]), None, jnp.asarray(rng.random((2, 41)) < 0.05))
    every = jnp.pad(near, (37, 37))  # zero for distances of 4 to 40
    for sequences in (vq_attention.Sequences(), given):
        few, many = (vq_attention.attend(q, k, v, b, codes, sequences, causal=not two)[0] for b in (every, near))
        assert relative_error(many, few) < 1e-5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"codebook_size": 0}, "codebook_size must lie in 1..65536, got 0"),
        ({"chunk": 0}, "chunk must lie in 1..1048576, got 0"),
        ({"decay": 1.0}, r"decay must lie in \[0, 1\), got 1.0"),
        ({"attention": "laplace"}, "attention on quantised keys must be softmax, got laplace"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        longvq.Options(**options)
