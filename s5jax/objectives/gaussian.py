"""Negative log-likelihood of a vector under a diagonal Gaussian, per sequence or per step.

As in the published pendulum experiment of S5 (arXiv 2208.04933, section 6.3), the model has two outputs per target, a
mean and a value v, first all means and then all v; the variance is max(elu(v) + 1, 1e-6).
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from s5jax.objectives import Batch, Metrics, weights


def outputs(task) -> int:
    """Two outputs per target."""
    return 2 * task.targets


def variance(v: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """max(elu(v) + 1, 1e-6), where elu(v) + 1 is exp(v) for v < 0 and v + 1 otherwise."""
    return jnp.maximum(jnp.where(v < 0, jnp.exp(jnp.minimum(v, 0)), v + 1), 1e-6)


def objective(outputs: Float[Array, "B *L targets2"], batch: Batch) -> Metrics:
    """`loss`, the negative log-likelihood in nats, summed over the targets, and `mse`, the squared error of the means,
    averaged over the targets; both averaged over sequences or steps.

    Args:
      outputs: means and v, (B, 2 targets) or (B, L, 2 targets).
      batch: with `labels` (B, targets) or (B, L, targets).
    """
    mean, v = jnp.split(outputs, 2, axis=-1)
    counted = weights(batch, mean.shape[:-1], mean.dtype)
    errors = mean - batch["labels"].astype(mean.dtype)
    errors = jnp.where(counted[..., None] > 0, errors, 0)  # outputs without weight may be NaN
    spread = variance(jnp.where(counted[..., None] > 0, v, 0))
    surprise = (np.log(2 * np.pi) + jnp.log(spread) + jnp.square(errors) / spread) / 2
    total = jnp.sum(counted)
    return {
        "loss": (jnp.sum(counted * surprise.sum(-1)), total),
        "mse": (jnp.sum(counted * jnp.square(errors).mean(-1)), total),
    }
