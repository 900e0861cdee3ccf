"""The jitted functions of a run, with its data on the devices."""

import functools
from typing import Any

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

__all__ = ["Program"]


class Program:
    """Training steps and evaluations of one experiment on one mesh. Splits stay on the devices, as stored."""

    def __init__(self, config: Config, task: Task, experiment: Experiment):
        self.batch_size = config.train.batch_size
        self.mesh = sharding.make_mesh(config.num_devices, self.batch_size)
        self._splits = task.splits
        self._label_type = np.float32 if task.targets else np.int32
        criterion = step.criterion_of(task)
        everywhere = NamedSharding(self.mesh, PartitionSpec())
        shared = NamedSharding(self.mesh, PartitionSpec("data"))

        def gather(split: dict[str, Array], index: Array) -> dict[str, Array]:
            return jax.lax.with_sharding_constraint(step.gather(split, index, task.prepare), shared)

        def train_step(state: TrainState, split: dict[str, Array], index: Array) -> tuple[TrainState, dict[str, Array]]:
            return step.train_step(
                state,
                gather(split, index),
                graphdef=experiment.graphdef,
                optimizer=experiment.optimizer,
                key=random_keys(config.seed).dropout,
                criterion=criterion,
            )

        def eval_step(state: TrainState, split: dict[str, Array], index: Array, counted: Array) -> dict[str, Array]:
            return step.eval_step(
                state, gather(split, index), counted, graphdef=experiment.graphdef, criterion=criterion
            )

        self._train_step = jax.jit(train_step, donate_argnums=0, out_shardings=everywhere)
        self._eval_step = jax.jit(eval_step, out_shardings=everywhere)

    @functools.cache  # noqa: B019 (a program lives as long as its process)
    def _resident(self, name: str) -> dict[str, Array]:
        split: Split = self._splits[name]
        arrays = {"inputs": split.inputs, "labels": split.labels.astype(self._label_type)}
        if split.lengths is not None:
            arrays["lengths"] = split.lengths.astype(np.int32)
        return sharding.replicate(arrays, self.mesh)

    def place(self, state: TrainState) -> TrainState:
        """A state as its steps want it: the whole on every device."""
        return sharding.replicate(state, self.mesh)

    def train_step(self, state: TrainState, index: Int[np.ndarray, " batch"]) -> tuple[TrainState, dict[str, Array]]:
        """One step on the training examples at `index`. The state given is used up."""
        return self._train_step(state, self._resident("train"), sharding.share(index, self.mesh))

    def evaluate(self, state: TrainState, name: str) -> dict[str, float]:
        """`loss` and `accuracy` over every example of a split."""
        split = self._splits[name]
        sums = [
            self._eval_step(
                state, self._resident(name), sharding.share(index, self.mesh), sharding.share(counted, self.mesh)
            )
            for index, counted in zip(*batches.padded_batches(len(split), self.batch_size), strict=True)
        ]
        total = {key: float(np.sum([s[key] for s in sums], dtype=np.float64)) for key in ("loss", "correct", "count")}
        return {"loss": total["loss"] / total["count"], "accuracy": total["correct"] / total["count"]}

    def step_memory(self, state: TrainState) -> dict[str, int]:
        """Bytes that a training step takes on each device, from the compiled program."""
        index = sharding.share(jnp.zeros(self.batch_size, jnp.int32), self.mesh)
        analysis: Any = self._train_step.lower(state, self._resident("train"), index).compile().memory_analysis()
        return {
            "state": sum(x.nbytes for x in jax.tree.leaves(state)),
            "data": sum(x.nbytes for x in self._resident("train").values()),
            "scratch": analysis.temp_size_in_bytes,
        }
