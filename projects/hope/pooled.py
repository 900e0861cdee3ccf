"""Classification of a sequence by the mean of its outputs over some of the steps.

For tasks with `per_step=True`: the label of a sequence stands at each step, and the mean is over the steps of positive
weight, weighted. The head is linear, so that the mean of the logits is the logit of the mean features: this is mean
pooling over these steps. Loss and accuracy count each sequence once.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from s5jax.objectives import Batch, Metrics, classification, weights

Options, outputs, hyper = classification.Options, classification.outputs, classification.hyper


def objective(outputs: Float[Array, "B L classes"], batch: Batch, **hyper: Array) -> Metrics:
    """The sums and weights of `classification.objective` for the mean logits."""
    counted = weights(batch, batch["labels"].shape, outputs.dtype)[..., None]
    total = counted.sum(1)
    logits = jnp.sum(jnp.where(counted > 0, outputs, 0) * counted, axis=1) / jnp.where(total > 0, total, 1)
    return classification.objective(logits, {"labels": batch["labels"][:, -1], "counted": total[:, 0] > 0}, **hyper)
