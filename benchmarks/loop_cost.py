"""Measures what the training loop costs in addition to its steps."""

import contextlib
import functools
import io
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import cases, measure
from s5jax.data.prepare import Request, prepare
from s5jax.train import loop, resolve
from s5jax.train.build import Experiment, build
from s5jax.train.checkpoint import Checkpoints
from s5jax.train.program import Feed, Program, gather
from s5jax.train.step import TrainState, train_step

__all__ = ["report", "run"]

STEPS = 4
"""Steps in a turn: first by the loop, then the same number alone."""

EPOCH = 96_000 // 50
"""Steps from one checkpoint to the next in the recipe."""


def run(repeats: int, advance: Callable[[float], Any]) -> dict[str, Any]:
    """Seconds per step of the loop on ListOps, and of the same step alone on a given batch; they take turns.

    The loop gathers batches, reads and writes metrics and draws a progress bar. In every other turn it saves a
    checkpoint and waits for it.
    """
    with tempfile.TemporaryDirectory() as folder:
        values = resolve.load_config(f"{cases.ROOT}/configs/lra/listops.py:s5")
        total = STEPS * (2 * repeats + 2)
        sizes = {"train": total * resolve.resolve(values).train.batch_size // 2, "val": 50, "test": 50}
        request = Request(data_dir=pathlib.Path(folder), generate=True, sizes=sizes)
        prepare("listops", request, say=lambda _: None)
        settings = {"task.data_dir": folder, "num_devices": 1, "train.epochs": 2, "log.every_steps": STEPS}
        settings |= {"train.eval_every_steps": total, "train.checkpoint_every_steps": 2 * STEPS}
        resolve.override(values, [f"--config.{name}={value}" for name, value in settings.items()])
        config = resolve.resolve(values)
        times: dict[str, list[float]] = {"loop": [], "step": []}

        class Timed(Program):
            """Interrupts the loop after each turn to time the same number of steps alone."""

            def __init__(self, experiment: Experiment):
                super().__init__(experiment)
                self._alone = _alone(experiment)
                self._taken, self._begin = 0, 0.0

            def step(self, state: TrainState, feed: Feed, step: int) -> Any:
                if self._taken % STEPS == 0:
                    jax.block_until_ready(state)
                    if self._taken:
                        times["loop"].append((time.perf_counter() - self._begin) / STEPS)
                        times["step"].append(self._alone())
                        advance(0.5)
                    self._begin = time.perf_counter()
                self._taken += 1
                return super().step(state, feed, step)

        class Waiting(Checkpoints):
            """Waits for the checkpoint within the loop's time, so that it is not written during the steps alone."""

            def save(self, *arguments: Any) -> None:
                super().save(*arguments)
                self.wait()

        kept = loop.Program, loop.Checkpoints
        loop.Program, loop.Checkpoints = Timed, Waiting  # type: ignore[misc, assignment]
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(_Terminal()):
                loop.train(config, pathlib.Path(folder) / "run")
        finally:
            loop.Program, loop.Checkpoints = kept  # type: ignore[misc]
    return {"batch": config.train.batch_size, **{name: values[1:] for name, values in times.items()}}


class _Terminal(io.StringIO):
    """Stands for a terminal, since the loop draws its progress bar only there."""

    def isatty(self) -> bool:
        return True


def _alone(experiment: Experiment) -> Callable[[], float]:
    """Returns a function that takes `STEPS` steps on a given batch and returns the seconds per step."""
    config, task = experiment.config, experiment.task
    types = {"labels": np.int32, "lengths": np.int32}
    arrays = task.splits["train"].arrays.items()
    examples = {name: jnp.asarray(array, types.get(name, array.dtype)) for name, array in arrays}
    batch = gather(examples, jnp.arange(config.train.batch_size), task, length=None)
    parts = {name: getattr(experiment, name) for name in ("graphdef", "optimizer", "objective")}
    current, hyper = [build(config, task)[1]], experiment.hyper(0)
    program = measure.compile_program(functools.partial(train_step, **parts), current[0], batch, hyper, donate=True)

    def take() -> float:
        begin = time.perf_counter()
        for _ in range(STEPS):
            current[0], metrics = program.run(current[0], batch, hyper)
        jax.block_until_ready(metrics)
        return (time.perf_counter() - begin) / STEPS

    return take


def report(results: dict[str, Any]) -> list[str]:
    """The cost of the loop from turns without a checkpoint, plus that of a checkpoint at the recipe's interval."""
    alone, whole = results["step"], results["loop"]
    extra = [loop - step for loop, step in zip(whole, alone, strict=True)]
    ratio = statistics.median(b / a for a, b in zip(alone[1::2], whole[1::2], strict=True)) - 1
    checkpoint = STEPS * (statistics.median(extra[::2]) - statistics.median(extra[1::2]))  # the first turn has one
    step = statistics.median(alone)
    cost = ratio + checkpoint / (EPOCH * step)
    noise = ", which is noise" if ratio < 0 else ""
    text = (
        f"ListOps recipe, batch {results['batch']}: a step alone takes {1e3 * step:,.0f} ms. The difference between the"
        f" loop and the step alone is {ratio:+.1%}{noise} (median of {len(alone[1::2])} turns of {STEPS} steps). A"
        f" checkpoint, every {EPOCH:,} steps, adds {checkpoint:.1f} s. Together: {cost:+.1%}"
    )
    return [measure.aim(text, "5 %", cost <= 0.05)]
