"""Draws what trained models make of sinusoids faster than those they were trained on, and writes the numbers."""

import argparse
import os
import pathlib
import sys

from s5jax.analysis.sinusoid import plot_responses, respond, table, write_responses
from s5jax.train.config import UserError
from s5jax.train.trained import load
from s5jax.train.workdir import read_config

EXAMPLES = """examples:
  python scripts/train.py --config=configs/sinusoid.py:s4d-legs --workdir=runs/sinusoid-s4d-legs
  python scripts/train.py --config=configs/sinusoid.py:s4-ptd --workdir=runs/sinusoid-s4-ptd
  python scripts/sinusoid.py --workdirs runs/sinusoid-s4d-legs runs/sinusoid-s4-ptd --out=runs/sinusoid.png

The figure shows amplitude (truly 1) and frequency as predicted, means over eight phases, against the true frequency.
The same numbers are in a CSV file beside it. The table has mean absolute errors up to the end of training and beyond.
"""


def main() -> int:
    sys.path.insert(0, os.getcwd())  # for modules of the user's
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--workdirs", type=pathlib.Path, required=True, nargs="+", metavar="DIR", help="directories of runs"
    )
    parser.add_argument(
        "--out", type=pathlib.Path, required=True, metavar="FILE.png", help="the figure; FILE.csv has its numbers"
    )
    parser.add_argument(
        "--checkpoint",
        choices=("best", "latest"),
        default="best",
        help="best: by the task's judge on the validation split (default); latest: the newest",
    )
    arguments = parser.parse_args()
    try:
        print(extrapolate(arguments))
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def extrapolate(arguments: argparse.Namespace) -> str:
    workdirs, out = arguments.workdirs, arguments.out
    if out.suffix != ".png":
        raise UserError(f"--out: the figure's name must end in .png, got {out}")
    if not out.absolute().parent.is_dir():
        raise UserError(f"--out: there is no directory {out.parent}")
    for workdir in workdirs:  # before the work on any
        task = read_config(workdir).task.name
        if task != "sinusoid":
            raise UserError(f"{workdir} holds a model of the task {task}, not of sinusoid")
    names = [workdir.name for workdir in workdirs]
    if len(set(names)) < len(names):
        names = [str(workdir) for workdir in workdirs]
    responses = [
        respond(name, load(workdir, arguments.checkpoint).model) for name, workdir in zip(names, workdirs, strict=True)
    ]
    plot_responses(responses, out)
    write_responses(responses, out.with_suffix(".csv"))
    return f"{table(responses)}\nfigure:  {out}\nnumbers: {out.with_suffix('.csv')}"


if __name__ == "__main__":
    sys.exit(main())
