"""Cross-entropy of the next token at each step: language modelling.

A task gives the tokens that follow as `labels` (B, L). Reported besides the loss, in nats a token: accuracy, bits a
token (bits per character or byte, by the task's unit), and perplexity, exp(loss).
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from s5jax.objectives import Batch, Metrics, weights

__all__ = ["CAUSAL", "Options", "hyper", "objective", "outputs", "summary"]

CAUSAL = True
"""A model that reads ahead would see what it has to predict."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """There are none."""


def outputs(task) -> int:
    """Logits: one for each token."""
    return task.num_tokens


def hyper(task, options: Options) -> dict[str, Array]:
    return {}


def objective(outputs: Float[Array, "B L tokens"], batch: Batch) -> Metrics:
    """`loss`, -log p of the label, and `accuracy`.

    Args:
      outputs: logits.
      batch: with integer `labels` (B, L).
    """
    labels = batch["labels"]
    counted = weights(batch, labels.shape, outputs.dtype)
    of_labels = jnp.take_along_axis(outputs, labels[..., None], -1)[..., 0]
    loss = jax.nn.logsumexp(outputs, axis=-1) - of_labels
    correct = outputs.argmax(-1) == labels
    total = jnp.sum(counted)
    return {
        "loss": (jnp.sum(jnp.where(counted > 0, counted * loss, 0)), total),
        "accuracy": (jnp.sum(jnp.where(correct, counted, 0)), total),
    }


def summary(task, loss: float) -> dict[str, float]:
    """What is reported of the mean loss, in nats a token: bits a token, and perplexity."""
    perplexity = math.exp(loss) if loss < 700 else math.inf
    return {f"bits_per_{task.facts.get('unit', 'token')}": loss / math.log(2), "perplexity": perplexity}
