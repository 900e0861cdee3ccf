"""Gradients of a batch in parts, one after the other: `config.optim.micro_batches`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from s5jax.objectives import Batch, Metrics


def accumulate(
    differentiate: Callable[..., Any], micro_batches: int, params: Any, buffers: Any, batch: Batch, key: Array | None
) -> tuple[Metrics, Any, Any]:
    """Returns (metrics, buffers, gradients): metrics and gradients summed over the parts of a batch, buffers as they
    are after the last part.

    `differentiate` maps (params, buffers, batch, key) to ((loss, (metrics, buffers)), gradients). Sums are added before
    they are divided: the update is that of the whole batch, except for batch norm and dropout, which see each part
    alone.
    """
    parts = jax.tree.map(lambda x: x.reshape(-1, micro_batches, *x.shape[1:]).swapaxes(0, 1), batch)

    def add(sums: Any, part: tuple[Array, Batch]) -> tuple[Any, None]:
        (metrics, grads), buffers = sums
        own = None if key is None else jax.random.fold_in(key, part[0])
        (_, (more, buffers)), more_grads = differentiate(params, buffers, part[1], own)
        return (jax.tree.map(jnp.add, (metrics, grads), (more, more_grads)), buffers), None

    first = jax.tree.map(lambda x: x[0], parts)
    shapes = jax.eval_shape(differentiate, params, buffers, first, key)
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (shapes[0][1][0], shapes[1]))
    ((metrics, grads), buffers), _ = jax.lax.scan(add, (nothing, buffers), (jnp.arange(micro_batches), parts))
    return metrics, buffers, grads
