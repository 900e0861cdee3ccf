"""The jitted functions of an experiment, on one mesh of devices."""

import functools
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from s5jax.objectives import Metrics
from s5jax.train.build import Experiment
from s5jax.train.feed import Feed, Feeder, gather, make_mesh
from s5jax.train.step import Hyper, TrainState, eval_step, train_step


class Program:
    """Training steps and evaluations of an experiment."""

    def __init__(self, experiment: Experiment, *, num_devices: int | None = None):
        config = experiment.config
        self.experiment = experiment
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

    def place(self, state: TrainState) -> TrainState:
        """A state as its steps want it: the whole on every device."""
        return jax.device_put(state, self.feeder.everywhere)

    def step(self, state: TrainState, feed: Feed, step: int) -> tuple[TrainState, Metrics]:
        """A training step on a feed: the state after it, and its metrics. The state given is used up.

        `step` is the number of steps done before: `state.step`, without asking the device for it.
        """
        return self.step_at(feed.length)(state, (feed.examples, feed.places), self.experiment.hyper(step))

    def evaluate(self, state: TrainState, name: str, *, stride: int = 1) -> dict[str, float]:
        """The objective's metrics over every example of a split, but for those in which nothing of it counts.

        The model gets every `stride`-th sample, with step sizes multiplied by `stride`: see `stride.check_stride`.
        """
        sums: list[Metrics] = []
        for feed, counted in self.feeder.evaluation(name):
            hyper: Hyper = {"objective": self.experiment.of_objective}
            if state.memory is not None:
                hyper["fresh"] = np.bool_(not sums)
            given = (feed.examples, feed.places)
            metrics, memory = self._evaluate(state, given, counted, hyper, feed.length, stride)
            state = state._replace(memory=memory)
            sums.append(metrics)
        totals: dict[str, Any] = {key: np.sum([s[key] for s in sums], axis=0, dtype=np.float64) for key in sums[0]}
        means = {key: float(total / weight) for key, (total, weight) in totals.items() if weight}
        summary = self.experiment.summary
        return {**means, **summary(self.experiment.task, means["loss"])} if summary and means else means
