"""What launchers share: their arguments, and one-line error messages."""

import argparse
import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from s5jax.data.task import DataError
from s5jax.train.config import UserError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; --help explains the options\n")


def make_parser(doc: str | None, examples: str | None = None) -> argparse.ArgumentParser:
    """A parser that says in one line what is wrong."""
    formatter = argparse.RawDescriptionHelpFormatter
    return _Parser(description=doc, epilog=examples, formatter_class=formatter, allow_abbrev=False)


def add_workdir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", type=folder, required=True, metavar="DIR", help="the run's directory")


def folder(text: str) -> pathlib.Path:
    """The argument of an option that names a folder; ~ stands for the user's home folder."""
    if not text:
        raise argparse.ArgumentTypeError("the name of a folder is missing")
    return pathlib.Path(os.path.expanduser(text))


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    what = "best: by the task's metric on the validation split (default); latest: the newest"
    parser.add_argument("--checkpoint", choices=("best", "latest"), default="best", help=what)


def call(run: Callable[..., str | None], *arguments: Any) -> int:
    """Prints what a function returns, or the user error that it raises. Returns the exit status."""
    sys.path.insert(0, os.getcwd())  # for the user's modules
    try:
        text = run(*arguments)
    except (UserError, DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if text:
        print(text)
    return 0
