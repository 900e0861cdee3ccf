"""The jitted functions of a run, and the way of its data to the devices."""

import collections
import contextlib
import functools
import itertools
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Int

from s5jax.data import batches
from s5jax.data.task import Split, Task
from s5jax.training import sharding, step
from s5jax.training.config import Config
from s5jax.training.state import Experiment, TrainState, random_keys

__all__ = ["Feed", "Program"]

AHEAD = 3
"""Calls whose data are read from disk before they are needed."""


class Feed(NamedTuple):
    """What one call of a jitted function works on."""

    examples: dict[str, Array]
    """Arrays as stored: a whole split that stays on the devices, or the examples of this call alone."""
    places: Array
    """(steps, batch): where among them those of each step are."""
    length: int | None
    """Samples of each sequence, the same for all batches of the call; `None`: all."""

    @property
    def steps(self) -> int:
        return self.places.shape[0]


class Program:
    """Training steps and evaluations of one experiment on one mesh.

    Splits stay on the devices as they are stored, and are gathered from inside the jitted functions. One that is too
    large for that is read from disk, a few calls ahead, in the same form: the batches are the same bit for bit. (Of
    several devices each gets the examples of the whole call, as stored, and works on its share.)
    """

    def __init__(self, config: Config, task: Task, experiment: Experiment):
        self.batch_size = config.train.batch_size
        self.mesh = sharding.make_mesh(config.num_devices, self.batch_size)
        self._splits = task.splits
        self._label_type = np.float32 if task.targets else np.int32
        self._resident_bytes = config.train.resident_gib * 2**30
        self._on_device: dict[int, dict[str, Array]] = {}
        self._bounds: list[int] = []
        self._buckets: dict[str, np.ndarray] = {}
        train_lengths = task.splits["train"].lengths
        if config.train.buckets and train_lengths is not None:
            self._bounds = batches.bucket_bounds(train_lengths, config.train.buckets, task.length)
            lengths = {name: np.asarray(split.lengths) for name, split in task.splits.items()}
            self._buckets = {name: batches.fitting(values, self._bounds) for name, values in lengths.items()}
        criterion = step.criterion_of(task)
        everywhere = NamedSharding(self.mesh, PartitionSpec())
        shared = NamedSharding(self.mesh, PartitionSpec("data"))
        gather = functools.partial(step.gather, prepare=task.prepare, time=1 + task.pairs)

        def train_steps(
            state: TrainState, examples: dict[str, Array], index: Array, length: int | None
        ) -> tuple[TrainState, dict[str, Array]]:
            def one(state: TrainState, index: Array) -> tuple[TrainState, dict[str, Array]]:
                batch = jax.lax.with_sharding_constraint(gather(examples, index, length=length), shared)
                return step.train_step(
                    state,
                    batch,
                    graphdef=experiment.graphdef,
                    optimizer=experiment.optimizer,
                    key=random_keys(config.seed).dropout,
                    criterion=criterion,
                )

            if len(index) > 1:
                return jax.lax.scan(one, state, index)
            state, metrics = one(state, index[0])
            return state, {name: value[None] for name, value in metrics.items()}

        def eval_step(
            state: TrainState, examples: dict[str, Array], index: Array, counted: Array, length: int | None, every: int
        ) -> dict[str, Array]:
            batch = gather(examples, index[0], length=length, every=every)
            return step.eval_step(
                state,
                jax.lax.with_sharding_constraint(batch, shared),
                counted,
                graphdef=experiment.graphdef,
                criterion=criterion,
                step_rescale=float(every),
            )

        self._train_steps = jax.jit(train_steps, donate_argnums=0, static_argnums=3, out_shardings=everywhere)
        self._eval_step = jax.jit(eval_step, static_argnums=(4, 5), out_shardings=everywhere)

    def bucket(self, name: str) -> Int[np.ndarray, " N"] | None:
        """The number of the length that each example of a split needs, where batches are cut."""
        return self._buckets.get(name)

    def is_resident(self, name: str) -> bool:
        """Whether a split stays on the devices."""
        return self._splits[name].inputs.nbytes <= self._resident_bytes

    def place(self, state: TrainState) -> TrainState:
        """A state as its steps want it: the whole on every device."""
        return sharding.replicate(state, self.mesh)

    def feeds(self, name: str, calls: Iterable[Int[np.ndarray, "steps batch"]]) -> Generator[Feed]:
        """What the calls of a jitted function work on.

        Args:
          name: of the split.
          calls: the examples of each batch of each call.
        """
        if self.is_resident(name):
            yield from (self._feed(name, self._resident(name), index, index) for index in calls)
        else:
            yield from _ahead(functools.partial(self._streamed, name), calls)

    def train_steps(self, state: TrainState, feed: Feed) -> tuple[TrainState, dict[str, Array]]:
        """A step on each batch of a feed: the state after them, and the metrics of each. The state given is used up."""
        return self._train_steps(state, feed.examples, feed.places, feed.length)

    def evaluate(self, state: TrainState, name: str, *, every: int = 1) -> dict[str, float]:
        """`loss` and `accuracy` over every example of a split.

        Args:
          state: of the model.
          name: of the split.
          every: the model gets every so manieth sample, and step sizes as many times as long.
        """
        bucket = self.bucket(name)
        count = len(self._splits[name])
        order = np.arange(count) if bucket is None else np.argsort(bucket, kind="stable")
        index, counted = batches.padded_batches(order, self.batch_size)
        with contextlib.closing(self.feeds(name, index[:, None])) as feeds:
            sums = [
                self._eval_step(state, feed.examples, feed.places, sharding.share(c, self.mesh), feed.length, every)
                for feed, c in zip(feeds, counted, strict=True)
            ]
        total = {key: float(np.sum([s[key] for s in sums], dtype=np.float64)) for key in ("loss", "correct", "count")}
        return {"loss": total["loss"] / total["count"], "accuracy": total["correct"] / total["count"]}

    def step_memory(self, state: TrainState) -> dict[str, int]:
        """Bytes that a training step takes on each device, from the compiled program."""
        split = self._splits["train"]
        examples = {
            name: jax.ShapeDtypeStruct(array.shape, self._types(array, name)) for name, array in _arrays(split).items()
        }
        if not self.is_resident("train"):
            examples = {n: jax.ShapeDtypeStruct((self.batch_size, *x.shape[1:]), x.dtype) for n, x in examples.items()}
        index = jax.ShapeDtypeStruct((1, self.batch_size), jnp.int32)
        analysis: Any = self._train_steps.lower(state, examples, index, None).compile().memory_analysis()
        return {
            "state": sum(x.nbytes for x in jax.tree.leaves(state)),
            "data": sum(x.size * x.dtype.itemsize for x in examples.values()),
            "scratch": analysis.temp_size_in_bytes,
        }

    def _resident(self, name: str) -> dict[str, Array]:
        split = self._splits[name]  # one that has two names is there once
        if id(split) not in self._on_device:
            self._on_device[id(split)] = self._to_device(split)
        return self._on_device[id(split)]

    def _streamed(self, name: str, index: Int[np.ndarray, "steps batch"]) -> Feed:
        examples = self._to_device(self._splits[name].select(index.ravel()))
        return self._feed(name, examples, index, np.arange(index.size, dtype=np.int32).reshape(index.shape))

    def _feed(self, name: str, examples: dict[str, Array], index: np.ndarray, place: np.ndarray) -> Feed:
        """Of the examples `index` of a split, which are at `place` in the arrays given."""
        bucket = self.bucket(name)
        length = None if bucket is None else self._bounds[int(bucket[index].max())]
        return Feed(examples, sharding.replicate(place, self.mesh), length)

    def _to_device(self, split: Split) -> dict[str, Array]:
        arrays = {name: np.asarray(array, self._types(array, name)) for name, array in _arrays(split).items()}
        return sharding.replicate(arrays, self.mesh)

    def _types(self, array: np.ndarray, name: str) -> Any:
        return {"inputs": array.dtype, "labels": self._label_type, "lengths": np.int32}[name]


def _arrays(split: Split) -> dict[str, np.ndarray]:
    arrays = {"inputs": split.inputs, "labels": split.labels}
    return arrays if split.lengths is None else {**arrays, "lengths": split.lengths}


def _ahead(make: Callable[[Any], Feed], calls: Iterable[Any]) -> Generator[Feed]:
    """`make` of each, done by a thread some time before it is asked for."""
    calls = iter(calls)
    with ThreadPoolExecutor(1) as thread:
        waiting = collections.deque(thread.submit(make, call) for call in itertools.islice(calls, AHEAD))
        try:
            while waiting:
                feed = waiting.popleft().result()
                waiting.extend(thread.submit(make, call) for call in itertools.islice(calls, 1))
                yield feed
        finally:
            thread.shutdown(cancel_futures=True)
