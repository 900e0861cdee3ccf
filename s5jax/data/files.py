"""Writing files such that a crash or power failure leaves the old content or the new one, never a part of it."""

import contextlib
import errno
import os
import pathlib
import shutil
from collections.abc import Iterator


def replace(path: pathlib.Path, content: str) -> None:
    """Writes a text file, or replaces the one there at once. OSError, unless from `sync`, leaves the old file there."""
    with replacing(path) as temporary, temporary.open("x") as file:  # "x" follows no link that someone put there
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    sync(path.parent)


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """The path of a temporary file that replaces another at once in the end; of an OSError nothing is left but the old
    file, which its message names."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.unlink(missing_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def sync(path: pathlib.Path) -> None:
    """Waits until a file's content, or a folder's list of files, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not (path.is_dir() and error.errno in (errno.EINVAL, errno.ENOTSUP, errno.EBADF)):
            raise OSError(error.errno, error.strerror, str(path)) from error  # some file systems cannot sync folders
    finally:
        os.close(descriptor)


def remove(directory: pathlib.Path) -> None:
    """Removes a directory with all that is in it. Its path is the filename of an OSError."""
    try:
        shutil.rmtree(directory)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(directory)) from error
