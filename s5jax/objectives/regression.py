"""Squared error of a vector, one for a sequence or one for each step."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from s5jax.objectives import Batch, Metrics, weights

__all__ = ["Options", "hyper", "objective", "outputs"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """There are none."""


def outputs(task) -> int:
    """One for each target."""
    return task.targets


def hyper(task, options: Options) -> dict[str, Array]:
    return {"tolerance": jnp.float32(task.tolerance)} if task.tolerance else {}


def objective(
    outputs: Float[Array, "B *L targets"], batch: Batch, *, tolerance: Float[Array, ""] | float | None = None
) -> Metrics:
    """`loss`, the squared error, and `absolute_error`, both means over the targets; with a tolerance `accuracy`.

    Args:
      outputs: predictions.
      batch: with `labels` of their shape.
      tolerance: a prediction is accurate if none of its targets is further off than this.
    """
    errors = outputs - batch["labels"].astype(outputs.dtype)
    counted = weights(batch, errors.shape[:-1], errors.dtype)
    errors = jnp.where(counted[..., None] > 0, errors, 0)  # what does not count may be NaN
    total = jnp.sum(counted)
    metrics = {
        "loss": (jnp.sum(counted * jnp.square(errors).mean(-1)), total),
        "absolute_error": (jnp.sum(counted * jnp.abs(errors).mean(-1)), total),
    }
    if tolerance is not None:
        close = (jnp.abs(errors) <= jnp.asarray(tolerance, errors.dtype)).all(-1)
        metrics["accuracy"] = (jnp.sum(jnp.where(close, counted, 0)), total)
    return metrics
