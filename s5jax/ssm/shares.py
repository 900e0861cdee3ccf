"""Runs a function on each device's share of a batch: kernels and Fourier transforms, which XLA does not divide."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import AxisType, PartitionSpec
from jaxtyping import Array

AXIS = "data"
"""The axis of a mesh over which batches are divided."""


def by_shares(function: Callable[..., Any], arguments: Sequence[Array], batch: int) -> Any:
    """function(*arguments), where each device computes its share of the batch, under a mesh (`jax.set_mesh`) whose axis
    "data" is `AxisType.Auto` and has a size that divides the batch size. Otherwise the function is called as it is.

    Args:
      function: every result has the batch as its first axis.
      arguments: those whose first axis has the length `batch` are divided, the others are whole on each device.
      batch: size of the batch.
    """
    mesh = jax.sharding.get_abstract_mesh()
    automatic = dict(zip(mesh.axis_names, mesh.axis_types, strict=True)).get(AXIS) == AxisType.Auto
    if not automatic or batch % mesh.shape[AXIS]:
        return function(*arguments)
    divided = PartitionSpec(AXIS)
    specs = tuple(divided if x.shape[0] == batch else PartitionSpec() for x in arguments)
    return jax.shard_map(function, in_specs=specs, out_specs=divided, check_vma=False)(*arguments)
