"""Likelihood of a vector under a diagonal Gaussian, one for a sequence or one for each step.

As in the published pendulum experiment of S5 (arXiv 2208.04933, section 6.3): of two outputs a target, the second is v,
and the variance exp(v) for v < 0, v + 1 otherwise, at least 1e-6.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from s5jax.objectives import Batch, Metrics, weights

__all__ = ["Options", "hyper", "objective", "outputs", "variance"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """There are none."""


def outputs(task) -> int:
    """A mean and a v for each target: first all means, then all v."""
    return 2 * task.targets


def hyper(task, options: Options) -> dict[str, Array]:
    return {}


def variance(v: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """exp(v) for v < 0, v + 1 otherwise; at least 1e-6."""
    return jnp.maximum(jnp.where(v < 0, jnp.exp(jnp.minimum(v, 0)), v + 1), 1e-6)


def objective(outputs: Float[Array, "B *L targets2"], batch: Batch) -> Metrics:
    """`loss`, the negative log-likelihood summed over the targets, and `mse`, the mean squared error of the mean.

    Args:
      outputs: means and v.
      batch: with `labels` (B, targets) or (B, L, targets).
    """
    mean, v = jnp.split(outputs, 2, axis=-1)
    counted = weights(batch, mean.shape[:-1], mean.dtype)
    errors = mean - batch["labels"].astype(mean.dtype)
    errors = jnp.where(counted[..., None] > 0, errors, 0)  # what does not count may be NaN
    spread = variance(jnp.where(counted[..., None] > 0, v, 0))
    surprise = (np.log(2 * np.pi) + jnp.log(spread) + jnp.square(errors) / spread) / 2
    total = jnp.sum(counted)
    return {
        "loss": (jnp.sum(counted * surprise.sum(-1)), total),
        "mse": (jnp.sum(counted * jnp.square(errors).mean(-1)), total),
    }
