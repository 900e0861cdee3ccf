"""The baseline of the benchmarks computes what s5jax computes: the comparison is one of speed."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from numerics import relative_error

from benchmarks import baseline, cases, measure
from benchmarks.names import per_layer, stacked
from s5jax.mixers import s4, s4d, s5
from s5jax.models.model import Model
from s5jax.models.options import Options
from s5jax.ssm.parameters import unpair

pytestmark = pytest.mark.slow

SSMS = {
    "s5": ("s5", s5.Options(state_size=8, blocks=2, bidirectional=True)),
    "s5-causal": ("s5", s5.Options(state_size=8, conj_sym=False, clip_eigs=True)),
    "s4d": ("s4d", s4d.Options(state_size=8, bidirectional=True)),
    "s4d-both": ("s4d", s4d.Options(state_size=8, bidirectional=True, backward_skips_current=False)),
    "s4d-causal": ("s4d", s4d.Options(state_size=8, n_ssm=2)),
}


def build(name, options, L):
    options = dataclasses.replace(options, pattern=("ssm",))
    model = Model(options, {"ssm": SSMS[name]}, 5 if options.encoder != "dense" else 2, 3, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    if options.encoder == "dense":
        return model, jnp.asarray(rng.normal(size=(3, L, 2)), jnp.float32)
    return model, jnp.asarray(rng.integers(0, 5, (3, L)), jnp.int32)


@pytest.mark.parametrize(
    ("ssm", "options"),
    [
        ("s5", {"activation": "half_glu1", "encoder": "one_hot"}),
        ("s5-causal", {"activation": "half_glu2", "norm": "layer", "prenorm": False}),
        ("s4d", {"activation": "full_glu", "encoder": "embedding", "norm": "layer", "prenorm": False}),
        ("s4d-both", {"activation": "gelu", "pooling": "last"}),
        ("s4d-causal", {}),
    ],
)
def test_the_same_outputs_statistics_and_gradients(ssm, options):
    options = Options(**{"depth": 2, "d_model": 6, **options})
    model, inputs = build(ssm, options, 16)
    graphdef, *split = nnx.split(model, nnx.Param, nnx.BatchStat)
    params, stats = map(nnx.to_pure_dict, split)

    @functools.partial(jax.grad, has_aux=True)
    def ours(params):
        model = nnx.merge(graphdef, params, stats)
        outputs = model(inputs, train=True)
        return jnp.sum(jnp.sin(outputs)), (outputs, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))

    @functools.partial(jax.grad, has_aux=True)
    def theirs(params):
        outputs, new = baseline.logits(params, per_layer(stats), inputs, model=options, ssm=SSMS[ssm], train=True)
        return jnp.sum(jnp.sin(outputs)), (outputs, new)

    gradients, (outputs, new) = jax.jit(ours)(params)
    expected_gradients, (expected, expected_new) = jax.jit(theirs)(per_layer(params))
    assert relative_error(outputs, expected) < 1e-5
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), per_layer(new), expected_new)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(per_layer(gradients)), jax.tree.leaves(expected_gradients), strict=True
    ):
        assert relative_error(a, b) < 2e-4, jax.tree_util.keystr(path)


def test_names_of_layers_there_and_back():
    tree = {"encoder": {"layers": {0: {"seq": np.arange(24.0).reshape(12, 2)}}, "encoder": np.ones(2)}}
    named = per_layer(tree)
    np.testing.assert_array_equal(named["encoder"]["layers_11"]["seq"], [22, 23])
    assert "layers" not in named["encoder"]
    jax.tree.map(np.testing.assert_array_equal, stacked(named), tree)


def test_the_plain_kernel_of_s4():
    """Its C is the published one, C (I - A_bar^L), here by the dense matrices of all states in float64."""
    L, H, options = 17, 6, s4.Options(state_size=8, bidirectional=True)
    params = s4.init(jax.random.key(0), H, options)
    Lambda, P = (np.tile(x, (H, 1)).astype(complex) for x in (s4.eigenvalues(params, options), unpair(params["P"])[0]))
    truncated = dict(params)
    for name in ("C1", "C2"):
        C = np.array(unpair(params[name]), complex)
        for h, step in enumerate(np.exp(np.float64(params["log_step"][:, 0]))):
            p = np.r_[P[h], P[h].conj()]
            A = step / 2 * (np.diag(np.r_[Lambda[h], Lambda[h].conj()]) - np.outer(p, p.conj()))
            A_bar = np.linalg.solve(np.eye(8) - A, np.eye(8) + A)
            C[h] = (np.r_[C[h], C[h].conj()] @ (np.eye(8) - np.linalg.matrix_power(A_bar, L)))[:4]
        truncated[name] = jnp.stack([C.real, C.imag], -1).astype(jnp.float32)
    u = jax.random.normal(jax.random.key(1), (L, H))
    plain, ours = (jax.jit(functools.partial(layer, options=options)) for layer in (baseline._s4, s4.apply))
    assert relative_error(plain(truncated, u), ours(params, u[None])[0][0]) < 1e-4


@pytest.mark.parametrize(
    ("name", "ssm"),
    [
        ("listops", ("--config.mixers.s5.state_size=16", "--config.mixers.s5.blocks=1")),
        ("s4d", ("--config.mixers.s4d.state_size=16",)),
    ],
)
def test_a_training_step_of_either_side_has_the_same_loss_and_gradients(name, ssm):
    small = ("--config.model.depth=2", "--config.model.d_model=8", *ssm)
    case = cases.build(name, 2, *small, "--config.model.dropout=0.0", "--config.train.warmup_epochs=0")
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # the optimizer's
        side = cases.published(case)
        (state, metrics), (other, others) = (
            jax.jit(side.train)(side.state, side.batch) for side in (cases.ours(case), side)
        )
    loss, norm = (float(total / weight) for total, weight in (metrics["loss"], metrics["grad_norm"]))
    assert loss == pytest.approx(float(others["loss"]), rel=1e-4)
    moment = optax.tree.get(other.opt_state, "mu")  # after one step 0.1 of the gradient
    assert float(optax.tree.norm(moment)) / 0.1 == pytest.approx(norm, rel=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        per_layer(state.batch_stats),
        other.batch_stats,
    )
    jax.tree.map(lambda a, b: np.testing.assert_array_less(0, np.abs(a - b).max()), other.params, side.state.params)


def test_products_are_counted_with_every_pass_of_every_scan():
    def function(x, w, z):
        x, _ = jax.lax.scan(lambda x, _: (x @ w, None), x, length=5)
        return x, z @ z

    jaxpr = jax.jit(function).trace(jnp.ones((3, 4)), jnp.ones((4, 4)), jnp.ones((2, 2), jnp.complex64)).jaxpr
    assert measure.product_flops(jaxpr.jaxpr) == 5 * 2 * 3 * 4 * 4 + 8 * 2 * 2 * 2


def test_the_same_samples_one_by_one():
    options = Options(depth=2, d_model=6)
    model, inputs = build("s5-causal", options, 5)
    params, stats = map(nnx.to_pure_dict, nnx.split(model, nnx.Param, nnx.BatchStat)[1:])
    state = ([jnp.zeros((3, 8), jnp.complex64)] * 2, jnp.zeros((3, 6)), jnp.float32(0))
    for k in range(5):
        state, got = baseline.step(
            per_layer(params), per_layer(stats), state, inputs[:, k], model=options, options=SSMS["s5-causal"][1]
        )
    assert relative_error(got, model(inputs)) < 1e-5
