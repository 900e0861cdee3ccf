"""Cross-entropy of the next token at each step: language modelling.

The `labels` (B, L) of a task are the next tokens. Reported in addition to the loss, in nats per token: accuracy, bits
per token (named by the task's unit, for example character or byte), and perplexity, exp(loss).
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from s5jax.objectives import Batch, Metrics, weights

CAUSAL = True
"""The model must be causal; otherwise it would see the tokens that it predicts."""


def outputs(task) -> int:
    """Number of logits: one per token of the vocabulary."""
    return task.num_tokens


def objective(outputs: Float[Array, "B L tokens"], batch: Batch) -> Metrics:
    """`loss`, -log p of the label in nats, and `accuracy`, each a mean over the tokens.

    Args:
      outputs: logits (B, L, tokens).
      batch: with integer `labels` (B, L).
    """
    labels = batch["labels"]
    counted = weights(batch, labels.shape, outputs.dtype)
    label_logits = jnp.take_along_axis(outputs, labels[..., None], -1)[..., 0]
    loss = jax.nn.logsumexp(outputs, axis=-1) - label_logits
    correct = outputs.argmax(-1) == labels
    total = jnp.sum(counted)
    return {
        "loss": (jnp.sum(jnp.where(counted > 0, counted * loss, 0)), total),
        "accuracy": (jnp.sum(jnp.where(correct, counted, 0)), total),
    }


def summary(task, loss: float) -> dict[str, float]:
    """Bits per token and perplexity from the mean loss in nats per token."""
    perplexity = math.exp(loss) if loss < 700 else math.inf
    return {f"bits_per_{task.facts.get('unit', 'token')}": loss / math.log(2), "perplexity": perplexity}
