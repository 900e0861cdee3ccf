import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from everyday import variants
from flax import nnx
from numerics import relative_error
from small_models import MIXERS, H, build, quick_key, split, values

from s5jax.models import heads
from s5jax.models.block import DropoutMasks, dropout_masks
from s5jax.models.options import Options
from s5jax.models.stack import Stack
from s5jax.ssm.sequence import valid_steps

L, B = 12, 4


# A block in NumPy, float64, given the mixer's output.


def gelu(x, exact=False):
    if exact:
        return x * (1 + scipy.special.erf(x / np.sqrt(2))) / 2
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def dense(layer, x):
    return x @ np.float64(layer.kernel[...]) + np.float64(layer.bias[...])


ACTIVATIONS, NORMS = ("none", "gelu", "full_glu", "half_glu1", "half_glu2"), ("batch", "layer", "rms", "scale", "none")
CASES = list(itertools.product(ACTIVATIONS, NORMS))


@variants(
    [  # each with and without an MLP, either gelu, residual or not
        ("none", "batch", True),
        ("gelu", "batch", False),
        ("full_glu", "layer", True),
        ("half_glu1", "none", True),
        ("half_glu1", "layer", False),
        ("half_glu2", "layer", False),
        ("none", "rms", True),
        ("gelu", "scale", False),
    ],
    activation=ACTIVATIONS,
    norm=NORMS,
    prenorm=[True, False],
)
def test_block_against_numpy(activation, norm, prenorm):
    """Outputs and running statistics, with an MLP or not, exact gelu or not, and so on."""
    case = CASES.index((activation, norm)) + prenorm
    mlp, exact, residual, epsilon = 2 * (case % 2), case % 4 < 2, case % 3 > 0, 1e-3 * (case % 2)
    inside = ("gelu", "silu", "relu")[case % 3]
    model = build(
        "leaky",
        depth=1,
        activation=activation,
        norm=norm,
        prenorm=prenorm,
        bn_momentum=0.9,
        gelu="exact" if exact else "tanh",
        mlp=mlp,
        mlp_activation=inside,
        residual=residual,
        norm_epsilon=epsilon,
    )
    (block,) = model.encoder.blocks
    norms = [] if norm == "none" else [block.norm, block.mlp_norm] if mlp else [block.norm]
    for i, layer in enumerate(norms):
        layer.scale[...] = values(*layer.scale.shape, seed=5 + i) + 1
        if norm in ("batch", "layer"):
            layer.bias[...] = values(H, seed=7 + i)
        if norm == "batch":
            layer.mean[...], layer.var[...] = jnp.zeros(H), jnp.ones(H)
    x = values(B, L, H)
    seen = []  # by the norms

    def normalize(layer, x):
        if norm == "none":
            return x
        seen.append(x)
        if norm in ("rms", "scale"):
            x = x / np.sqrt((x**2).mean(2, keepdims=True) + (epsilon or 1e-5))
            return x * np.float64(layer.scale[...])
        axes = (0, 1) if norm == "batch" else (2,)
        mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
        x = (x - mean) / np.sqrt(var + (epsilon or (1e-5 if norm == "batch" else 1e-6)))
        return x * np.float64(layer.scale[...]) + np.float64(layer.bias[...])

    inner = normalize(block.norm, np.float64(x)) if prenorm else np.float64(x)
    z = np.float64(block.mixer.apply(block.params, jnp.asarray(inner, jnp.float32), block.mixer_options)[0])
    g = gelu(z, exact)
    expected = {
        "none": lambda: z,
        "gelu": lambda: g,
        "full_glu": lambda: dense(block.out1, g) * sigmoid(dense(block.out2, g)),
        "half_glu1": lambda: g * sigmoid(dense(block.out2, g)),
        "half_glu2": lambda: z * sigmoid(dense(block.out2, g)),
    }[activation]()
    expected = residual * np.float64(x) + expected
    expected = expected if prenorm else normalize(block.norm, expected)
    if mlp:
        inner = normalize(block.mlp_norm, expected) if prenorm else expected
        hidden = dense(block.mlp_in, inner)
        activated = {
            "gelu": lambda: gelu(hidden, exact),
            "silu": lambda: hidden * sigmoid(hidden),
            "relu": lambda: np.maximum(hidden, 0),
        }
        expected = expected + dense(block.mlp_out, activated[inside]())
        expected = expected if prenorm else normalize(block.mlp_norm, expected)

    assert relative_error(block(x, train=True)[0], expected) < 1e-5
    if norm == "batch":
        for layer, normalized in zip(norms, seen, strict=True):
            mean, var = normalized.mean((0, 1)), normalized.var((0, 1))
            np.testing.assert_allclose(layer.mean[...], 0.1 * mean, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(layer.var[...], 0.9 + 0.1 * var, rtol=1e-4)


# Each of them with every other takes long.
QUICK = {("pair", "embedding", "batch", "mean")}


@pytest.mark.parametrize(
    ("head", "encoder", "norm", "pooling"),
    [
        pytest.param(*case, marks=[] if case in QUICK else pytest.mark.slow)
        for case in itertools.product(
            ("sequence", "pair"), ("dense", "one_hot", "embedding"), ("batch", "layer"), ("mean", "last")
        )
    ],
)
def test_garbage_in_the_padding_changes_nothing(head, norm, pooling, encoder):
    pair = (2,) if head == "pair" else ()
    lengths = jnp.asarray(np.random.default_rng(1).integers(1, L + 1, (B, *pair)), jnp.int32).at[0].set(1)
    if encoder == "dense":
        inputs, garbage, size = values(B, *pair, L, 2), jnp.full((B, *pair, L, 2), jnp.nan), 2
    else:
        inputs = jnp.asarray(np.random.default_rng(2).integers(0, 5, (B, *pair, L)), jnp.int32)
        garbage, size = inputs[::-1] + 1, 6
    valid = valid_steps(lengths, L)
    dirty = jnp.where(valid[..., None] if encoder == "dense" else valid, inputs, garbage)
    model = build("s5-two", head=head, input_size=size, norm=norm, pooling=pooling, encoder=encoder, dropout=0.2)
    graphdef, params, stats = split(model)

    @jax.jit
    def everything(inputs):
        def loss(params):
            model = nnx.merge(graphdef, params, stats)
            logits = model(inputs, lengths, train=True, key=quick_key(3))
            return jnp.sum(logits * values(B, 3, seed=4)), (logits, nnx.state(model, nnx.BatchStat))

        return jax.value_and_grad(loss, has_aux=True)(params)

    clean, spoiled = everything(inputs), everything(dirty)
    assert not np.array_equal(inputs, dirty, equal_nan=True)
    jax.tree.map(np.testing.assert_array_equal, clean, spoiled)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(clean))


@variants([("last", "s5-two")], pooling=["mean", "last"], mixer=["s5", "s5-two"])
def test_padded_statistics_and_outputs_are_those_of_the_sequences_alone(pooling, mixer):
    """One sequence, padded, against the same one cut to its length: nothing of the padding is counted."""
    cut, padded = (build(mixer, pooling=pooling) for _ in range(2))
    run = nnx.jit(lambda model, *inputs: model(*inputs, train=True))
    inputs = values(1, L, 2)
    logits = run(padded, inputs, jnp.array([7]))
    assert relative_error(logits, run(cut, inputs[:, :7])) < 1e-5
    for one, other in zip(
        jax.tree.leaves(nnx.state(padded, nnx.BatchStat)),
        jax.tree.leaves(nnx.state(cut, nnx.BatchStat)),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def test_as_published_only_pooling_looks_at_lengths():
    model = build("s5-two", mask_padding=False)
    inputs, lengths = np.asarray(values(B, L, 2)), np.array([12, 3, 5, 1])
    changed = inputs.copy()
    changed[1, 3:] += 1.0
    run = nnx.jit(lambda model, x, train: model(x, jnp.asarray(lengths), train=train), static_argnames="train")
    in_two = [run(model, x, train=False)[1] for x in (inputs, changed)]
    assert not np.allclose(*in_two, atol=1e-4)  # by the backward scan
    causal = build("s5", mask_padding=False)
    np.testing.assert_allclose(*(run(causal, x, train=False) for x in (inputs, changed)), rtol=1e-6)
    causal_train = [run(causal, x, train=True) for x in (inputs, changed)]  # by the batch statistics
    assert not np.allclose(*causal_train, atol=1e-4)


def test_lengths_of_a_narrow_integer_type():
    assert valid_steps(jnp.array([100], jnp.int8), 300).sum() == 100
    lengths = jnp.array([3, 12, 1, 7])
    model, inputs = build("s5"), values(B, L, 2)
    run = jax.jit(model)
    np.testing.assert_array_equal(run(inputs, lengths.astype(jnp.uint8)), run(inputs, lengths))


def test_pooling():
    x, lengths = values(3, 5, 2), jnp.array([5, 1, 3])
    for i, n in enumerate([5, 1, 3]):
        np.testing.assert_allclose(heads.pool(x, "mean", valid_steps(lengths, 5))[i], x[i, :n].mean(0), rtol=1e-5)
        np.testing.assert_array_equal(heads.pool(x, "last", valid_steps(lengths, 5))[i], x[i, n - 1])
    np.testing.assert_allclose(heads.pool(x, "mean"), x.mean(1), rtol=1e-6)
    np.testing.assert_array_equal(heads.pool(x, "last"), x[:, -1])
    nothing = jnp.zeros((3, 5), bool)
    assert not heads.pool(x, "mean", nothing).any()
    assert not heads.pool(x, "last", nothing).any()


def test_one_hot_is_the_row_of_the_kernel():
    tokens = jnp.array([[1, 0, 4]])
    options = Options(depth=1, d_model=H, encoder="one_hot")
    model = Stack(options, MIXERS, 5, length=3, rngs=nnx.Rngs(0))
    # With a block that adds nothing the stack's output is its encoder's.
    model.layers[0].out2.bias[...] = jnp.full((1, H), -1e9)
    kernel, bias = model.encoder.kernel[...], model.encoder.bias[...]
    np.testing.assert_allclose(model(tokens)[0][0], kernel[tokens[0]] + bias[None], rtol=1e-6)


def test_dropout_is_tied_over_time_and_needs_a_key():
    model = build("leaky", depth=1, dropout=0.5, norm="layer")
    dropped = dropout_masks(model.encoder.options, B, quick_key(0), 0.5, inside=False)
    ones = DropoutMasks(dropped.kept[0], dropped.rate[0], None)(jnp.ones((B, L, H)), 0)
    assert set(np.unique(ones)) == {0.0, 2.0}
    np.testing.assert_array_equal(ones, np.broadcast_to(ones[:, :1], ones.shape))
    masks = dropout_masks(Options(depth=4, d_model=500), 10, jax.random.key(0), 0.1, inside=False).kept
    assert abs(masks.mean() - 0.9) < 5 * (0.09 / masks.size) ** 0.5
    assert len(np.unique(masks.reshape(-1, 500), axis=0)) == 4 * 2 * 10  # each block, place and sequence has its own
    inputs = values(B, L, 2)
    train, read = jax.jit(lambda key: model(inputs, train=True, key=key)), jax.jit(model)
    with pytest.raises(ValueError, match=r"training with dropout needs a key"):
        train(None)
    one, same, other = (train(quick_key(k)) for k in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)
    # The probability may be given with the key, whatever that of the options is.
    key = quick_key(1)
    assert relative_error(read(inputs, key=key, dropout=0.0), read(inputs)) < 1e-6
    without = build("leaky", depth=1, norm="layer")
    assert relative_error(jax.jit(without)(inputs, key=key, dropout=0.5), read(inputs, key=key)) < 1e-6


def test_pair_head_against_numpy():
    model = build("s5-two", head="pair", norm="layer", depth=1)
    inputs, lengths = values(B, 2, L, 2), jnp.asarray([[12, 3], [1, 12], [5, 5], [7, 2]])
    one_stack = Stack(model.encoder.options, MIXERS, 2, length=L, rngs=nnx.Rngs(0))
    nnx.update(one_stack, nnx.state(model.encoder))
    read = jax.jit(lambda inputs, lengths: one_stack(inputs, heads.Sequences(lengths)))

    def document(i):
        features, _ = read(inputs[:, i], lengths[:, i])
        return np.stack([np.float64(x)[:n].mean(0) for x, n in zip(features, lengths[:, i], strict=True)])

    e1, e2 = document(0), document(1)
    hidden = gelu(dense(model.decoder.layer1, np.concatenate([e1, e2, e1 - e2, e1 * e2], -1)))
    assert relative_error(jax.jit(model)(inputs, lengths), dense(model.decoder.layer2, hidden)) < 1e-5


def test_step_head_against_numpy():
    model = build("s5", head="step", norm="layer")
    inputs, lengths = values(B, L, 2), jnp.asarray([12, 3, 5, 1])
    features, _ = jax.jit(lambda inputs: model.encoder(inputs, heads.Sequences(lengths)))(inputs)
    outputs = jax.jit(model)(inputs, lengths)
    assert outputs.shape == (B, L, 3)
    assert relative_error(outputs, dense(model.decoder, np.float64(features))) < 1e-5


@pytest.mark.parametrize(
    "options",
    [
        {"depth": 0},
        {"d_model": 0},
        {"dropout": 1.0},
        {"bn_momentum": -0.1},
        {"norm_epsilon": -1.0},
        {"mlp": -1},
        {"pattern": ()},
        {"pattern": ("s5", "s4"), "depth": 1},
    ],
)
def test_impossible_options(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Options(**options)


@pytest.mark.slow
def test_a_model_that_is_only_read_can_be_transformed_as_it_is():
    model, inputs = build("leaky"), values(B, L, 2)
    expected = model(inputs)
    assert relative_error(jax.jit(model)(inputs), expected) < 1e-6
    assert relative_error(jax.vmap(lambda x: model(x[None])[0])(inputs), expected) < 1e-5
    assert np.isfinite(jax.grad(lambda x: model(x)[0, 0])(inputs)).all()
