"""Sampling from a language model with its recurrent state."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Integer, PRNGKeyArray

from s5jax.models.model import Model

PIECE = 32
"""Number of tokens per call of the compiled loop."""


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
    """Continues prompts by `tokens` tokens each; yields them in pieces (B, piece) as they are drawn.

    Args:
      model: a model of causal mixers with the head `step` and one logit per entry of the vocabulary.
      prompts: token ids, (B, L), padded at the end; they are processed in parallel.
      lengths: (B,), number of tokens of each prompt, at least 1.
      temperature, top_p: see `choose`.
    """
    graphdef, weights = nnx.split(model)

    @functools.partial(jax.jit, donate_argnums=2)
    def continue_from(weights: Any, cells: Any, state: Any, token: Array, keys: Array) -> tuple[Any, Array]:
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
        (state, token), made = continue_from(weights, cells, state, token, keys[start - 1 : start - 1 + PIECE])
        yield np.asarray(made)[:, : tokens - start]


def choose(
    logits: Float[Array, "B tokens"], key: PRNGKeyArray, *, temperature: float = 1.0, top_p: float = 1.0
) -> Integer[Array, " B"]:
    """Draws a token (B,) for each row of logits.

    Args:
      temperature: divides the logits; 0 selects the most likely token. Default 1.
      top_p: draw only from the smallest set of most likely tokens whose total probability is at least `top_p` (nucleus
        sampling, arXiv 1904.09751). Default 1: from all tokens.
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
