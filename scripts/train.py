"""Trains a model from a config file, or goes on training it where an earlier run stopped."""

import time

STARTED = time.perf_counter()

import argparse
import os
import pathlib
import sys

from s5jax.train import resolve
from s5jax.train.config import UserError

EXAMPLES = """examples:
  python scripts/train.py --config=configs/digits.py:s5 --workdir=runs/digits
  python scripts/train.py --config=configs/digits.py:s4d-lin --workdir=runs/slow --config.optim.lr=0.001
  python scripts/train.py --config=configs/lra/image.py:s5,debug --workdir=runs/debug   # after scripts/prepare_data.py
  python scripts/train.py --config=configs/digits.py:s5 --dry_run
  python scripts/train.py --config=configs/digits.py:s5 --workdir=runs/mine --config.model.pattern="('mine.mixer',)"

After the colon stands the model, one of s5, s5-ptd, s4d-lin, s4d-inv, s4d-legs, s4d-real, dss, s4-ptd, s4-legs,
s4-fout. The recipes of benchmark tasks also take flags, with commas between: debug (seconds on a CPU), published.
Modules of your own, a mixer or a task, are named with dots and found from the current folder.
Kill it at any moment and run the same command again: it goes on from the last checkpoint, to the same result.

"""


def main() -> int:
    sys.path.insert(0, os.getcwd())  # for modules of the user's
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=_help() if {"-h", "--help"} & set(sys.argv) else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config",
        required=True,
        metavar="FILE[:ARG]",
        help="config file, and the argument of its get_config(), usually the model",
    )
    parser.add_argument(
        "--workdir", type=pathlib.Path, metavar="DIR", help="the run's directory; made, or resumed if it exists"
    )
    parser.add_argument(
        "--dry_run", action="store_true", help="print the config, the parameters and a step's memory; train nothing"
    )
    arguments, overrides = parser.parse_known_args()
    try:
        values = resolve.load_config(arguments.config)
        resolve.override(values, overrides)
        config = resolve.resolve(values)
        if arguments.dry_run:
            from s5jax.train.inspect import dry_run

            print(dry_run(config))
            return 0
        if arguments.workdir is None:
            raise UserError("--workdir=DIR is missing: the folder for the run (--dry_run needs none)")
        from s5jax.train.loop import Interrupted, train

        try:
            train(config, arguments.workdir, STARTED)
        except Interrupted as interruption:
            print(interruption, flush=True)
            return 128 + interruption.signum
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; what was saved before is kept", flush=True)
        return 130
    if (arguments.workdir / "metrics.jsonl").exists():
        from s5jax.analysis.curves import plot_learning_curves

        print(f"learning curves: {plot_learning_curves(arguments.workdir)}")
    return 0


def _help() -> str:
    from s5jax.train.inspect import describe_fields

    return EXAMPLES + describe_fields()


if __name__ == "__main__":
    sys.exit(main())
