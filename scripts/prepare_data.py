"""Prepares the data of a task: turns official files, a TFDS directory or generated examples into a store."""

import argparse
import os
import pathlib
import signal
import sys

from s5jax.data import prepare
from s5jax.data.prepare import Request
from s5jax.data.task import DataError
from s5jax.train import launch

EXAMPLES = """examples:
  python scripts/prepare_data.py image --data_dir=data           # data/cifar-10-batches-bin to data/prepared/image
  python scripts/prepare_data.py image --tfds_dir=~/tensorflow_datasets
  python scripts/prepare_data.py listops --data_dir=data --generate
  python scripts/prepare_data.py image --data_dir=data --check   # checks the store or, before there is one, the files

Official archives may lie in the folder as they were downloaded. If a preparation fails or is interrupted, it leaves no
store, and a store that was there before is still there. Official files that it downloaded or unpacked remain. After
SIGKILL a hidden folder remains in DIR/prepared until the task is prepared again, which also restores the store that was
to be replaced. SIGKILL during unpacking leaves DIR/.unpacking-*, which you may delete.

TFDS directories are read without TensorFlow; they must be in the format array_record. Images of CIFAR-10 have their
official numbers there: `image` and `scifar` get the same stores as from the official files. `smnist`, `sfashion` and
`text` get their examples in the order of TFDS, which is shuffled but always the same. Their test split has the official
examples. Their validation split has other examples than the one made from the official files.

"""


def main() -> int:
    parser = launch.make_parser(__doc__, EXAMPLES + describe_tasks() if {"-h", "--help"} & set(sys.argv) else None)
    parser.add_argument("tasks", nargs="+", metavar="TASK", help="tasks to prepare, see below")
    parser.add_argument(
        "--data_dir",
        type=folder,
        default=pathlib.Path("data"),
        metavar="DIR",
        help="folder of the official files; stores go to DIR/prepared/TASK (default: data)",
    )
    parser.add_argument("--check", action="store_true", help="check the store or, if there is none, the official files")
    parser.add_argument(
        "--download", action="store_true", help="download official files that are missing: see below for which tasks"
    )
    parser.add_argument(
        "--tfds_dir",
        type=folder,
        metavar="DIR",
        help="read a data set that TensorFlow Datasets has prepared there, such as ~/tensorflow_datasets",
    )
    parser.add_argument("--force", action="store_true", help="replace a store that is there")
    parser.add_argument("--subset", action="store_true", help="accept fewer examples than the official files have")
    parser.add_argument(
        "--generate", action="store_true", help="make examples by a generator: listops, pathfinder, pathx"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the generator (default: 0)")
    parser.add_argument(
        "--sizes",
        type=positive,
        nargs=3,
        metavar=("TRAIN", "VAL", "TEST"),
        help="number of examples to generate (default: as many as the official files have)",
    )
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exception, so that temporary files are deleted
    sizes = arguments.sizes and dict(zip(("train", "val", "test"), arguments.sizes, strict=True))
    request = Request(
        data_dir=arguments.data_dir,
        subset=arguments.subset,
        download=arguments.download,
        tfds_dir=arguments.tfds_dir,
        generate=arguments.generate,
        seed=arguments.seed,
        sizes=sizes,
    )
    try:
        return run(arguments, request)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        where = error.filename or arguments.data_dir
        print(f"error: {where}: {error.strerror or error}; no store was written", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; no store was written", file=sys.stderr)
        return 130


def run(arguments: argparse.Namespace, request: Request) -> int:
    failed = False
    for task in arguments.tasks:
        if not arguments.check:
            prepare.prepare(task, request, force=arguments.force)
            continue
        try:
            found, wrong = prepare.check(task, request)
        except (DataError, OSError) as error:
            found, wrong = ["cannot be checked"], [str(error)]
        verdict = [f"WRONG: {line}" for line in wrong] or ["no faults found"]
        print("\n  ".join([f"{task}: {found[0]}", *found[1:], *verdict]))
        failed |= bool(wrong)
    return int(failed)


def folder(text: str) -> pathlib.Path:
    return pathlib.Path(os.path.expanduser(text))


def positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


def describe_tasks() -> str:
    """A line for each task: its official files, where they come from, and what else can be done."""
    lines = ["tasks and their official files (D: --download, T: --tfds_dir, G: --generate):"]
    for name in prepare.task_names():
        format = prepare.find(name).FORMAT
        can = {"D": format.downloads, "T": format.tfds, "G": format.generator}
        flags = "".join(letter if possible else "-" for letter, possible in can.items())
        lines.append(f"  {name:16} {flags}  DIR/{format.files}  ({format.address})")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
