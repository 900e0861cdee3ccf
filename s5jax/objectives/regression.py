"""Squared error of a vector per sequence or per step."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from s5jax.objectives import Batch, Metrics, weights


def outputs(task) -> int:
    """One output per target."""
    return task.targets


def hyper(task, options) -> dict[str, Array]:
    """The task's tolerance, if it has one."""
    return {"tolerance": jnp.float32(task.tolerance)} if task.tolerance else {}


def objective(
    outputs: Float[Array, "B *L targets"], batch: Batch, *, tolerance: Float[Array, ""] | float | None = None
) -> Metrics:
    """`loss`, the squared error, and `absolute_error`, both averaged over the targets; `accuracy` if there is a
    tolerance. All are averaged over sequences or steps.

    Args:
      outputs: predictions, (B, targets) or (B, L, targets).
      batch: with `labels` of the same shape.
      tolerance: a prediction is accurate if the errors of all its targets are at most this large. Default: none.
    """
    errors = outputs - batch["labels"].astype(outputs.dtype)
    counted = weights(batch, errors.shape[:-1], errors.dtype)
    errors = jnp.where(counted[..., None] > 0, errors, 0)  # outputs without weight may be NaN
    total = jnp.sum(counted)
    metrics = {
        "loss": (jnp.sum(counted * jnp.square(errors).mean(-1)), total),
        "absolute_error": (jnp.sum(counted * jnp.abs(errors).mean(-1)), total),
    }
    if tolerance is not None:
        close = (jnp.abs(errors) <= jnp.asarray(tolerance, errors.dtype)).all(-1)
        metrics["accuracy"] = (jnp.sum(jnp.where(close, counted, 0)), total)
    return metrics
