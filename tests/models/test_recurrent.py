"""Causal models in pieces: read at once, in halves, or sample by sample, they say the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everyday import variants
from flax import nnx
from numerics import relative_error
from small_models import build, values

L, B = 20, 3
HALF = L // 2

whole = nnx.jit(lambda model, *args, **kwargs: model(*args, **kwargs))
prefill = nnx.jit(lambda model, *args, **kwargs: model.prefill(*args, **kwargs))
step = nnx.jit(lambda model, *args, **kwargs: model.step(*args, **kwargs))
rollout = nnx.jit(lambda model, *args: model.rollout(*args))


def close(actual, expected):
    """Trees, for the rounding of sums."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), actual, expected)


def without_lost(state):
    """The state of a model without what the head's mean remembers of rounding."""
    return state.mixers, state.head[::2]


@pytest.mark.parametrize(
    ("pattern", "options"),
    [
        pytest.param(("s5",), {}, marks=pytest.mark.slow),
        pytest.param(("s4d",), {"pooling": "last", "norm": "layer", "prenorm": False}, marks=pytest.mark.slow),
        (("s5", "attention"), {"depth": 3}),
        pytest.param(("s4",), {}, marks=pytest.mark.slow),
        pytest.param(("s4d-scan",), {}, marks=pytest.mark.slow),
        pytest.param(("dss",), {}, marks=pytest.mark.slow),
        pytest.param(("lru",), {"pooling": "last"}, marks=pytest.mark.slow),
        pytest.param(("s5", "attention"), {"depth": 5}, marks=pytest.mark.slow),
        pytest.param(("s5", "attention"), {"depth": 4, "norm": "none", "mlp": 1}, marks=pytest.mark.slow),
        pytest.param(("s5", "s4d", "lru"), {"depth": 5}, marks=pytest.mark.slow),
    ],
)
def test_samples_pieces_and_the_whole_agree(pattern, options):
    model = build(*pattern, **options)
    inputs = values(B, L, 2)
    expected = {n: whole(model, inputs, jnp.full(B, n)) for n in (L, HALF)}
    state, cells = model.init_state(B, max_length=L), model.discretize()
    for n in range(1, L + 1):
        logits, state = step(model, state, inputs[:, n - 1], cells)
        if n in expected:
            assert relative_error(logits, expected[n]) < 1e-5
    after_each, end = rollout(model, model.init_state(B, max_length=L), inputs)
    for n in expected:
        assert relative_error(after_each[:, n - 1], expected[n]) < 1e-5
    close(end, state)
    pieces = model.init_state(B, max_length=L)
    for cut in (slice(0, HALF), slice(HALF, L)):
        logits, pieces = prefill(model, pieces, inputs[:, cut])
    assert relative_error(logits, expected[L]) < 1e-5
    close(without_lost(pieces), without_lost(state))


def test_something_at_each_step():
    model = build("lru", head="step")
    inputs = values(B, L, 2)
    expected = whole(model, inputs)
    first, state = prefill(model, model.init_state(B), inputs[:, :9])
    one, state = step(model, state, inputs[:, 9])
    rest, _ = rollout(model, state, inputs[:, 10:])
    assert relative_error(jnp.concatenate([first, one[:, None], rest], 1), expected) < 1e-5


@pytest.mark.parametrize(
    ("pooling", "mask_padding"), [pytest.param("mean", True, marks=pytest.mark.slow), ("last", False)]
)
def test_a_padded_prefill_goes_on_after_each_sequence_s_end(pooling, mask_padding):
    model = build("s4d", pooling=pooling, mask_padding=mask_padding)
    inputs, lengths = values(B, L, 2), jnp.array([L - 1, 7, 1])
    valid = np.arange(L)[None, :, None] < np.asarray(lengths)[:, None, None]
    padded = np.where(valid, inputs, np.float32(np.nan))
    logits, state = prefill(model, model.init_state(B), padded, lengths)
    np.testing.assert_array_equal(state.head.total[:, -1], lengths)
    assert relative_error(logits, whole(model, inputs, lengths)) < 1e-5
    longer = np.array(inputs)
    longer[np.arange(B), np.asarray(lengths)] = inputs[:, -1]  # the next sample stands where the padding began
    logits, _ = step(model, state, inputs[:, -1])
    assert relative_error(logits, whole(model, longer, lengths + 1)) < 1e-5


@pytest.mark.parametrize("pooling", ["mean", pytest.param("last", marks=pytest.mark.slow)])
def test_a_sequence_of_which_nothing_came_keeps_its_answer(pooling):
    model, inputs = build("s5", pooling=pooling), values(B, L, 2)
    rest = np.full((B, L, 2), np.nan, np.float32)
    rest[:, : L - 9] = inputs[:, 9:]
    before, state = prefill(model, model.init_state(B), inputs, jnp.full(B, 9))
    after, state = prefill(model, state, rest, jnp.array([0, L - 9, 3]))
    assert relative_error(after[0], before[0]) < 1e-6
    expected = whole(model, inputs, jnp.array([L, L, 12]))
    assert relative_error(after[1:], expected[1:]) < 1e-5
    none, state = prefill(model, model.init_state(B), inputs, jnp.array([0, L, 0]))
    assert np.isfinite(none).all()
    assert (
        relative_error(prefill(model, state, inputs, jnp.array([L, 0, L]))[0], whole(model, inputs, jnp.full(B, L)))
        < 1e-5
    )


@variants(["one_hot"], encoder=["one_hot", "embedding"])
def test_tokens_one_by_one(encoder):
    model = build("s5", encoder=encoder, input_size=5)
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 5, (B, 4)), jnp.int32)
    state = model.init_state(B)
    for k in range(4):
        logits, state = step(model, state, tokens[:, k])
    assert relative_error(logits, whole(model, tokens)) < 1e-5


@variants(["lru"], mixer=["lru", "s4d"])
def test_two_documents_one_sample_of_each_at_a_time(mixer):
    model = build(mixer, head="pair")
    inputs, lengths = values(B, 2, L, 2), jnp.array([[L, 3], [1, L], [5, 5]])

    def whole_until(n):
        return whole(model, inputs, jnp.full((B, 2), n))

    logits, state = prefill(model, model.init_state(B), inputs, lengths)
    assert relative_error(logits, whole(model, inputs, lengths)) < 1e-5
    _, state = prefill(model, model.init_state(B), inputs, jnp.full((B, 2), L - 1))
    logits, state = step(model, state, inputs[:, :, -1])
    assert relative_error(logits, whole_until(L)) < 1e-5
    after_each, state = rollout(model, model.init_state(B), inputs, model.discretize())
    assert relative_error(after_each[:, -1], logits) < 1e-5
    assert relative_error(after_each[:, 8], whole_until(9)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("mixer", ["s5", "s4d", "lru"])
def test_irregular_samples_in_a_model(mixer):
    model, inputs = build(mixer), values(B, L, 2)
    rate = jnp.exp(values(B, L, seed=1))
    expected = whole(model, inputs, rate=rate)
    assert relative_error(expected, whole(model, inputs, rate=jnp.ones((B, L)))) > 1e-3
    same = whole(model, inputs, rate=jnp.full((B, L), 2.0))
    assert relative_error(same, whole(model, inputs, rate=jnp.float32(2.0))) < 1e-5
    _, state = prefill(model, model.init_state(B), inputs[:, :-1], rate=rate[:, :-1])
    logits, _ = step(model, state, inputs[:, -1], rate=rate[:, -1])
    assert relative_error(logits, expected) < 1e-5
    logits, _ = step(model, state, inputs[:, -1], model.discretize(rate[:, -1]))
    assert relative_error(logits, expected) < 1e-5
    with pytest.raises(ValueError, match="part of the cells"):
        model.step(state, inputs[:, -1], model.discretize(), rate=2.0)


def test_irregular_samples_of_two_documents():
    model, inputs = build("s5", head="pair"), values(B, 2, L, 2)
    same = whole(model, inputs, rate=jnp.full((B, 2, L), 2.0))
    assert relative_error(same, whole(model, inputs, rate=jnp.float32(2.0))) < 1e-5


def test_a_mixer_may_have_a_step_and_no_discretize():
    model, inputs = build("leaky"), values(B, 5, 2)
    expected = whole(model, inputs)
    logits, state = model.rollout(model.init_state(B), inputs)
    assert relative_error(logits[:, -1], expected) < 1e-6
    logits, _ = prefill(model, model.init_state(B), inputs[:, :3])
    assert relative_error(logits, whole(model, inputs[:, :3])) < 1e-6
    assert relative_error(whole(model, inputs, rate=2.0), expected) > 1e-3
    with pytest.raises(ValueError, match="leaky has no discretize"):  # its step would ignore a rate
        model.step(state, inputs[:, 0], rate=2.0)


def test_a_model_of_two_directions_cannot_be_fed_in_pieces():
    model = build("s4d-two", depth=1)
    with pytest.raises(ValueError, match="two directions"):
        model.step(model.init_state(1), jnp.zeros((1, 2)))
    with pytest.raises(ValueError, match="two directions"):
        prefill(model, model.init_state(1), jnp.zeros((1, 3, 2)))
    with pytest.raises(ValueError, match="two directions"):
        model.rollout(model.init_state(1), jnp.zeros((1, 3, 2)))
    with pytest.raises(ValueError, match="two directions"):
        model.discretize()
    state = build("s4d", depth=1).init_state(1)
    with pytest.raises(ValueError, match="s4d reads in both directions: it cannot start from a state"):
        model.prefill(state, jnp.zeros((1, 3, 2)))
