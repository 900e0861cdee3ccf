"""Official text files with an example on each line."""

import pathlib
from collections.abc import Callable, Iterator
from typing import TypeVar

from s5jax.data.task import DataError

T = TypeVar("T")


def parsed(file: pathlib.Path, parse: Callable[[bytes], T], header: bytes = b"") -> Iterator[T]:
    """Yields what `parse` makes of each line below a header. Its ValueError becomes DataError and names the line."""
    with file.open("rb") as stream:
        if header and (line := stream.readline().rstrip(b"\r\n")) != header:
            raise DataError(f"{file}, line 1: the header must be {header!r}, not {line[:40]!r}; get the official file")
        for number, line in enumerate(stream, 1 + bool(header)):
            try:
                result = parse(line)
            except ValueError as error:
                fault = f"{error}; the file is damaged or cut off, get the official one"
                raise DataError(f"{file}, line {number}: {fault}") from error
            yield result
