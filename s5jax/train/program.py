"""The jitted functions of an experiment on one mesh of devices, and the batches that they are fed."""

import contextlib
import functools
import time
from collections.abc import Generator, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int

from s5jax.data import batches
from s5jax.data.task import PER_STEP, Split, Task
from s5jax.objectives import Metrics
from s5jax.train.build import Experiment
from s5jax.train.config import Config, UserError
from s5jax.train.step import Hyper, TrainState, eval_step, train_step

SILENCE = 60.0
"""Seconds between two lines of an evaluation where there is no terminal to show a bar."""


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
    """The input of a step: stored `examples`, of a whole split or of one batch; the indices `places` (batch,) of the
    batch's examples; and the `length` that sequences are cut to, or `None`."""

    examples: dict[str, Array]
    places: Array
    length: int | None


def gather(
    examples: dict[str, Array], places: Int[Array, " batch"], task: Task, *, length: int | None, stride: int = 1
) -> dict[str, Array]:
    """Gathers the batch of a feed, inside the jitted step.

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
        self.batch_size, self._carried, self._task = config.train.batch_size, config.train.carry_state, task
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
        """For each example of a split, the index of the length it needs; `None` if batches are not cut."""
        return self._buckets.get(name)

    def feeds(self, name: str, order: Iterable[Int[np.ndarray, " batch"]]) -> Generator[Feed]:
        """The feeds of steps on a split, given the examples of each batch in `order`."""
        split, bucket = self._task.splits[name], self.bucket(name)

        def feed(index: np.ndarray) -> Feed:
            length = None if bucket is None else self._bounds[int(bucket[index].max())]
            if name in self.resident:
                return Feed(self._on_device[id(split)], jax.device_put(index, self.everywhere), length)
            places = jax.device_put(np.arange(index.size, dtype=np.int32), self.everywhere)
            return Feed(self._to_device(split.select(index)), places, length)

        if name not in self.resident:
            from s5jax.train.ahead import ahead

            yield from ahead(feed, order)
            return
        if id(split) not in self._on_device:  # one that has two names is there once
            self._on_device[id(split)] = self._to_device(split)
        yield from map(feed, order)

    def evaluation(self, name: str) -> Generator[tuple[Feed, Array]]:
        """Yields feeds with every example of a split once, and for each feed which of its examples count."""
        bucket, size = self.bucket(name), len(self._task.splits[name])
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


class Program:
    """Training steps and evaluations of an experiment."""

    def __init__(self, experiment: Experiment, *, num_devices: int | None = None):
        config, self.experiment = experiment.config, experiment
        self.mesh = make_mesh(config.num_devices if num_devices is None else num_devices, config.train.batch_size)
        self.feeder = Feeder(config, experiment.task, self.mesh)
        everywhere, shared = self.feeder.everywhere, self.feeder.shared
        parts = {"graphdef": experiment.graphdef, "objective": experiment.objective}
        trained = {**parts, "optimizer": experiment.optimizer, "micro_batches": config.optim.micro_batches}

        def batch_of(given: tuple[dict[str, Array], Array], **cut: Any) -> dict[str, Array]:
            return jax.lax.with_sharding_constraint(gather(*given, experiment.task, **cut), shared)

        @functools.cache
        def step_at(length: int | None) -> Any:
            step = functools.partial(train_step, gather=functools.partial(batch_of, length=length), **trained)
            return jax.jit(step, donate_argnums=0, out_shardings=everywhere)

        @functools.partial(jax.jit, static_argnums=(4, 5), out_shardings=everywhere)
        def evaluate(
            state: TrainState, given: Any, counted: Any, hyper: Hyper, length: int | None, stride: int
        ) -> tuple[Metrics, Any]:
            batch = {**batch_of(given, length=length, stride=stride), "counted": counted}
            return eval_step(state, batch, hyper, rate=None if stride == 1 else float(stride), **parts)

        self.step_at, self._evaluate = step_at, evaluate

    @contextlib.contextmanager
    def here(self) -> Iterator[None]:
        """The context in which to call the jitted functions: their mesh, and the precision of matrix products."""
        precision = self.experiment.config.train.matmul_precision
        with contextlib.ExitStack() as stack:
            stack.enter_context(jax.set_mesh(self.mesh))
            if precision != "default":
                stack.enter_context(jax.default_matmul_precision(precision))
            yield

    def place(self, state: TrainState) -> TrainState:
        """Copies a state to every device, as the steps expect."""
        return jax.device_put(state, self.feeder.everywhere)

    def step(self, state: TrainState, feed: Feed, step: int) -> tuple[TrainState, Metrics]:
        """A training step on a feed: the state after it, and its metrics. The given state is donated.

        `step` is the number of steps done before: `state.step`, without asking the device for it.
        """
        hyper = self.experiment.hyper(step)
        with self.here():
            return self.step_at(feed.length)(state, (feed.examples, feed.places), hyper)

    def evaluate(self, state: TrainState, name: str, *, stride: int = 1) -> dict[str, float]:
        """The objective's metrics over a whole split, without those whose total weight is 0.

        The model gets every `stride`-th sample, with step sizes multiplied by `stride`: see `stride.check_stride`.
        """
        sums: list[Metrics] = []
        count = -(-len(self.experiment.task.splits[name]) // self.feeder.batch_size)
        shown: dict[str, Any] = {"total": count, "unit": "batch", "delay": 2, "leave": False, "disable": None}
        bar = tqdm.tqdm(self.feeder.evaluation(name), f"evaluating {name}", **shown)
        said = time.monotonic()
        for feed, counted in bar:
            fresh = {} if state.memory is None else {"fresh": np.bool_(not sums)}
            hyper: Hyper = {"objective": self.experiment.of_objective, **fresh}
            given = (feed.examples, feed.places)
            with self.here():
                metrics, memory = self._evaluate(state, given, counted, hyper, feed.length, stride)
            state = state._replace(memory=memory)
            sums.append(metrics)
            jax.block_until_ready(sums[-2:-1])  # so that the bar shows what is done, not what is asked for
            if bar.disable and time.monotonic() > said + SILENCE:
                said = time.monotonic()
                print(f"evaluating {name}: {len(sums)} of {count} batches", flush=True)
        sums = jax.device_get(sums)  # all at once
        totals: dict[str, Any] = {key: np.sum([s[key] for s in sums], axis=0, dtype=np.float64) for key in sums[0]}
        means = {key: float(total / weight) for key, (total, weight) in totals.items() if weight}
        summary = self.experiment.summary
        return {**means, **summary(self.experiment.task, means["loss"])} if summary and means else means
