"""Evaluates a checkpoint of a run on a whole split, every example once."""

import argparse
import dataclasses
import math
import pathlib
import sys
from typing import Literal

import jax

from s5jax.training import checkpoint
from s5jax.training import state as states
from s5jax.training.config import UserError, load_task
from s5jax.training.program import Program
from s5jax.training.workdir import claim_data, read_config

EXAMPLES = """examples:
  python scripts/evaluate.py --workdir=runs/digits
  python scripts/evaluate.py --workdir=runs/speech --every=2      # speech at 8 kHz, of a model trained at 16 kHz
  python scripts/evaluate.py --workdir=runs/digits --split=val --checkpoint=latest
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--workdir", type=pathlib.Path, required=True, metavar="DIR", help="the run's directory")
    parser.add_argument("--split", choices=("train", "val", "test"), default="test", help="default: test")
    parser.add_argument(
        "--checkpoint",
        choices=("best", "latest"),
        default="best",
        help="best: of the highest validation accuracy so far (default); latest: the newest",
    )
    parser.add_argument(
        "--every",
        type=int,
        default=1,
        metavar="N",
        help="zero-shot at an N-th of the sampling rate: every N-th sample, step sizes N times as long (default: 1)",
    )
    parser.add_argument(
        "--data_dir", type=pathlib.Path, metavar="DIR", help="where the prepared data are, if not where they were"
    )
    arguments = parser.parse_args()
    try:
        print(evaluate(arguments.workdir, arguments.split, arguments.checkpoint, arguments.every, arguments.data_dir))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def evaluate(
    workdir: pathlib.Path,
    split: str,
    which: Literal["best", "latest"],
    every: int = 1,
    data_dir: pathlib.Path | None = None,
) -> str:
    config = read_config(workdir, data_dir)
    # On as many of the devices here as divide a batch: the run may have been made on another machine.
    config = dataclasses.replace(config, num_devices=math.gcd(config.train.batch_size, jax.device_count()))
    task = load_task(config)
    claim_data(workdir, config)
    if not 1 <= every <= task.length:
        raise UserError(f"--every={every} must lie in 1..{task.length}, the samples of a sequence")
    if every > 1 and task.num_tokens is not None:
        raise UserError(f"--every={every} is for samples of a signal, but task {task.name} gives tokens")
    experiment, state = states.build(config, task)
    program = Program(config, task, experiment)
    state = checkpoint.read(workdir, which, state)
    values = program.evaluate(program.place(state), split, every=every)
    return (
        f"{task.name}, {split} split, {len(task.splits[split])} examples: accuracy {values['accuracy']:.4f},"
        f" loss {values['loss']:.4f} ({which} checkpoint, step {int(state.step)})"
        + (f", one sample in {every}" if every > 1 else "")
    )


if __name__ == "__main__":
    sys.exit(main())
