"""Large text files read by several processes, each the lines that begin in a range of bytes."""

import pathlib
from collections.abc import Iterator

__all__ = ["line_number", "lines", "ranges"]

RANGE = 2**25
"""Default number of bytes in a range: less than a second of work."""


def ranges(file: pathlib.Path, start: int = 0, size: int | None = None) -> list[tuple[int, int]]:
    """Ranges (begin, end) of `size` bytes, 32 MiB by default, that cover a file from byte `start` on."""
    total, size = file.stat().st_size, size or RANGE
    return [(begin, min(begin + size, total)) for begin in range(start, total, size)]


def lines(file: pathlib.Path, begin: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Yields the position and the whole content of each line that begins at a byte from `begin` to `end` - 1."""
    with file.open("rb") as stream:
        if begin:
            stream.seek(begin - 1)
            stream.readline()  # the rest of a line that began before
        while (position := stream.tell()) < end and (line := stream.readline()):
            yield position, line


def line_number(file: pathlib.Path, position: int) -> int:
    """The number, from 1, of the line that begins at a position."""
    with file.open("rb") as stream:
        number = 1
        while position > 0 and (block := stream.read(min(position, 2**20))):
            number += block.count(b"\n")
            position -= len(block)
    return number
