"""Feeds a sequence to a trained causal model sample by sample, and shows how its class probabilities move."""

import argparse
import pathlib
import sys

import jax.numpy as jnp
import numpy as np

from s5jax import mixers
from s5jax.analysis.stream import Stream, plot_stream, stream
from s5jax.data.task import PER_STEP
from s5jax.evaluators.stability import report_unstable
from s5jax.train import launch
from s5jax.train.config import Config, UserError
from s5jax.train.trained import lacking, load
from s5jax.train.workdir import read_config

EXAMPLES = """examples:
  python scripts/train.py --config=configs/digits.py:s5 --workdir=runs/causal \\
    --config.mixers.s5.bidirectional=false
  python scripts/stream.py --workdir=runs/causal
  python scripts/stream.py --workdir=runs/causal --example=7 --prefill=32

Writes stream_SPLIT_EXAMPLE.png into the run's directory.
"""

LINES = 16
WIDTH = 40


def main() -> int:
    parser = launch.make_parser(__doc__, EXAMPLES)
    launch.add_workdir(parser)
    parser.add_argument("--split", choices=("train", "val", "test"), default="test", help="default: test")
    parser.add_argument("--example", type=int, default=0, metavar="I", help="which sequence of the split (default: 0)")
    parser.add_argument(
        "--prefill", type=int, default=0, metavar="K", help="samples to read at once before the rest (default: 0)"
    )
    launch.add_checkpoint(parser)
    return launch.call(run, parser.parse_args())


def run(arguments: argparse.Namespace) -> None:
    workdir, config = arguments.workdir, read_config(arguments.workdir)
    check_causal(workdir, config)
    without = lacking(config, "init_state", "step")
    if without:
        raise UserError(f"{', '.join(dict.fromkeys(without.values()))}, which this needs")
    trained = load(workdir, arguments.checkpoint)
    task, model = trained.task, trained.model
    if task.pairs:
        raise UserError(f"task {task.name} gives pairs of sequences, but this feeds one sequence to a model")
    if task.targets:
        raise UserError(f"task {task.name} is a regression: its models have no class probabilities to show")
    split = task.splits[arguments.split]
    given = [name for name in PER_STEP if name in split.arrays]
    if given:
        raise UserError(f"task {task.name} has a {given[0]} for each step, which this does not show")
    if not 0 <= arguments.example < len(split):
        raise UserError(f"--example: the {arguments.split} split has 0 to {len(split) - 1}, got {arguments.example}")
    warning = report_unstable(config, trained.state.evaluated["params"])
    if warning:
        print(f"warning: {warning}")

    length = task.length if split.lengths is None else int(split.lengths[arguments.example])
    stored = split.inputs[arguments.example, :length]
    inputs = task.prepare(jnp.asarray(stored)[None])[0]
    try:
        result = stream(model, inputs, arguments.prefill)
    except ValueError as error:
        raise UserError(f"--prefill: {error}") from error

    labels = np.asarray(split.labels[arguments.example])
    label = int(labels[length - 1] if task.per_step else labels)
    print(f"{task.name}, {arguments.split} example {arguments.example}, {length} samples, class {label}")
    print_moving(result)
    file = workdir / f"stream_{arguments.split}_{arguments.example}.png"
    plot_stream(result, stored, file, f"{workdir.name}: {file.stem.replace('_', ' ')}, class {label}")
    answer, whole = int(result.probabilities[-1].argmax()), int(result.parallel.argmax())
    print(f"sample by sample: class {answer}, at {result.samples_per_second:,.0f} samples/s")
    print(f"all at once:      class {whole}; the largest difference of a probability is {result.difference:.1e}")
    print(f"figure: {file}")


def check_causal(workdir: pathlib.Path, config: Config) -> None:
    """Raises UserError if a mixer reads in both directions."""
    for name in config.model.pattern:
        section = config.mixers[name]
        if mixers.ability(mixers.find(section.module), "CAUSAL", section.options):
            continue
        cures = {"bidirectional": "false", "causal": "true"}
        fields = [f"{field}={value}" for field, value in cures.items() if hasattr(section.options, field)]
        hint = f": train one with --config.mixers.{name}.{fields[0]}" if fields else ""
        raise UserError(f"{workdir} holds a model that reads in both directions, and so needs the whole sequence{hint}")


def print_moving(result: Stream) -> None:
    """Some lines of the most likely class and its probability as a bar."""
    count = len(result.probabilities)
    for at in np.unique(np.linspace(0, count - 1, min(LINES, count)).round().astype(int)):
        probabilities = result.probabilities[at]
        best, second = np.argsort(-probabilities)[:2]
        bar = ("█" * round(WIDTH * float(probabilities[best]))).ljust(WIDTH)
        print(
            f"{result.first + at:6d}  class {best}  {bar} {probabilities[best]:.3f}"
            f"   then {second}  {probabilities[second]:.3f}",
        )


if __name__ == "__main__":
    sys.exit(main())
