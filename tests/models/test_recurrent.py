"""Causal models in pieces: read at once, in halves, or sample by sample, they say the same."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from numerics import relative_error

from s5jax.models import layers
from s5jax.models.classifier import Classifier
from s5jax.models.retrieval import Retrieval
from s5jax.ssm import s4, s4d, s5

H, L, B = 6, 21, 3
SSMS = {
    "s5": ("s5", s5.Options(state_size=8)),
    "s4d": ("s4d", s4d.Options(state_size=8)),
    "s4d-scan": ("s4d", s4d.Options(state_size=8, mode="scan", n_ssm=2)),
    "dss": ("s4d", s4d.Options(state_size=8, discretization="dss", dss_length=L)),
    "s4": ("s4", s4.Options(state_size=8, init="legt", rank=2)),
}


def build(ssm="s5", kind=Classifier, input_size=2, **options):
    model = kind(layers.Options(**{"depth": 2, "d_model": H, **options}), SSMS[ssm], input_size, 3, rngs=nnx.Rngs(0))
    norm = model.encoder.layers.norm
    if isinstance(norm, nnx.BatchNorm):  # statistics that do something
        norm.mean[...], norm.var[...] = values(2, H), 1 + values(2, H, seed=1) ** 2
    return model


whole = nnx.jit(lambda model, *args, **kwargs: model(*args, **kwargs))
prefill = nnx.jit(lambda model, *args, **kwargs: model.prefill(*args, **kwargs))
step = nnx.jit(lambda model, *args, **kwargs: model.step(*args, **kwargs))
rollout = nnx.jit(lambda model, *args: model.rollout(*args))


def values(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize(
    ("ssm", "options"),
    [
        ("s5", {}),
        ("s4d", {"pooling": "last", "norm": "layer", "prenorm": False}),
        pytest.param("s4", {}, marks=pytest.mark.slow),
        pytest.param("s4d-scan", {}, marks=pytest.mark.slow),
        pytest.param("dss", {}, marks=pytest.mark.slow),
    ],
)
def test_samples_pieces_and_the_whole_agree(ssm, options):
    model = build(ssm, **options)
    inputs = values(B, L, 2)
    expected = {n: whole(model, inputs[:, :n]) for n in (L, 9)}
    state, recurrence = model.initial_state(B), model.recurrence()
    for n in range(1, L + 1):
        state, logits = step(model, state, inputs[:, n - 1], recurrence)
        if n in expected:
            assert relative_error(logits, expected[n]) < 1e-5
    end, after_each = rollout(model, model.initial_state(B), inputs)
    for n in expected:
        assert relative_error(after_each[:, n - 1], expected[n]) < 1e-5
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), end, state)
    pieces = model.initial_state(B)
    for cut in (slice(0, 9), slice(9, L)):
        pieces, logits = prefill(model, pieces, inputs[:, cut])
    assert relative_error(logits, expected[L]) < 1e-5
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), pieces, state)


@pytest.mark.parametrize(("pooling", "mask_padding"), [("mean", True), ("last", False)])
def test_a_padded_prefill_goes_on_after_each_sequence_s_end(pooling, mask_padding):
    model = build("s4d", pooling=pooling, mask_padding=mask_padding)
    inputs, lengths = values(B, L, 2), jnp.array([L - 1, 7, 1])
    valid = jnp.arange(L)[None, :, None] < lengths[:, None, None]
    state, logits = prefill(model, model.initial_state(B), jnp.where(valid, inputs, jnp.nan), lengths)
    np.testing.assert_array_equal(state.steps, lengths)
    assert relative_error(logits, whole(model, inputs, lengths)) < 1e-5
    longer = inputs.at[jnp.arange(B), lengths].set(inputs[:, -1])  # the next sample stands where the padding began
    _, logits = step(model, state, inputs[:, -1])
    assert relative_error(logits, whole(model, longer, lengths + 1)) < 1e-5


@pytest.mark.parametrize("pooling", ["mean", pytest.param("last", marks=pytest.mark.slow)])
def test_a_sequence_of_which_nothing_came_keeps_its_answer(pooling):
    model, inputs = build("s5", pooling=pooling), values(B, L, 2)
    state, before = prefill(model, model.initial_state(B), inputs[:, :9])
    state, after = prefill(model, state, inputs[:, 9:], jnp.array([0, 12, 3]))
    assert relative_error(after[0], before[0]) < 1e-6
    assert relative_error(after[1], whole(model, inputs)[1]) < 1e-5
    assert relative_error(after[2], whole(model, inputs, jnp.array([L, L, 12]))[2]) < 1e-5
    state, none = prefill(model, model.initial_state(B), inputs, jnp.array([0, L, 0]))
    assert np.isfinite(none).all()
    assert relative_error(prefill(model, state, inputs, jnp.array([L, 0, L]))[1], whole(model, inputs)) < 1e-5


@pytest.mark.parametrize("encoder", ["one_hot", "embedding"])
def test_tokens_one_by_one(encoder):
    model = build(encoder=encoder, input_size=5)
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 5, (B, 4)), jnp.int32)
    state = model.initial_state(B)
    for k in range(4):
        state, logits = step(model, state, tokens[:, k])
    assert relative_error(logits, whole(model, tokens)) < 1e-5


def test_two_documents_one_sample_of_each_at_a_time():
    model = build("s4d", Retrieval)
    inputs, lengths = values(B, 2, L, 2), jnp.array([[L, 3], [1, L], [5, 5]])
    state, logits = prefill(model, model.initial_state(B), inputs, lengths)
    assert relative_error(logits, whole(model, inputs, lengths)) < 1e-5
    state, _ = prefill(model, model.initial_state(B), inputs[:, :, :-1])
    state, logits = step(model, state, inputs[:, :, -1])
    assert relative_error(logits, whole(model, inputs)) < 1e-5
    state, after_each = rollout(model, model.initial_state(B), inputs, model.recurrence())
    assert relative_error(after_each[:, -1], logits) < 1e-5
    assert relative_error(after_each[:, 8], whole(model, inputs[:, :, :9])) < 1e-5


@pytest.mark.parametrize("ssm", ["s5", pytest.param("s4d", marks=pytest.mark.slow)])
def test_irregular_samples_in_a_model(ssm):
    model, inputs = build(ssm), values(B, L, 2)
    factors = jnp.exp(values(B, L, seed=1))
    expected = whole(model, inputs, step_rescale=factors)
    assert relative_error(expected, whole(model, inputs)) > 1e-3
    same = whole(model, inputs, step_rescale=jnp.full((B, L), 2.0))
    assert relative_error(same, whole(model, inputs, step_rescale=jnp.float32(2.0))) < 1e-5
    state, _ = prefill(model, model.initial_state(B), inputs[:, :-1], step_rescale=factors[:, :-1])
    _, logits = step(model, state, inputs[:, -1], step_rescale=factors[:, -1])
    assert relative_error(logits, expected) < 1e-5
    _, logits = step(model, state, inputs[:, -1], model.recurrence(factors[:, -1]))
    assert relative_error(logits, expected) < 1e-5
    with pytest.raises(ValueError, match="part of the recurrence"):
        model.step(state, inputs[:, -1], model.recurrence(), step_rescale=2.0)


@pytest.mark.parametrize("step_rescale", [None, 2.0])
def test_a_layer_may_have_a_step_and_no_recurrence(monkeypatch, step_rescale):
    model, inputs = build("s5"), values(B, 3, 2)
    recurrence = None if step_rescale is None else model.recurrence(step_rescale)
    expected = model.rollout(model.initial_state(B), inputs, recurrence)[1]
    plain = types.SimpleNamespace(initial_state=s5.initial_state, step=s5.step)
    monkeypatch.setattr(layers.SSM, "layer", plain)
    recurrence = None if step_rescale is None else model.recurrence(step_rescale)
    assert relative_error(model.rollout(model.initial_state(B), inputs, recurrence)[1], expected) < 1e-6


def test_irregular_samples_of_two_documents():
    model, inputs = build("s5", Retrieval), values(B, 2, L, 2)
    same = whole(model, inputs, step_rescale=jnp.full((B, 2, L), 2.0))
    assert relative_error(same, whole(model, inputs, step_rescale=jnp.float32(2.0))) < 1e-5


def test_a_model_of_two_directions_cannot_be_fed_in_pieces():
    options = layers.Options(depth=1, d_model=H)
    model = Classifier(options, ("s4", s4.Options(state_size=2, bidirectional=True)), 2, 3, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="two directions"):
        model.step(model.initial_state(1), jnp.zeros((1, 2)))
    with pytest.raises(ValueError, match="two directions"):
        prefill(model, model.initial_state(1), jnp.zeros((1, 3, 2)))
    with pytest.raises(ValueError, match="two directions"):
        model.rollout(model.initial_state(1), jnp.zeros((1, 3, 2)))
