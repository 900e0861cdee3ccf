"""Dropout inside of mixers."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


def drop(
    x: Float[Array, "..."],
    key: PRNGKeyArray | None,
    probability: Float[Array, ""] | float,
    shape: tuple[int, ...] | None = None,
) -> Float[Array, "..."]:
    """x with elements set to zero at random, and the others divided by 1 - probability. Without a key, x.

    `shape`: of the draw, default that of x; elements along an axis of length 1 are dropped together.
    """
    if key is None:
        return x
    keep = 1 - jnp.asarray(probability, x.dtype)
    kept = jax.random.bernoulli(key, keep, x.shape if shape is None else shape)
    return jnp.where(kept, x, 0) / jnp.where(keep > 0, keep, 1)
