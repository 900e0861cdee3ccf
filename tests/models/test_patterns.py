"""Stacks whose blocks have different mixers: scanned, unrolled, block by block, exported, over several seeds."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from flax import nnx
from numerics import relative_error
from small_models import build, differentiated, double_precision, quick_key, split, values

from benchmarks.names import per_layer, stacked
from s5jax.models.block import dropout_masks
from s5jax.ssm.sequence import Sequences

L, B = 11, 3
PATTERNS = [
    (("noisy", "attention"), 3),  # the last repetition is incomplete
    pytest.param(("s5", "attention"), 3, marks=pytest.mark.slow),
    pytest.param(("s5", "attention"), 4, marks=pytest.mark.slow),
    pytest.param(("s5", "attention"), 5, marks=pytest.mark.slow),
    pytest.param(("s5", "s4d", "lru"), 5, marks=pytest.mark.slow),
]


def close(actual, expected, tolerance=1e-4):
    worst = jax.tree.map(relative_error, actual, expected)
    assert max(jax.tree.leaves(worst)) < tolerance, worst


@pytest.mark.parametrize(("pattern", "depth"), PATTERNS)
def test_scanned_unrolled_and_block_by_block(pattern, depth):
    options = {"depth": depth, "head": "step", "dropout": 0.2}
    model, unrolled = build(*pattern, **options), build(*pattern, **options, unroll=True)
    jax.tree.map(np.testing.assert_array_equal, split(model)[1:], split(unrolled)[1:])
    lengths = [len(jax.tree.leaves(nnx.state(layer))[0]) for layer in model.encoder.layers]
    assert lengths == [len(range(place, depth, len(pattern))) for place in range(len(pattern))]

    graphdef, params, stats = split(model)
    inputs, weights, key = values(B, L, 2), values(B, L, 3, seed=1), quick_key(2)
    arguments = {"lengths": jnp.array([L, 4, 9]), "key": key}
    scanned = differentiated(model, train=True)(params, inputs, weights, arguments)
    close(differentiated(unrolled, train=True)(params, inputs, weights, arguments), scanned)

    def one_by_one(params, inputs):
        model = nnx.merge(graphdef, params, stats)
        dropped = dropout_masks(
            model.encoder.options, B, key, 0.2, inside={"attention", "noisy"} & set(pattern) != set()
        )
        sequences, stats_after = Sequences(arguments["lengths"]), []
        x = model.encoder.encode(inputs, sequences.counted(L))
        for i, block in enumerate(model.encoder.blocks):
            assert block.mixer_name.rpartition(".")[2] == pattern[i % len(pattern)]
            x, _ = block(x, sequences, train=True, dropout=jax.tree.map(lambda a, i=i: a[i], dropped))
            stats_after.append(nnx.to_pure_dict(nnx.state(block, nnx.BatchStat)))
        outputs = model.decoder(x)
        return jnp.sum(outputs * weights), (outputs, stats_after)

    (grads, inputs_grad), (outputs, stats_after) = jax.jit(jax.grad(one_by_one, (0, 1), has_aux=True))(params, inputs)
    close(scanned["outputs"], outputs)
    close(scanned["params"], grads)
    close(scanned["inputs"], inputs_grad)
    after = per_layer(scanned["stats"])["encoder"]
    close([after[f"layers_{i}"] for i in range(depth)], stats_after)


def test_names_of_the_blocks():
    model = build("s5", "attention", depth=5)
    _, params, stats = split(model)
    for tree in (params, stats):
        named = per_layer(tree)
        assert {name for name in named["encoder"] if "layers" in name} == {f"layers_{i}" for i in range(5)}
        jax.tree.map(np.testing.assert_array_equal, stacked(named, 2), tree)
    for i, block in enumerate(model.encoder.blocks):
        jax.tree.map(np.testing.assert_array_equal, per_layer(params)["encoder"][f"layers_{i}"]["seq"], block.params)


@pytest.mark.slow  # every day a training step of three seeds, in test_hyper
def test_several_seeds_at_once():
    models = [build("s5", "attention", seed=seed) for seed in range(3)]
    others = values(B, L, 2), values(B, 3, seed=1), {"lengths": jnp.array([L, 4, 9])}
    gradients = differentiated(models[0], train=True)
    params = [split(model)[1] for model in models]
    joined = jax.tree.map(lambda *x: jnp.stack(x), *params)
    together = jax.vmap(gradients, in_axes=(0, None, None, None))(joined, *others)
    for i in range(3):
        close(jax.tree.map(lambda x, i=i: x[i], together), gradients(params[i], *others))
    assert relative_error(together["outputs"][0], together["outputs"][1]) > 0.1


@pytest.mark.slow
@pytest.mark.parametrize(("pattern", "unroll"), [(("s5",), False), (("s5",), True), (("s5", "lru"), False)])
def test_what_is_computed_again_takes_no_memory(pattern, unroll):
    if unroll and jax.__version_info__ < (0, 12):
        pytest.skip("on a CPU, XLA of jax 0.10 merges what is computed again with what was computed first")
    scratch = {}
    for remat in ("none", "pointwise", "full"):
        model = build(*pattern, depth=6, d_model=32, activation="full_glu", remat=remat, unroll=unroll)
        arguments = split(model)[1], values(8, 512, 2), values(8, 3), {}
        compiled = differentiated(model, train=True).lower(*arguments).compile()
        scratch[remat] = compiled.memory_analysis().temp_size_in_bytes
    assert scratch["full"] < 0.8 * scratch["pointwise"] < 0.7 * scratch["none"], scratch


@pytest.mark.slow  # every day each mixer and a block
def test_double_precision():
    model = build("s5", "attention", "lru", depth=3, mlp=1)
    graphdef, *trees = split(model)
    inputs, lengths = np.float64(values(B, L, 2)), np.array([L, 4, 9])
    single = model(jnp.asarray(inputs, jnp.float32), jnp.asarray(lengths))
    with double_precision():
        params, stats = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), trees)
        whole, gradients, state, after_each = jax.jit(everything, static_argnums=0)(graphdef, params, stats, inputs)
        assert {str(x.dtype) for x in jax.tree.leaves((whole, gradients))} == {"float64"}
        assert {str(x.dtype) for x in jax.tree.leaves(state)} <= {"float64", "complex128", "int32", "bool"}
        assert relative_error(after_each[np.arange(B), lengths - 1], whole) < 1e-10
    assert relative_error(single, whole) < 1e-5


def everything(graphdef, params, stats, inputs):
    def loss(params):
        model = nnx.merge(graphdef, params, stats)
        outputs = model(inputs, jnp.array([L, 4, 9]))
        return outputs.sum(), outputs

    gradients, outputs = jax.grad(loss, has_aux=True)(params)
    model = nnx.merge(graphdef, params, stats)
    after_each, state = model.rollout(model.init_state(B, max_length=L), inputs)
    return outputs, gradients, state, after_each


@pytest.mark.parametrize(
    ("pattern", "depth", "head"),
    [
        (("s5", "attention"), 3, "sequence"),
        pytest.param(("s5", "attention", "lru"), 4, "sequence", marks=pytest.mark.slow),
        pytest.param(("s5", "attention", "lru"), 4, "pair", marks=pytest.mark.slow),
    ],
)
def test_export_with_a_symbolic_batch(pattern, depth, head):
    model = build(*pattern, depth=depth, head=head)
    pair = (2,) if head == "pair" else ()
    inputs, lengths = (
        values(B, *pair, L, 2),
        jnp.broadcast_to(jnp.array([L, 4, 9]).reshape(-1, *pair and (1,)), (B, *pair)),
    )
    (b,) = jax.export.symbolic_shape("b")
    shapes = [jax.ShapeDtypeStruct((b, *x.shape[1:]), x.dtype) for x in (inputs, lengths)]
    # Annotations of shapes that broadcast do not understand symbolic sizes; users do not have them checked.
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        exported = jax.export.export(jax.jit(lambda inputs, lengths: model(inputs, lengths)))(*shapes)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    expected = jax.jit(lambda inputs, lengths: model(inputs, lengths))(inputs, lengths)
    for n in (1, B):
        assert relative_error(exported.call(inputs[:n], lengths[:n]), expected[:n]) < 1e-6
