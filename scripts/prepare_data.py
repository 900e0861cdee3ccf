"""Prepares the data of a task: official files, or a generator's examples, become a compact store to train from."""

import argparse
import os
import pathlib
import signal
import sys

from s5jax.data import preparation
from s5jax.data.preparation import Request
from s5jax.data.task import DataError

EXAMPLES = """examples:
  python scripts/prepare_data.py image --data_dir=data            # data/cifar-10-batches-bin, to data/prepared/image
  python scripts/prepare_data.py listops --data_dir=data          # the official files, or else generated ones
  python scripts/prepare_data.py image --data_dir=data --check    # is all there, and as it should be?

The official archives may lie in the folder as they were downloaded. Kill it at any moment and run the same command
again: it goes on after the pieces that are done.

"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES + describe_tasks() if {"-h", "--help"} & set(sys.argv) else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    cores = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 8)
    parser.add_argument("tasks", nargs="+", metavar="TASK", help="tasks to prepare: see below")
    parser.add_argument(
        "--data_dir",
        type=pathlib.Path,
        default=pathlib.Path("data"),
        metavar="DIR",
        help="where the official files are, and where DIR/prepared/TASK goes (default: data)",
    )
    parser.add_argument(
        "--check", action="store_true", help="verify the store, or, where there is none, the official files"
    )
    parser.add_argument(
        "--download",
        action="store_true",
        help="get the official files first, by TensorFlow Datasets, which must be installed: CIFAR-10, MNIST,"
        " Fashion-MNIST, IMDB, Speech Commands",
    )
    parser.add_argument("--force", action="store_true", help="replace a store that is there")
    parser.add_argument("--subset", action="store_true", help="accept fewer examples than the official files have")
    parser.add_argument("--generate", action="store_true", help="use the generator even if there are official files")
    parser.add_argument("--seed", type=int, default=0, help="of the generator (default: 0)")
    parser.add_argument(
        "--sizes",
        type=positive,
        nargs=3,
        metavar=("TRAIN", "VAL", "TEST"),
        help="examples that the generator makes (default: as many as the official files have)",
    )
    parser.add_argument(
        "--workers", type=positive, default=cores, metavar="N", help=f"processes (default: one a core, {cores} here)"
    )
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as an exception, so that everything is cleaned up
    sizes = arguments.sizes and dict(zip(("train", "val", "test"), arguments.sizes, strict=True))
    request = Request(
        data_dir=arguments.data_dir,
        subset=arguments.subset,
        download=arguments.download,
        generate=arguments.generate,
        seed=arguments.seed,
        sizes=sizes,
    )
    try:
        return run(arguments, request)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on after what is done", flush=True)
        return 130


def run(arguments: argparse.Namespace, request: Request) -> int:
    failed = False
    for task in arguments.tasks:
        if not arguments.check:
            preparation.prepare(task, request, workers=arguments.workers, force=arguments.force)
            continue
        try:
            found, wrong = preparation.check(task, request, workers=arguments.workers)
        except DataError as error:
            found, wrong = ["cannot be checked"], [str(error)]
        verdict = [f"WRONG: {line}" for line in wrong] or ["all as it should be"]
        print("\n  ".join([f"{task}: {found[0]}", *found[1:], *verdict]))
        failed |= bool(wrong)
    return int(failed)


def positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


def describe_tasks() -> str:
    lines = ["tasks, and the official files they are made from:"]
    for name in preparation.tasks():
        format = preparation.find(name).FORMAT
        lines.append(f"  {name:16} DIR/{format.files}  ({format.address})")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
