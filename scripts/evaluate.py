"""Evaluates a checkpoint of a run on a whole split, every example once."""

import argparse
import math
import os
import pathlib
import sys
from typing import Literal

import jax

from s5jax.train.build import build, load_task
from s5jax.train.checkpoint import read
from s5jax.train.config import UserError
from s5jax.train.program import Program
from s5jax.train.workdir import check_data, read_config

EXAMPLES = """examples:
  python scripts/evaluate.py --workdir=runs/digits
  python scripts/evaluate.py --workdir=runs/speech --stride=2     # speech at 8 kHz, of a model trained at 16 kHz
  python scripts/evaluate.py --workdir=runs/digits --split=val --checkpoint=latest
"""


def main() -> int:
    sys.path.insert(0, os.getcwd())  # for modules of the user's
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
        help="best: by the task's judge on the validation split (default); latest: the newest",
    )
    parser.add_argument(
        "--stride",
        type=int,
        default=1,
        metavar="N",
        help="zero-shot at an N-th of the sampling rate: every N-th sample, step sizes multiplied by N (default: 1)",
    )
    parser.add_argument(
        "--data_dir", type=pathlib.Path, metavar="DIR", help="where the prepared data are, if not where they were"
    )
    arguments = parser.parse_args()
    try:
        print(evaluate(arguments.workdir, arguments.split, arguments.checkpoint, arguments.stride, arguments.data_dir))
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def evaluate(
    workdir: pathlib.Path,
    split: str,
    which: Literal["best", "latest"],
    stride: int = 1,
    data_dir: pathlib.Path | None = None,
) -> str:
    config = read_config(workdir, data_dir)
    task = load_task(config)
    check_data(workdir, config, task)
    experiment, state = build(config, task)
    # On as many of the devices here as divide a batch: the run may have been made on another machine.
    program = Program(experiment, num_devices=math.gcd(config.train.batch_size, jax.device_count()))
    state = read(workdir, which, state, config)
    values = program.evaluate(program.place(state), split, stride=stride)
    words = ", ".join(f"{name} {values[name]:.4f}" for name in sorted(values, key=lambda name: name != task.judge[0]))
    return (
        f"{task.name}, {split} split, {len(task.splits[split])} examples: {words}"
        f" ({which} checkpoint, step {int(state.step)})" + (f", one sample in {stride}" if stride > 1 else "")
    )


if __name__ == "__main__":
    sys.exit(main())
