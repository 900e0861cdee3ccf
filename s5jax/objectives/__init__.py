"""Objectives: the losses and metrics of training, one file each.

An objective is a module with

    outputs(task) -> int        number of outputs of the model, per sequence or per step
    objective(outputs, batch, **hyper) -> {name: (sum, weight)}

and, optionally,

    Options                     a frozen dataclass: the section `objective` of a config
    hyper(task, options)        dict of arrays, passed to `objective` as keyword arguments within the jitted step, so
                                that new values need no compilation
    CAUSAL = True               the objective rejects models that are not causal
    summary(task, loss)         further metrics {name: number} computed from the mean loss

Training minimises "loss"; every metric is reported as sum / weight. Sums and weights are added over batches, so that
each example or step counts once, however they are batched. `weights` gives the weight of each label.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from s5jax.ssm.sequence import valid_steps

Batch = dict[str, Array]
"""`inputs`, `labels` and, if the task has them, `lengths`, `mask`, `reset`, `rate`, `weights` (of the labels);
`counted` (B,) is false at examples that only fill up the batch."""

Metrics = dict[str, tuple[Array, Array]]
"""For each metric its weighted sum over the labels and the sum of the weights."""


def weights(batch: Batch, shape: tuple[int, ...], dtype: jnp.dtype) -> Float[Array, "..."]:
    """The weight of each label, in a shape (B,), or (B, L) with one label per step.

    It is that of the batch (default 1), and 0 in the padding and for examples not `counted`.
    """
    w = jnp.ones(shape, dtype)
    if "weights" in batch:
        w = w * batch["weights"].astype(dtype)
    if len(shape) == 2 and "lengths" in batch:
        w = jnp.where(valid_steps(batch["lengths"], shape[1]), w, 0)
    if "counted" in batch:
        w = jnp.where(batch["counted"].reshape(-1, *(1,) * (len(shape) - 1)), w, 0)
    return w
