"""The order of examples. Every function here depends on its arguments alone, so that resuming needs only the step."""

import jax
import numpy as np
from jaxtyping import Bool, Int, PRNGKeyArray

__all__ = ["epoch_order", "padded_batches", "steps_per_epoch"]


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Full batches in an epoch; what is left over waits for another epoch's order."""
    return num_examples // batch_size


def epoch_order(key: PRNGKeyArray, epoch: int, num_examples: int, batch_size: int) -> Int[np.ndarray, "steps batch"]:
    """Indices of each batch of one epoch: a permutation drawn from (key, epoch), the incomplete batch dropped."""
    steps = steps_per_epoch(num_examples, batch_size)
    order = np.asarray(jax.random.permutation(jax.random.fold_in(key, epoch), num_examples), np.int32)
    return order[: steps * batch_size].reshape(steps, batch_size)


def padded_batches(
    num_examples: int, batch_size: int
) -> tuple[Int[np.ndarray, "steps batch"], Bool[np.ndarray, "steps batch"]]:
    """Every example once, in order. The last batch is filled up with example 0, which `counted` marks as false."""
    steps = -(-num_examples // batch_size)
    index = np.arange(steps * batch_size, dtype=np.int32)
    counted = index < num_examples
    return np.where(counted, index, 0).reshape(steps, batch_size), counted.reshape(steps, batch_size)
