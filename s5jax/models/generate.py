"""Sampling from a language model, by its recurrent state."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Integer, PRNGKeyArray

from s5jax.models.model import Model

__all__ = ["choose", "generate"]

PIECE = 32
"""Tokens that one call of the compiled loop makes."""


def generate(
    model: Model,
    prompts: Integer[np.ndarray, "B L"],
    lengths: Integer[np.ndarray, " B"],
    tokens: int,
    key: PRNGKeyArray,
    *,
    temperature: float = 1.0,
    top_p: float = 1.0,
) -> Iterator[Integer[np.ndarray, "B piece"]]:
    """Tokens that go on from prompts, in pieces as they are made, `tokens` in all.

    The prompts are read at once; then each token is drawn from the model's distribution and is its next input. The
    state is of one size for every length, but for attention without a window, whose cache holds all tokens.

    Args:
      model: of causal mixers, with an output for each token at each step.
      prompts: token ids, at least one in each; padded at the end.
      lengths: tokens of each prompt.
      tokens: how many to make.
      key: of the random draws.
      temperature, top_p: see `choose`.
    """
    graphdef, weights = nnx.split(model)

    @functools.partial(jax.jit, donate_argnums=2)
    def go_on(weights: Any, cells: Any, state: Any, token: Array, keys: Array) -> tuple[Any, Array]:
        model = nnx.merge(graphdef, weights)

        def advance(carry: tuple[Any, Array], key: Array) -> tuple[tuple[Any, Array], Array]:
            state, token = carry
            logits, state = model.step(state, token, cells)
            token = choose(logits, key, temperature=temperature, top_p=top_p)
            return (state, token), token

        carry, made = jax.lax.scan(advance, (state, token), keys)
        return carry, made.T

    L = prompts.shape[1]
    state = model.init_state(len(prompts), max_length=L + tokens)
    logits, state = nnx.jit(lambda model, *given: model.prefill(*given))(
        model, state, jnp.asarray(prompts, jnp.int32), jnp.asarray(lengths, jnp.int32)
    )
    logits = jnp.take_along_axis(logits, jnp.asarray(lengths)[:, None, None] - 1, axis=1)[:, 0]
    keys, cells = jax.random.split(key, -(-tokens // PIECE) * PIECE), model.discretize()
    token = choose(logits, jax.random.fold_in(key, tokens), temperature=temperature, top_p=top_p)
    yield np.asarray(token)[:, None]
    for start in range(1, tokens, PIECE):
        (state, token), made = go_on(weights, cells, state, token, keys[start - 1 : start - 1 + PIECE])
        yield np.asarray(made)[:, : tokens - start]


def choose(
    logits: Float[Array, "B tokens"], key: PRNGKeyArray, *, temperature: float = 1.0, top_p: float = 1.0
) -> Integer[Array, " B"]:
    """A token for each row of logits.

    Args:
      logits: of the next token.
      key: of the random draws.
      temperature: what the logits are divided by; 0 takes the likeliest token.
      top_p: draw from the fewest likeliest tokens that have this probability together (arXiv 1904.09751).
    """
    if temperature == 0:
        return logits.argmax(-1).astype(jnp.int32)
    logits = logits / temperature
    if top_p < 1:
        order = jnp.sort(logits, axis=-1, descending=True)
        probabilities = jax.nn.softmax(order, axis=-1)
        before = jnp.cumsum(probabilities, axis=-1) - probabilities
        least = jnp.min(jnp.where(before < top_p, order, jnp.inf), axis=-1, keepdims=True)
        logits = jnp.where(logits >= least, logits, -jnp.inf)
    return jax.random.categorical(key, logits).astype(jnp.int32)
