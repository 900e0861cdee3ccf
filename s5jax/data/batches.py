"""The order of examples: functions of their arguments alone, so that a run resumes from its step number."""

import jax
import numpy as np
from jaxtyping import Bool, Int, PRNGKeyArray


def epoch_order(
    key: PRNGKeyArray,
    epoch: int,
    num_examples: int,
    batch_size: int,
    bucket: Int[np.ndarray, " num_examples"] | None = None,
) -> Int[np.ndarray, "steps batch"]:
    """The indices of each batch of one epoch: a permutation drawn from (key, epoch), without the incomplete batch.

    With the `bucket` of each example, from `buckets.fitting`, there are as many batches, and each has examples of about
    the same length: examples of a bucket that do not fill a batch move on to the next bucket.
    """
    key = jax.random.fold_in(key, epoch)
    order = np.asarray(jax.random.permutation(key, num_examples), np.int32)
    if bucket is None:
        return order[: num_examples // batch_size * batch_size].reshape(-1, batch_size)
    batches, waiting = [], order[:0]
    for number in range(int(bucket.max()) + 1):
        waiting = np.concatenate([waiting, order[bucket[order] == number]])
        full = len(waiting) // batch_size * batch_size
        batches.append(waiting[:full].reshape(-1, batch_size))
        waiting = waiting[full:]
    together = np.concatenate(batches)
    return together[np.asarray(jax.random.permutation(jax.random.fold_in(key, 2**31), len(together)))]


def lanes(
    num_examples: int, batch_size: int, *, padded: bool = False
) -> tuple[Int[np.ndarray, "steps batch"], Bool[np.ndarray, "steps batch"]]:
    """Batches of consecutive examples: place b of each batch goes on where place b of the batch before ended.

    The examples are divided into `batch_size` equally long lanes. What is left over is dropped or, with `padded`, the
    last lanes are filled up with the last example, not `counted` there.
    """
    steps = -(-num_examples // batch_size) if padded else num_examples // batch_size
    index = np.arange(steps * batch_size, dtype=np.int32).reshape(batch_size, steps).T
    return np.minimum(index, num_examples - 1), index < num_examples


def padded_batches(
    order: Int[np.ndarray, " N"], batch_size: int
) -> tuple[Int[np.ndarray, "steps batch"], Bool[np.ndarray, "steps batch"]]:
    """Batches with every example once, and which entries count: the last batch is filled up with the first example."""
    steps = -(-len(order) // batch_size)
    index = np.full(steps * batch_size, order[0], np.int32)
    index[: len(order)] = order
    counted = np.arange(index.size) < len(order)
    return index.reshape(steps, batch_size), counted.reshape(steps, batch_size)
