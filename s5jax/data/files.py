"""Writing files such that a crash or power failure leaves the old content or the new one, never a part of it."""

import errno
import os
import pathlib


def replace(path: pathlib.Path, content: str) -> None:
    """Writes a text file, or replaces the one there at once. OSError, unless from `sync`, leaves the old file there."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.unlink(missing_ok=True)
        with temporary.open("x") as file:  # "x" follows no link that someone put there
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
    sync(path.parent)


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
