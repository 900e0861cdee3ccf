"""The batches of a split on the devices, whether it lies there whole or is read from disk."""

import contextlib
from collections.abc import Generator, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int

from s5jax.data import batches
from s5jax.data.task import PER_STEP, Split, Task
from s5jax.train.config import Config, UserError


def make_mesh(num_devices: int, batch_size: int) -> Mesh:
    """A mesh of one axis, "data", over the first `num_devices` devices (0: all), which share each batch.

    `jax.jit` sees one global batch: every mean, a batch norm's too, is the same on any number of devices. UserError if
    there are fewer devices, or they do not divide the batch.
    """
    if jax.process_count() > 1:
        raise UserError("training on several hosts is not supported yet: start one process")
    if num_devices > jax.device_count():
        raise UserError(f"config.num_devices is {num_devices}, but there are {jax.device_count()} devices")
    count = num_devices or jax.device_count()
    if batch_size % count:
        fault = f"is not divisible by {count} devices: change it or config.num_devices"
        raise UserError(f"config.train.batch_size {batch_size} {fault}")
    return Mesh(np.array(jax.devices()[:count]), ("data",))


class Feed(NamedTuple):
    """The input of a step: stored `examples`, of a whole split or of one batch; the `places` (batch,) of the batch in
    them; and the `length` that sequences are cut to, or `None`."""

    examples: dict[str, Array]
    places: Array
    length: int | None


def gather(
    examples: dict[str, Array], places: Int[Array, " batch"], task: Task, *, length: int | None, stride: int = 1
) -> dict[str, Array]:
    """The batch of a feed of a task, inside the jitted step.

    The sequences are cut to `length` samples (`None`: all), and of these 0, stride, 2 stride, ... are kept.
    """
    batch = {name: jnp.take(array, places, axis=0) for name, array in examples.items()}
    batch["inputs"] = task.prepare(batch["inputs"])
    if not task.targets:
        batch["labels"] = batch["labels"].astype(jnp.int32)
    along_time = ("inputs", *PER_STEP, *(("labels", "weights") if task.per_step else ()))
    for name in [name for name in along_time if name in batch]:
        batch[name] = jax.lax.slice_in_dim(batch[name], 0, length, stride, 1 + task.pairs)
    if stride > 1 and "lengths" in batch:
        batch["lengths"] = -(-batch["lengths"] // stride)
    return batch


class Feeder:
    """Puts the batches of a task's splits on a mesh of devices.

    Splits stay on the devices as they are stored; the jitted steps gather batches from them. A split that is too large
    for that is read from disk, a few batches ahead: its batches are the same bit for bit.
    """

    def __init__(self, config: Config, task: Task, mesh: Mesh):
        self.batch_size, self._task, self._splits = config.train.batch_size, task, task.splits
        self._carried = config.train.carry_state
        # Arrays whole on every device, or split over the devices along their first axis.
        self.everywhere, self.shared = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
        limit = config.train.resident_gib * 2**30
        self.resident = {name for name, split in task.splits.items() if split.inputs.nbytes <= limit}
        self._on_device: dict[int, dict[str, Array]] = {}
        self._bounds: list[int] = []
        self._buckets: dict[str, np.ndarray] = {}
        lengths = {name: np.asarray(split.lengths) for name, split in task.splits.items() if split.lengths is not None}
        if config.train.buckets and "train" in lengths:
            from s5jax.data import buckets

            self._bounds = buckets.bucket_bounds(lengths["train"], config.train.buckets, task.length)
            self._buckets = {name: buckets.fitting(values, self._bounds) for name, values in lengths.items()}

    def bucket(self, name: str) -> Int[np.ndarray, " N"] | None:
        """The number of the length that each example of a split needs, where batches are cut."""
        return self._buckets.get(name)

    def feeds(self, name: str, order: Iterable[Int[np.ndarray, " batch"]]) -> Generator[Feed]:
        """The feeds of steps on a split, given the examples of each batch in `order`."""
        split, bucket = self._splits[name], self.bucket(name)

        def feed(index: np.ndarray) -> Feed:
            length = None if bucket is None else self._bounds[int(bucket[index].max())]
            if name in self.resident:
                return Feed(self._on_device[id(split)], jax.device_put(index, self.everywhere), length)
            places = jax.device_put(np.arange(index.size, dtype=np.int32), self.everywhere)
            return Feed(self._to_device(split.select(index)), places, length)

        if name in self.resident:
            if id(split) not in self._on_device:  # one that has two names is there once
                self._on_device[id(split)] = self._to_device(split)
            yield from map(feed, order)
        else:
            from s5jax.train.ahead import ahead

            yield from ahead(feed, order)

    def evaluation(self, name: str) -> Generator[tuple[Feed, Array]]:
        """Every example of a split once: feeds, and which examples of each count."""
        bucket, size = self.bucket(name), len(self._splits[name])
        if self._carried:
            index, counted = batches.lanes(size, self.batch_size, padded=True)
        else:
            order = np.arange(size) if bucket is None else np.argsort(bucket, kind="stable")
            index, counted = batches.padded_batches(order, self.batch_size)
        with contextlib.closing(self.feeds(name, index)) as feeds:
            for feed, counts in zip(feeds, counted, strict=True):
                yield feed, jax.device_put(counts, self.shared)

    def _to_device(self, split: Split) -> dict[str, Array]:
        arrays = {name: np.asarray(x, type_of(self._task, name, x)) for name, x in split.arrays.items()}
        return jax.device_put(arrays, self.everywhere)


def type_of(task: Task, name: str, array: np.ndarray) -> Any:
    few_bytes = task.per_step and np.issubdtype(array.dtype, np.unsignedinteger) and array.itemsize < 4
    labels = np.float32 if task.targets else array.dtype if few_bytes else np.int32
    types = {"labels": labels, "lengths": np.int32, "rate": np.float32, "weights": np.float32}
    return types.get(name, array.dtype)
