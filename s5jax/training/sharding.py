"""Data parallelism: every device holds the parameters and works on its share of the batch.

`jax.jit` over a mesh sees one global batch: every mean, a batch norm's too, is the same on any number of devices.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from s5jax.training.config import UserError

__all__ = ["make_mesh", "replicate", "share"]


def make_mesh(num_devices: int, batch_size: int) -> Mesh:
    """A mesh of one axis, "data", over the first `num_devices` devices (0: all).

    Raises:
      UserError: there are fewer devices, or they do not divide the batch.
    """
    if jax.process_count() > 1:
        raise UserError("training on several hosts is not supported yet: start one process")
    available = jax.device_count()
    if num_devices > available:
        raise UserError(f"config.num_devices is {num_devices}, but there are {available} devices")
    count = num_devices or available
    if batch_size % count:
        raise UserError(
            f"config.train.batch_size {batch_size} is not divisible by {count} devices: change it or config.num_devices"
        )
    return Mesh(np.array(jax.devices()[:count]), ("data",))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """The whole of every array on every device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def share(tree: Any, mesh: Mesh) -> Any:
    """Arrays split over the devices along their first axis."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec("data")))
