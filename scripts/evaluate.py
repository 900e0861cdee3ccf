"""Evaluates a checkpoint of a run on a whole split, every example once."""

import argparse
import math
import sys

import jax

from s5jax.evaluators.stride import check_stride
from s5jax.train import launch
from s5jax.train.config import explained
from s5jax.train.program import Program
from s5jax.train.trained import load

EXAMPLES = """examples:
  python scripts/evaluate.py --workdir=runs/digits
  python scripts/evaluate.py --workdir=runs/speech --stride=2     # speech at 8 kHz, of a model trained at 16 kHz
  python scripts/evaluate.py --workdir=runs/digits --split=val --checkpoint=latest
"""


def main() -> int:
    parser = launch.make_parser(__doc__, EXAMPLES)
    launch.add_workdir(parser)
    parser.add_argument("--split", choices=("train", "val", "test"), default="test", help="default: test")
    launch.add_checkpoint(parser)
    parser.add_argument(
        "--stride",
        type=int,
        default=1,
        metavar="N",
        help="zero-shot at an N-th of the sampling rate: every N-th sample, step sizes multiplied by N (default: 1)",
    )
    parser.add_argument("--data_dir", metavar="DIR", help="where the prepared data are, if not where they were")
    return launch.call(evaluate, parser.parse_args())


def evaluate(arguments: argparse.Namespace) -> str:
    split, stride = arguments.split, arguments.stride
    trained = load(arguments.workdir, arguments.checkpoint, arguments.data_dir)
    config, task = trained.config, trained.task
    with explained("--stride"):
        check_stride(config, task, split, stride)
    # On as many of the devices here as divide a batch: the run may have been made on another machine.
    program = Program(trained.experiment, num_devices=math.gcd(config.train.batch_size, jax.device_count()))
    values = program.evaluate(program.place(trained.state), split, stride=stride)
    words = ", ".join(f"{name} {values[name]:.4f}" for name in sorted(values, key=lambda name: name != task.judge[0]))
    return (
        f"{task.name}, {split} split, {len(task.splits[split])} examples: {words}"
        f" ({arguments.checkpoint} checkpoint, step {int(trained.state.step)})"
        + (f", one sample in {stride}" if stride > 1 else "")
    )


if __name__ == "__main__":
    sys.exit(main())
