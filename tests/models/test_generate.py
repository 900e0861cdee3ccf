"""Generation from the recurrent state against re-reading the whole prefix, for every pattern."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everyday import variants
from small_models import build, quick_key

from s5jax.models.generate import PIECE, choose, generate

TOKENS = 11
PATTERNS = ["s5", "s4d", "s4", "lru", "attention", "s5+attention"]


def language_model(pattern, **options):
    return build(
        *pattern.split("+"),
        input_size=TOKENS,
        outputs=TOKENS,
        head="step",
        encoder="embedding",
        norm="layer",
        **options,
    )


@variants(["s5+attention"], pattern=PATTERNS)
def test_greedy_generation_is_what_rereading_the_prefix_gives(pattern):
    model, rng = language_model(pattern), np.random.default_rng(0)
    lengths, tokens = np.array([1, 7, 4], np.int32), PIECE + 3
    prompts = rng.integers(0, TOKENS, (3, 7)).astype(np.int32)
    prompts[np.arange(7) >= lengths[:, None]] = 0
    made = np.concatenate(list(generate(model, prompts, lengths, tokens, jax.random.key(0), temperature=0.0)), axis=1)
    assert made.shape == (3, tokens)
    whole = np.zeros((3, 7 + tokens), np.int32)  # what stands behind a text changes nothing: the model is causal
    for i, length in enumerate(lengths):
        whole[i, : length + tokens] = np.r_[prompts[i, :length], made[i]]
    read = np.asarray(jax.jit(model)(whole))
    for all_logits, length, row in zip(read, lengths, made, strict=True):
        logits = all_logits[length - 1 : length - 1 + tokens]
        near = np.sort(logits, axis=-1)
        clear = near[:, -1] - near[:, -2] > 1e-4  # where rounding cannot decide
        assert clear.mean() > 0.9
        np.testing.assert_array_equal(row[clear], logits.argmax(-1)[clear])


@variants(["lru"], pattern=PATTERNS)
def test_the_likelihood_by_single_steps_is_the_parallel_one(pattern):
    model = language_model(pattern)
    tokens = jnp.asarray(np.random.default_rng(1).integers(0, TOKENS, (2, 19)), jnp.int32)

    @jax.jit
    def both(tokens):
        by_steps, _ = model.rollout(model.init_state(2, max_length=19), tokens)
        return jax.nn.log_softmax(by_steps), jax.nn.log_softmax(model(tokens))

    by_steps, parallel = both(tokens)
    np.testing.assert_allclose(by_steps, parallel, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_the_same_key_draws_the_same_text():
    model, prompt, one = language_model("s5"), np.array([[3]], np.int32), np.array([1], np.int32)

    def text(seed, tokens):
        return np.concatenate(list(generate(model, prompt, one, tokens, quick_key(seed))), axis=1)

    np.testing.assert_array_equal(text(1, 40), text(1, 40))
    assert (text(1, 40) != text(2, 40)).any()
    assert text(1, 1).shape == (1, 1)


def test_draws_have_the_probabilities_of_the_model():
    logits = jnp.log(jnp.array([0.5, 0.3, 0.15, 0.05]))

    def shares(**settings):
        keys = jax.random.split(jax.random.key(0), 20_000)
        drawn = jax.vmap(lambda key: choose(logits[None], key, **settings)[0])(keys)
        return np.bincount(drawn, minlength=4) / len(keys)

    np.testing.assert_allclose(shares(), [0.5, 0.3, 0.15, 0.05], atol=0.015)
    squared = np.array([0.25, 0.09, 0.0225, 0.0025])
    np.testing.assert_allclose(shares(temperature=0.5), squared / squared.sum(), atol=0.015)
    np.testing.assert_allclose(shares(top_p=0.6), [0.625, 0.375, 0, 0], atol=0.015)
    np.testing.assert_allclose(shares(top_p=0.5), [1, 0, 0, 0])
    np.testing.assert_allclose(shares(top_p=1e-9), [1, 0, 0, 0])
    np.testing.assert_allclose(shares(temperature=0.0), [1, 0, 0, 0])
