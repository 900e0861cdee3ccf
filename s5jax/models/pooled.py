"""The state of a pooling head in recurrent mode."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from s5jax.models.heads import Pooling, pool, zero_where
from s5jax.models.sequences import Sequences

__all__ = ["Pooled", "empty_pool"]


class Pooled(NamedTuple):
    """Features pooled so far. The sum is stored with its rounding error, so that the mean does not drift."""

    total: Float[Array, "B H"]
    """The sum, or the features at the last step."""
    lost: Float[Array, "B H"]
    """The rounding error of the sum."""
    steps: Integer[Array, " B"]
    """Samples in the sum."""

    def read(
        self, x: Float[Array, "B L H"], sequences: Sequences, pooling: Pooling
    ) -> tuple[Float[Array, "B H"], "Pooled"]:
        """The features pooled over all samples of the last sequence so far, x included, and the next state."""
        starts, counted = sequences.starts(x.shape[1]), sequences.counted_of_last(x.shape[1])
        total, lost, steps = self if starts is None else (zero_where(starts.any(1), array) for array in self)
        counted = jnp.ones(x.shape[:2], bool) if counted is None else counted
        more = counted.sum(1, dtype=jnp.int32)
        if pooling == "last":
            total = jnp.where(more[:, None] > 0, pool(x, "last", counted), total)
            return total, Pooled(total, lost, steps + more)
        # Compensated summation (Kahan 1965).
        added = jnp.sum(jnp.where(counted[..., None], x, 0), 1) - lost
        new, steps = total + added, steps + more
        return new / jnp.maximum(steps, 1)[:, None].astype(x.dtype), Pooled(new, (new - total) - added, steps)


def empty_pool(batch: int, width: int, dtype: Any) -> Pooled:
    """The state before any sample is read."""
    return Pooled(jnp.zeros((batch, width), dtype), jnp.zeros((batch, width), dtype), jnp.zeros(batch, jnp.int32))
