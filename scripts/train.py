"""Train a model from a config file, or resume a run that stopped."""

import time

STARTED = time.perf_counter()

import argparse
import os
import pathlib
import sys

from jax.errors import JaxRuntimeError

from s5jax.train import resolve
from s5jax.train.config import UserError
from s5jax.train.loop import Interrupted, train

GO_ON = "; what was saved before is intact, the same command goes on from there"


def main() -> int:
    sys.path.insert(0, os.getcwd())  # for modules of the user's
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout, allow_abbrev=False, add_help=False)
    parser.add_argument("-h", "--help", action="store_true", help="show this text")
    what = "config file, and what its get_config() gets: MODEL,FLAG,..."
    parser.add_argument("--config", metavar="FILE[:ARG]", help=what)
    parser.add_argument("--workdir", metavar="DIR", help="the run's folder: created, or resumed")
    parser.add_argument("--dry_run", action="store_true", help="print config, parameters and memory; train nothing")
    arguments, overrides = parser.parse_known_args()
    try:
        if arguments.help:
            from s5jax.train.inspect import describe_fields, describe_recipe

            parser.epilog = describe_recipe(arguments.config) + describe_fields()
            parser.print_help()
            return 0
        if arguments.config is None:
            raise UserError("--config=FILE:MODEL is missing, for example --config=configs/digits.py:s5")
        values = resolve.load_config(arguments.config)
        resolve.override(values, overrides)
        config = resolve.resolve(values)
        if arguments.dry_run:
            from s5jax.train.inspect import dry_run

            print(dry_run(config))
            return 0
        if not arguments.workdir:
            raise UserError("--workdir=DIR is missing: the folder for the run (--dry_run needs none)")
        workdir = pathlib.Path(os.path.expanduser(arguments.workdir))
        train(config, workdir, STARTED)
    except Interrupted as interruption:
        print(interruption, flush=True)
        return 128 + interruption.signum if interruption.signum else 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        lost = isinstance(error, FileNotFoundError) and arguments.workdir
        gone = lost and not pathlib.Path(os.path.expanduser(arguments.workdir)).exists()
        advice = "; the folder of the run was moved or removed while it ran" if gone else GO_ON
        print(f"error: {error}{'' if arguments.dry_run else advice}", file=sys.stderr)
        return 1
    except (MemoryError, JaxRuntimeError) as error:
        if isinstance(error, JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = next(iter(str(error).splitlines()), "no more is to be had")
        advice = "a smaller config.train.batch_size or more config.optim.micro_batches need less"
        then = "" if arguments.dry_run else GO_ON
        print(f"error: out of memory: {reason}; {advice}{then}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; what was saved before is kept", flush=True)
        return 130
    from s5jax.analysis.curves import plot_learning_curves  # matplotlib

    try:
        print(f"learning curves: {plot_learning_curves(workdir)}")
    except OSError as error:
        print(f"error: no learning curves in {workdir}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
