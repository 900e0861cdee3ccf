"""Measures what a batch costs: gathered inside the step from data on the device, and streamed from disk."""

import argparse
import contextlib
import dataclasses
import functools
import statistics
import sys
import time
from collections.abc import Callable

import jax
import numpy as np

from s5jax.data import batches
from s5jax.train import launch, resolve
from s5jax.train.build import build, load_task
from s5jax.train.config import Config, UserError
from s5jax.train.program import Program, gather

EXAMPLES = """examples:
  python scripts/benchmark_input.py --config=configs/lra/image.py:s5
  python scripts/benchmark_input.py --config=configs/lra/text.py:s5 --config.model.depth=1 --config.train.buckets=8

"step" is a training step with data on the device, "gather" the part of it that makes the batch, timed alone, and
"streamed" a step whose batch is read from the stored files while the one before is computed (as a rule from the
system's cache of them). They take turns; every second round reverses their order. The times are medians of the rounds.
With config.train.buckets, steps on cut batches are also timed.
"""


def main() -> int:
    parser = launch.make_parser(__doc__, EXAMPLES)
    parser.add_argument("--config", required=True, metavar="FILE[:ARG]", help="as for train.py, overrides too")
    parser.add_argument("--steps", type=int, default=20, metavar="N", help="steps a round (default: 20)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds (default: 5)")
    arguments, overrides = parser.parse_known_args()
    return launch.call(run, arguments, overrides)


def run(arguments: argparse.Namespace, overrides: list[str]) -> str:
    if min(arguments.steps, arguments.rounds) < 1:
        raise UserError("--steps and --rounds must be at least 1")
    values = resolve.load_config(arguments.config)
    resolve.override(values, overrides)
    return measure(resolve.resolve(values), arguments.steps, arguments.rounds)


def measure(config: Config, steps: int, rounds: int) -> str:
    """A table of the milliseconds that steps and their parts take."""
    task = load_task(config)
    experiment, state = build(config, task)

    def program(gib: float, buckets: int = 0) -> Program:
        train = dataclasses.replace(config.train, resident_gib=gib, buckets=buckets)
        return Program(dataclasses.replace(experiment, config=dataclasses.replace(config, train=train)))

    resident, streamed = program(float("inf")), program(0.0)
    size, batch = len(task.splits["train"]), config.train.batch_size
    random = np.random.default_rng(config.seed).integers(size, size=(steps, batch), dtype=np.int32)
    ready = list(resident.feeder.feeds("train", random))
    take = jax.jit(functools.partial(gather, task=task, length=None))

    def trained(made: Program, order: np.ndarray) -> Callable[[], None]:
        current = [made.place(jax.tree.map(np.asarray, state))]

        def run() -> None:
            # A stream is opened anew, so that all that it reads is in the time.
            with contextlib.closing(made.feeder.feeds("train", order)) as feeds:
                for number, feed in enumerate(feeds):
                    current[0], metrics = made.step(current[0], feed, number)
            jax.block_until_ready(metrics)

        return run

    def gathered() -> None:
        jax.block_until_ready([take(feed.examples, feed.places) for feed in ready])

    kinds = {"step": trained(resident, random), "gather": gathered, "streamed": trained(streamed, random)}
    if config.train.buckets:
        cut = program(float("inf"), config.train.buckets)
        order = batches.epoch_order(jax.random.key(config.seed), 0, size, batch, cut.feeder.bucket("train"))
        kinds["buckets"] = trained(cut, order[:steps])
    times: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(rounds + 1):
        for name in sorted(kinds, reverse=number % 2 == 1):
            begin = time.perf_counter()
            kinds[name]()
            if number:  # the first round compiles
                times[name].append(1000 * (time.perf_counter() - begin) / steps)
    medians = {name: statistics.median(values) for name, values in times.items()}
    stored = sum(x.nbytes for x in (task.splits["train"].inputs, task.splits["train"].labels))
    lines = [
        f"{task.name}: {size:,} training examples, {stored / 2**20:.0f} MiB stored, batches of {batch},"
        f" {jax.devices()[0].device_kind}; medians of {rounds} rounds of {steps} steps (least to largest)",
        *(f"  {name:9} {medians[name]:9.2f} ms  ({min(v):.2f} to {max(v):.2f})" for name, v in times.items()),
        f"gather / step {medians['gather'] / medians['step']:.2%}, streamed / step"
        f" {medians['streamed'] / medians['step']:.3f}"
        + (f", step / buckets {medians['step'] / medians['buckets']:.2f}" if config.train.buckets else ""),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
