"""What a model is trained on, one file each.

An objective is a module with

    Options                     a frozen dataclass: the section `objective` of a config
    outputs(task) -> int        how many numbers the model gives, for a sequence or for each step
    hyper(task, options)        numbers that change no shape, as keyword arguments of `objective`
    objective(outputs, batch, **hyper) -> {name: (sum, weight)}

and, where they make sense,

    CAUSAL = True               it refuses models that read ahead
    summary(task, loss)         more numbers, {name: number}, that follow from the mean loss

"loss" is trained on; all are reported, as sum / weight. Sums and weights of several batches add up, so that every
example and every step counts once, however they were batched. `weights` says what counts.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from s5jax.ssm.sequence import valid_steps

__all__ = ["Batch", "Metrics", "weights"]

Batch = dict[str, Array]
"""`inputs`, `labels` and, where there are any, `lengths`, `mask`, `reset`, `rate`, `weights` (of each label) and
`counted` (false for an example that only fills the batch)."""

Metrics = dict[str, tuple[Array, Array]]


def weights(batch: Batch, shape: tuple[int, ...], dtype: jnp.dtype) -> Float[Array, "..."]:
    """The weight of each label: 1, times that of the batch, and 0 after a sequence's end and for fillers.

    Args:
      batch: as above.
      shape: (B,), a label a sequence, or (B, L), one a step.
      dtype: of the weights.
    """
    w = jnp.ones(shape, dtype)
    if "weights" in batch:
        w = w * batch["weights"].astype(dtype)
    if len(shape) == 2 and "lengths" in batch:
        w = jnp.where(valid_steps(batch["lengths"], shape[1]), w, 0)
    if "counted" in batch:
        w = jnp.where(batch["counted"].reshape(-1, *(1,) * (len(shape) - 1)), w, 0)
    return w
