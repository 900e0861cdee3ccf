"""What a model is given wrongly: an error where the values are known, NaN where they are not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from small_models import build, values

from s5jax.mixers import s5

B, L = 2, 6
MASK = np.zeros((B, L), bool)


@pytest.fixture(scope="module")
def models():
    one = {"depth": 1, "norm": "layer"}
    tokens = {name: build("s5", input_size=5, encoder=name, **one) for name in ("one_hot", "embedding")}
    return {"dense": build("s5", **one), "pair": build("s5", head="pair", **one), **tokens}


X = values(B, L, 2)
IDS = jnp.array([[0, 1, 2, 3, 4, 0]] * B)
WRONG = [
    ("dense", X[:, :, :1], {}, r"inputs must have the shape \(B, L, 2\), got \(2, 6, 1\)"),
    ("dense", X[0], {}, r"inputs must have the shape \(B, L, 2\), got \(6, 2\)"),
    ("pair", X, {}, r"inputs must have the shape \(B, 2, L, 2\), got \(2, 6, 2\)"),
    ("one_hot", X, {}, r"inputs must have the shape \(B, L\), got"),
    ("one_hot", IDS + 1, {}, r"token ids must lie in 0\.\.4, got 5"),
    ("embedding", IDS - 1, {}, r"token ids must lie in 0\.\.4, got -1"),
    ("embedding", IDS.astype(jnp.float32), {}, "inputs must be token ids, which are integers; got float32"),
    ("dense", X, {"lengths": [0, 6]}, r"lengths must lie in 1\.\.6, got 0"),
    ("dense", X, {"lengths": np.array([6, -2])}, r"lengths must lie in 1\.\.6, got -2"),
    ("dense", X, {"lengths": jnp.array([7, 6])}, r"lengths must lie in 1\.\.6, got 7"),
    ("dense", X, {"lengths": [6]}, r"lengths must have the shape \(2,\), got \(1,\)"),
    ("dense", X, {"lengths": [6.0, 5.0]}, "lengths must be integers, got float32"),
    ("dense", X, {"mask": MASK[:, :5]}, r"mask must have the shape \(2, 6\), got \(2, 5\)"),
    ("dense", X, {"mask": MASK.astype(np.int32)}, "mask must be boolean, got int32"),
    ("dense", X, {"reset": MASK[0]}, r"reset must have the shape \(2, 6\), got \(6,\)"),
    ("dense", X, {"rate": -1.0}, "rate must be finite and at least 0"),
    ("dense", X, {"rate": np.array([1, np.nan])}, "rate must be finite and at least 0"),
    ("dense", X, {"rate": np.ones(3)}, r"rate must have the shape \(\), \(2,\) or \(2, 6\), got \(3,\)"),
]


@pytest.mark.parametrize(("name", "inputs", "given", "message"), WRONG)
def test_a_wrong_argument_is_named(models, name, inputs, given, message):
    with pytest.raises(ValueError, match=message):
        models[name](inputs, **given)


def test_what_is_padded_or_missing_may_be_anything(models):
    ids, lengths, mask = np.array([[1, 2, 3, 4, 9, -1]] * B), [4, 4], MASK | (np.arange(L) == 1)
    expected = models["one_hot"](IDS.at[:, :4].set(jnp.array([1, 0, 3, 4])), lengths, mask=mask)
    np.testing.assert_array_equal(models["one_hot"](np.where(mask, 77, ids), lengths, mask=mask), expected)
    rate = np.where(np.arange(L) < 4, 1.5, np.nan) * np.ones((B, 1))
    assert np.isfinite(models["dense"](X, lengths, rate=jnp.asarray(rate, jnp.float32))).all()


def test_one_flag_or_rate_may_serve_all_samples(models):
    """Or all sequences: each array is broadcast before it is counted."""
    mask, rate = np.zeros((B, L), bool), np.array([[1.5], [2.0]], np.float32)
    np.testing.assert_array_equal(models["dense"](X, mask=mask[:, :1]), models["dense"](X, mask=mask))
    np.testing.assert_array_equal(models["dense"](X, rate=rate), models["dense"](X, rate=np.tile(rate, (1, L))))
    pairs, mask = jnp.stack([X, X[::-1]], 1), np.arange(L) == 1
    whole = np.broadcast_to(mask, (B, 2, L))
    np.testing.assert_array_equal(models["pair"](pairs, mask=mask[None, None]), models["pair"](pairs, mask=whole))


def test_lengths_of_a_narrow_integer_type_are_compared_as_numbers(models):
    """256 is 0 in eight bits."""
    x = values(1, 256, 2)
    outputs = jax.jit(models["dense"])(x, jnp.array([200], jnp.uint8))
    np.testing.assert_array_equal(outputs, jax.jit(models["dense"])(x, jnp.array([200])))


@pytest.mark.parametrize(
    ("inputs", "given", "message"),
    [
        (X, {"mask": MASK.astype(np.int32)}, "mask must be boolean, got int32"),
        (X, {"mask": MASK[0]}, r"mask must have the shape \(2, 6\), got \(6,\)"),
        (X, {"lengths": jnp.array([3])}, r"lengths must have the shape \(2,\), got \(1,\)"),
        (X, {"lengths": jnp.array([3.0, 2.0])}, "lengths must be integers, got float32"),
        (X, {"rate": jnp.ones(3)}, r"rate must have the shape \(\), \(2,\) or \(2, 6\), got \(3,\)"),
        (X, {"rate": jnp.array(1j)}, "rate must be real numbers, got complex64"),
        (X.astype(complex), {}, "inputs must be real numbers; got complex64"),
        (X > 0, {}, "inputs must be real numbers; got bool"),
        (X[..., :1], {}, r"inputs must have the shape \(B, L, 2\), got"),
    ],
)
def test_shapes_and_types_are_checked_under_jit(models, inputs, given, message):
    """And outside of it with the same words."""

    def run(inputs, given):
        return models["dense"](inputs, **given)

    for each in (run, jax.jit(run)):
        with pytest.raises(ValueError, match=message):
            each(inputs, given)


def test_dropout_is_a_probability(models):
    for wrong in (-0.1, 1.5, np.nan):
        with pytest.raises(ValueError, match=r"dropout must lie in \[0, 1\], got"):
            models["dense"](X, key=jax.random.key(0), dropout=wrong)


def test_a_sequence_without_a_sample(models):
    """Is an error where its features are pooled; under jit its output is NaN."""
    mask, reset = MASK.copy(), MASK.copy()
    mask[1, 2:], reset[1, 2] = True, True
    model = models["dense"]
    assert np.isfinite(model(X, mask=mask)).all()
    with pytest.raises(ValueError, match="all samples of sequence 1 are missing, and nothing is left to pool"):
        model(X, mask=mask, reset=reset)
    with pytest.raises(ValueError, match="all samples of sequence 1 are missing"):
        model(X, [6, 2], mask=MASK | (np.arange(B) == 1)[:, None])
    outputs = jax.jit(lambda mask, reset: model(X, mask=mask, reset=reset))(mask, reset)
    assert np.isnan(outputs[1]).all() and np.isfinite(outputs[0]).all()
    pairs, mask = jnp.stack([X, X], 1), np.zeros((B, 2, L), bool)
    mask[1, 0] = True
    with pytest.raises(ValueError, match="all samples of sequence 1 are missing"):
        models["pair"](pairs, mask=mask)
    outputs = jax.jit(lambda mask: models["pair"](pairs, mask=mask))(mask)
    assert np.isnan(outputs[1]).all() and np.isfinite(outputs[0]).all()
    assert np.isfinite(build("s5", depth=1, norm="layer", head="step")(X, mask=~MASK)).all()


def test_known_arguments_of_a_traced_model(models):
    """A model that is an argument of a compiled function, and arrays that it closes over."""
    graphdef, arrays = nnx.split(models["dense"])
    mask = MASK | (np.arange(L) == 1)
    outputs = jax.jit(lambda arrays: nnx.merge(graphdef, arrays)(X, mask=mask))(arrays)
    np.testing.assert_allclose(outputs, models["dense"](X, mask=mask), rtol=1e-5)
    with pytest.raises(ValueError, match="all samples of sequence 0 are missing"):
        jax.jit(lambda arrays: nnx.merge(graphdef, arrays)(X, mask=~MASK))(arrays)
    assert models["dense"](X[:0], mask=mask[:0]).shape == (0, 3)


def test_a_bad_length_spoils_no_other_sequence_in_training():
    model = build("s5", depth=2)
    graphdef, arrays = nnx.split(model)

    @jax.jit
    def train(arrays, lengths):
        model = nnx.merge(graphdef, arrays)
        return model(X, lengths, train=True), nnx.state(model, nnx.BatchStat)

    outputs, statistics = train(arrays, jnp.array([L + 1, L]))
    assert np.isnan(outputs[0]).all() and np.isfinite(outputs[1]).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(statistics))


def test_one_rate_may_serve_both_documents_of_a_step(models):
    model, x = models["pair"], jnp.stack([X, X[::-1]], 1)[:, :, 0]
    expected, _ = model.step(model.init_state(B), x, rate=np.full((B, 2), 2.0))
    for rate in (2.0, np.full((B, 1), 2.0), np.full((1, 2), 2.0)):
        np.testing.assert_allclose(model.step(model.init_state(B), x, rate=rate)[0], expected, rtol=1e-5)


def test_a_state_of_another_batch_size(models):
    model = models["dense"]
    for run in (model.prefill, jax.jit(model.prefill)):
        with pytest.raises(ValueError, match="the state is that of a batch of 3 sequences, the inputs are 2"):
            run(model.init_state(3), X)
    with pytest.raises(ValueError, match="the state is that of a batch of 1 sequences, the inputs are 2"):
        model.step(model.init_state(1), X[:, 0])
    with pytest.raises(ValueError, match="the state is that of a batch of 1 sequences, the inputs are 2"):
        model.rollout(model.init_state(1), X)


def test_a_rate_counts_where_a_sample_is_missing(models):
    mask, rate = np.arange(L) == 3, np.where(np.arange(L) == 3, -1.0, 1.0)
    with pytest.raises(ValueError, match="rate must be finite and at least 0"):
        models["dense"](X, mask=np.tile(mask, (B, 1)), rate=np.tile(rate, (B, 1)))


def test_lists_are_arrays(models):
    model, state = models["dense"], models["dense"].init_state(B)
    outputs, _ = model.rollout(state, X.tolist(), model.discretize([1.0, 2.0]))
    expected, _ = model.rollout(state, X, model.discretize(jnp.array([1.0, 2.0])))
    np.testing.assert_array_equal(outputs, expected)
    with pytest.raises(ValueError, match=r"inputs must have the shape \(B, L, 2\), got"):
        model.rollout(state, X[:, :, :1])
    with pytest.raises(ValueError, match=r"rate must have the shape \(\) or \(2,\), got"):
        model.step(state, X[:, 0], rate=np.ones(3))


def test_ids_that_are_not_integers_are_refused_under_jit(models):
    for name in ("one_hot", "embedding"):
        with pytest.raises(ValueError, match="inputs must be token ids, which are integers; got float32"):
            jax.jit(models[name])(IDS.astype(jnp.float32))


def test_one_sample_is_checked_too(models):
    for name, sample, message in [
        ("dense", X[:, 0, :1], r"\(B, 2\), got \(2, 1\)"),
        ("one_hot", IDS[:, 4] + 1, "got 5"),
    ]:
        with pytest.raises(ValueError, match=message):
            models[name].step(models[name].init_state(B), sample)
    with pytest.raises(ValueError, match="rate must be finite and at least 0"):
        models["dense"].discretize(-1.0)


def test_a_sequence_of_which_nothing_came_may_have_the_length_0_in_prefill(models):
    model = models["dense"]
    _, before = model.prefill(model.init_state(B), X)
    outputs, after = model.prefill(before, X, [0, 6])
    assert np.isfinite(outputs).all()
    np.testing.assert_array_equal(after.mixers[0][0], before.mixers[0][0])
    with pytest.raises(ValueError, match=r"lengths must lie in 0\.\.6, got -1"):
        model.prefill(before, X, [-1, 6])


@pytest.mark.parametrize("lengths", [[0, 6], [-1, 6], [7, 6]])
@pytest.mark.parametrize("name", ["dense", "pair"])
def test_unknown_lengths_out_of_range_give_nan(models, name, lengths):
    inputs, lengths = (
        (X, jnp.array(lengths)) if name == "dense" else (jnp.stack([X, X], 1), jnp.array([lengths, [6, 6]]))
    )
    outputs = jax.jit(models[name])(inputs, lengths)
    assert np.isnan(outputs[0]).all() and np.isfinite(outputs[1]).all()


@pytest.mark.parametrize("name", ["one_hot", "embedding"])
def test_unknown_ids_out_of_range_give_nan_from_then_on(models, name):
    for wrong in (-1, 5):
        outputs = jax.jit(models[name])(IDS.at[0, 2].set(wrong))
        assert np.isnan(outputs[0]).all() and np.isfinite(outputs[1]).all()
        step, state = jax.jit(models[name].step), models[name].init_state(B)
        for k in range(4):
            outputs, state = step(state, jnp.where((k == 2) & (jnp.arange(B) == 0), wrong, IDS[:, k]))
            assert np.isnan(outputs[0]).all() == (k >= 2) and np.isfinite(outputs[1]).all()


@pytest.mark.parametrize("wrong", [-1.0, np.inf, np.nan])
def test_unknown_rates_that_are_negative_or_not_finite_give_nan(models, wrong, monkeypatch):
    """Even if a mixer would return numbers, as `leaky` does for -1 and for infinity."""
    outputs = jax.jit(lambda rate: models["dense"](X, rate=rate))(jnp.array([wrong, 2.0]))
    assert np.isnan(outputs[0]).all() and np.isfinite(outputs[1]).all()
    leaky = build("leaky", depth=1, norm="layer")
    outputs = jax.jit(lambda rate: leaky(X, rate=rate))(jnp.ones((B, L)).at[0, 2].set(wrong))
    assert np.isnan(outputs[0]).all() and np.isfinite(outputs[1]).all()
    monkeypatch.setattr(s5, "discretize", lambda params, options, *, rate: rate)
    ((_, rate),) = jax.jit(models["dense"].discretize)(jnp.array([wrong, 2.0]))
    np.testing.assert_array_equal(rate, [np.nan, 2.0])
