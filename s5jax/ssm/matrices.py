"""Matrices that take a while to compute, kept on disk by what they are computed from."""

import hashlib
import os
import pathlib
import uuid
import warnings
from typing import Any

import numpy as np

__all__ = ["file_for", "read", "write"]


def file_for(
    directory: pathlib.Path | str | None, name: str, arguments: tuple[Any, ...], A: np.ndarray
) -> pathlib.Path:
    """Where what is computed from a matrix and other arguments lies.

    Args:
      directory: default: $S5JAX_CACHE_DIR, or s5jax in $XDG_CACHE_HOME or ~/.cache.
      name: of the kind of result.
      arguments: all that it depends on besides A, each with a `repr` that tells it apart.
      A: the matrix.
    """
    if directory is None:
        default = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "s5jax"
        directory = os.environ.get("S5JAX_CACHE_DIR") or default
    key = hashlib.sha256(repr((*arguments, A.shape)).encode() + A.tobytes())
    return pathlib.Path(directory) / f"{name}-{key.hexdigest()[:32]}.npz"


def read(file: pathlib.Path, names: tuple[str, ...]) -> tuple[np.ndarray, ...] | None:
    """Arrays that `write` kept; `None` if there is no such file, or a damaged one."""
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            return tuple(stored[name] for name in names)
    except Exception:  # a damaged archive raises all sorts of them
        return None


def write(file: pathlib.Path, **arrays: np.ndarray) -> None:
    """Keeps arrays, under a name of their own first, so that no other process meets half a file.

    A directory that cannot be written to is told of by a warning.
    """
    temporary = file.with_name(f"{file.name}.{uuid.uuid4().hex}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as stream:
                np.savez(stream, allow_pickle=False, **arrays)
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        warnings.warn(
            f"cache directory {file.parent} cannot be written to ({error.strerror}): the result is not kept."
            " Set S5JAX_CACHE_DIR to one that can",
            stacklevel=3,
        )
