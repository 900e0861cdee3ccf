"""Large text files read by several processes, each the lines that begin in a range of bytes."""

import pathlib
from collections.abc import Callable, Iterator
from typing import TypeVar

from s5jax.data.task import DataError

__all__ = ["lines", "parsed", "ranges"]

T = TypeVar("T")

RANGE = 2**25
"""Number of bytes in a range: less than a second of work."""


def ranges(file: pathlib.Path, start: int = 0) -> list[tuple[int, int]]:
    """Ranges (begin, end) of RANGE bytes that cover a file from byte `start` on."""
    total = file.stat().st_size
    return [(begin, min(begin + RANGE, total)) for begin in range(start, total, RANGE)]


def lines(file: pathlib.Path, begin: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Yields the position and the whole content of each line that begins at a byte from `begin` to `end` - 1."""
    with file.open("rb") as stream:
        if begin:
            stream.seek(begin - 1)
            stream.readline()  # the rest of a line that began before
        while (position := stream.tell()) < end and (line := stream.readline()):
            yield position, line


def parsed(file: pathlib.Path, begin: int, end: int, parse: Callable[[bytes], T]) -> Iterator[T]:
    """Yields what `parse` makes of each of these lines. Its ValueError becomes DataError, with the line's number."""
    for position, line in lines(file, begin, end):
        try:
            result = parse(line)
        except ValueError as error:
            where = f"{file}, line {1 + sum(1 for _ in lines(file, 0, position))}"
            raise DataError(f"{where}: {error}; the file is damaged or cut off, get the official one") from error
        yield result
