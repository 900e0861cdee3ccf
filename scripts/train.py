"""Trains a model from a config file, or goes on training it where an earlier run stopped."""

import time

STARTED = time.perf_counter()

import argparse
import pathlib
import sys

from s5jax.analysis.curves import plot_learning_curves
from s5jax.training import config as configs
from s5jax.training.inspect import describe_fields, dry_run
from s5jax.training.loop import Interrupted, train

EXAMPLES = """examples:
  python scripts/train.py --config=configs/digits.py:s5 --workdir=runs/digits
  python scripts/train.py --config=configs/digits.py:s4d-lin --workdir=runs/slow --config.optim.lr=0.001
  python scripts/train.py --config=configs/lra/image.py:s5,debug --workdir=runs/debug   # after scripts/prepare_data.py
  python scripts/train.py --config=configs/digits.py:s5 --dry_run

After the colon stands the model, one of s5, s5-ptd, s4d-lin, s4d-inv, s4d-legs, s4d-real, dss, s4-ptd, s4-legs,
s4-fout. The recipes of benchmark tasks also take flags, with commas between: debug (seconds on a CPU), published.
Kill it at any moment and run the same command again: it goes on from the last checkpoint, to the same result.

"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES + describe_fields() if {"-h", "--help"} & set(sys.argv) else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config",
        required=True,
        metavar="FILE[:ARG]",
        help="config file, and what its get_config() shall get, as a rule the model",
    )
    parser.add_argument(
        "--workdir", type=pathlib.Path, metavar="DIR", help="the run's directory; made, or resumed if it exists"
    )
    parser.add_argument(
        "--dry_run", action="store_true", help="print the config, the parameters and a step's memory; train nothing"
    )
    arguments, overrides = parser.parse_known_args()
    try:
        values = configs.load_config(arguments.config)
        configs.override(values, overrides)
        config = configs.resolve(values)
        if arguments.dry_run:
            print(dry_run(config))
            return 0
        if arguments.workdir is None:
            raise configs.UserError("--workdir=DIR is missing: where shall the run lie? (--dry_run needs none)")
        train(config, arguments.workdir, STARTED)
    except configs.UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Interrupted as interruption:
        print(interruption, flush=True)
        return 128 + interruption.signum
    except KeyboardInterrupt:
        print("interrupted; nothing of what was saved before is lost", flush=True)
        return 130
    if (arguments.workdir / "metrics.jsonl").exists():
        print(f"learning curves: {plot_learning_curves(arguments.workdir)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
