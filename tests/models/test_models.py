import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from numerics import relative_error

from s5jax.models import layers, stack
from s5jax.models.classifier import Classifier
from s5jax.models.retrieval import Retrieval
from s5jax.ssm import s5, scan

H, L, B = 6, 12, 4


def build(kind=Classifier, input_size=2, seed=0, bidirectional=True, **options):
    options = layers.Options(**{"depth": 2, "d_model": H, **options})
    ssm = ("s5", s5.Options(state_size=4, bidirectional=bidirectional, scan_method="sequential", dt_min=0.05))
    return kind(options, ssm, input_size, 3, rngs=nnx.Rngs(seed))


def values(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


# A block in NumPy, float64, given the SSM's output.


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def dense(layer, x):
    return x @ np.float64(layer.kernel[...]) + np.float64(layer.bias[...])


@pytest.mark.parametrize("prenorm", [True, False])
@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("activation", ["gelu", "full_glu", "half_glu1", "half_glu2"])
def test_block_against_numpy(activation, norm, prenorm):
    model = build(depth=1, activation=activation, norm=norm, prenorm=prenorm, bn_momentum=0.9)
    (block,) = model.encoder.blocks
    block.norm.scale[...] = values(H, seed=5) + 1
    block.norm.bias[...] = values(H, seed=6)
    x = values(B, L, H)

    def normalize(x):
        axes = (0, 1) if norm == "batch" else (2,)
        mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
        x = (x - mean) / np.sqrt(var + (1e-5 if norm == "batch" else 1e-6))
        return x * np.float64(block.norm.scale[...]) + np.float64(block.norm.bias[...])

    inner = normalize(np.float64(x)) if prenorm else np.float64(x)
    z = np.float64(block.seq(jnp.asarray(inner, jnp.float32), None))
    g = gelu(z)
    expected = {
        "gelu": lambda: g,
        "full_glu": lambda: dense(block.out1, g) * sigmoid(dense(block.out2, g)),
        "half_glu1": lambda: g * sigmoid(dense(block.out2, g)),
        "half_glu2": lambda: z * sigmoid(dense(block.out2, g)),
    }[activation]()
    expected = np.float64(x) + expected
    normalized = np.float64(x) if prenorm else expected
    expected = expected if prenorm else normalize(expected)

    assert relative_error(block(x, None, True, None), expected) < 1e-5
    if norm == "batch":
        np.testing.assert_allclose(block.norm.mean[...], 0.1 * normalized.mean((0, 1)), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(block.norm.var[...], 0.9 + 0.1 * normalized.var((0, 1)), rtol=1e-4)


# Each of them with every other takes long.
QUICK = {
    (Classifier, "dense", "batch", "mean"),
    (Classifier, "one_hot", "layer", "last"),
    (Retrieval, "embedding", "batch", "mean"),
}


@pytest.mark.parametrize(
    ("kind", "encoder", "norm", "pooling"),
    [
        pytest.param(*case, marks=[] if case in QUICK else pytest.mark.slow)
        for case in itertools.product(
            (Classifier, Retrieval), ("dense", "one_hot", "embedding"), ("batch", "layer"), ("mean", "last")
        )
    ],
)
def test_garbage_in_the_padding_changes_nothing(kind, norm, pooling, encoder):
    pair = (2,) if kind is Retrieval else ()
    lengths = jnp.asarray(np.random.default_rng(1).integers(1, L + 1, (B, *pair)), jnp.int32).at[0].set(1)
    if encoder == "dense":
        inputs, garbage, size = values(B, *pair, L, 2), jnp.full((B, *pair, L, 2), jnp.nan), 2
    else:
        inputs = jnp.asarray(np.random.default_rng(2).integers(0, 5, (B, *pair, L)), jnp.int32)
        garbage, size = inputs[::-1] + 1, 6
    valid = scan.valid_steps(lengths, L)
    dirty = jnp.where(valid[..., None] if encoder == "dense" else valid, inputs, garbage)
    model = build(kind, size, norm=norm, pooling=pooling, encoder=encoder, dropout=0.2)
    graphdef, *split = nnx.split(model, nnx.Param, nnx.BatchStat)
    params, stats = map(nnx.to_pure_dict, split)

    @jax.jit
    def everything(inputs):
        def loss(params):
            model = nnx.merge(graphdef, params, stats)
            logits = model(inputs, lengths, train=True, key=jax.random.key(3))
            return jnp.sum(logits * values(B, 3, seed=4)), (logits, nnx.state(model, nnx.BatchStat))

        return jax.value_and_grad(loss, has_aux=True)(params)

    clean, spoiled = everything(inputs), everything(dirty)
    assert not np.array_equal(inputs, dirty, equal_nan=True)
    jax.tree.map(np.testing.assert_array_equal, clean, spoiled)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(clean))


def test_padded_statistics_and_outputs_are_those_of_the_sequences_alone():
    """One sequence, padded, against the same one cut to its length: nothing of the padding is counted."""
    for pooling in ("mean", "last"):
        for bidirectional in (True, False):
            cut, padded = (build(pooling=pooling, bidirectional=bidirectional) for _ in range(2))
            inputs = values(1, L, 2)
            logits = padded(inputs, jnp.array([7]), train=True)
            assert relative_error(logits, cut(inputs[:, :7], train=True)) < 1e-5
            for one, other in zip(
                jax.tree.leaves(nnx.state(padded, nnx.BatchStat)),
                jax.tree.leaves(nnx.state(cut, nnx.BatchStat)),
                strict=True,
            ):
                np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def test_as_published_only_pooling_looks_at_lengths():
    model = build(mask_padding=False)
    inputs, lengths = values(B, L, 2), jnp.array([12, 3, 5, 1])
    changed = inputs.at[1, 3:].add(1.0)
    assert not np.allclose(model(inputs, lengths)[1], model(changed, lengths)[1], atol=1e-4)  # by the backward scan
    causal = build(mask_padding=False, bidirectional=False)
    np.testing.assert_allclose(causal(inputs, lengths), causal(changed, lengths), rtol=1e-6)
    causal_train = [causal(x, lengths, train=True) for x in (inputs, changed)]  # by the batch statistics
    assert not np.allclose(*causal_train, atol=1e-4)


def test_lengths_of_a_narrow_integer_type():
    assert scan.valid_steps(jnp.array([100], jnp.int8), 300).sum() == 100


def test_pooling():
    x, lengths = values(3, 5, 2), jnp.array([5, 1, 3])
    for i, n in enumerate([5, 1, 3]):
        np.testing.assert_allclose(layers.pool(x, lengths, "mean")[i], x[i, :n].mean(0), rtol=1e-5)
        np.testing.assert_array_equal(layers.pool(x, lengths, "last")[i], x[i, n - 1])
    np.testing.assert_allclose(layers.pool(x, None, "mean"), x.mean(1), rtol=1e-6)
    np.testing.assert_array_equal(layers.pool(x, None, "last"), x[:, -1])


def test_one_hot_is_the_row_of_the_kernel():
    tokens = jnp.array([[1, 0, 4]])
    options = layers.Options(depth=1, d_model=H, encoder="one_hot")
    model = stack.Stack(options, ("s5", s5.Options(state_size=2)), 5, rngs=nnx.Rngs(0))
    # With a block that adds nothing the stack's output is its encoder's.
    model.layers.out2.bias[...] = jnp.full((1, H), -1e9)
    kernel, bias = model.encoder.kernel[...], model.encoder.bias[...]
    np.testing.assert_allclose(model(tokens)[0], kernel[tokens[0]] + bias[None], rtol=1e-6)


def test_dropout_is_tied_over_time_and_needs_a_key():
    model = build(depth=1, dropout=0.5, norm="layer")
    kept = layers.dropout_masks(model.encoder.options, jax.random.key(0), B)
    ones = model.encoder.blocks[0]._drop(jnp.ones((B, L, H)), kept[0, 0])
    assert set(np.unique(ones)) == {0.0, 2.0}
    np.testing.assert_array_equal(ones, np.broadcast_to(ones[:, :1], ones.shape))
    masks = layers.dropout_masks(layers.Options(depth=4, d_model=500, dropout=0.1), jax.random.key(0), 10)
    assert abs(masks.mean() - 0.9) < 5 * (0.09 / masks.size) ** 0.5
    assert len(np.unique(masks.reshape(-1, 500), axis=0)) == 4 * 2 * 10  # each block, place and sequence has its own
    inputs = values(B, L, 2)
    np.testing.assert_array_equal(model(inputs, train=True), model(inputs, train=True))
    one, same, other = (model(inputs, train=True, key=jax.random.key(k)) for k in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)


def test_retrieval_head_against_numpy():
    model = build(Retrieval, norm="layer", depth=1)
    inputs, lengths = values(B, 2, L, 2), jnp.asarray([[12, 3], [1, 12], [5, 5], [7, 2]])
    documents = [
        layers.pool(model.encoder(inputs[:, i], lengths[:, i]), lengths[:, i], "mean").astype(jnp.float32)
        for i in (0, 1)
    ]
    e1, e2 = map(np.float64, documents)
    hidden = gelu(dense(model.decoder.layer1, np.concatenate([e1, e2, e1 - e2, e1 * e2], -1)))
    assert relative_error(model(inputs, lengths), dense(model.decoder.layer2, hidden)) < 1e-5


@pytest.mark.parametrize("options", [{"depth": 0}, {"d_model": 0}, {"dropout": 1.0}, {"bn_momentum": -0.1}])
def test_impossible_options(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        layers.Options(**options)


def test_a_model_that_is_only_read_can_be_transformed_as_it_is():
    model, inputs = build(), values(B, L, 2)
    expected = model(inputs)
    assert relative_error(jax.jit(model)(inputs), expected) < 1e-6
    assert relative_error(jax.vmap(lambda x: model(x[None])[0])(inputs), expected) < 1e-5
    assert np.isfinite(jax.grad(lambda x: model(x)[0, 0])(inputs)).all()
