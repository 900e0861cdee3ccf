"""What the tests of data sets share."""

import hashlib
import tarfile
from typing import NamedTuple

import numpy as np
import pytest

from s5jax.data import prepare as preparation
from s5jax.data import store
from s5jax.data.prepare import Request

unpacks_tar = pytest.mark.skipif(
    not hasattr(tarfile, "data_filter"), reason="Python before 3.11.4 has no tarfile.data_filter"
)
"""For tests that unpack tar files. What is said on such a Python is tested on every one, in test_official.py."""


class Arrays(NamedTuple):
    inputs: np.ndarray
    labels: np.ndarray
    lengths: np.ndarray | None


def prepare(name, folder, *, force=False, **fields):
    """Prepares a task, by default from a subset of the official files, and returns the lines for the user."""
    lines = []
    request = Request(data_dir=folder, **{"subset": True, **fields})
    preparation.prepare(name, request, force=force, say=lines.append)
    return lines


def load(module, folder, *options):
    return module.load(store.read(module.FORMAT, folder), *options)


def join(parts):
    """The examples of all parts of a split."""
    arrays = [(part.inputs, part.labels, part.lengths) for part in parts]
    return Arrays(*(None if x[0] is None else np.concatenate(x) for x in zip(*arrays, strict=True)))


def contents(folder):
    """SHA-256 of all files in the stores of a folder."""
    files = sorted((folder / "prepared").rglob("*"))
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files if p.is_file()}
