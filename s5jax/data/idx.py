"""MNIST and its kin from their official files: IDX, plain or gzipped (Y. LeCun et al., 1998)."""

import functools
import gzip
import math
import pathlib
import zlib

import numpy as np
from jaxtyping import UInt8

from s5jax.data import official
from s5jax.data.preparation import Plan, Request
from s5jax.data.random_split import random_split
from s5jax.data.store import Arrays, Format
from s5jax.data.task import DataError

__all__ = ["SIZES", "plan", "read"]

SIZES = {"train": 54_000, "val": 6_000, "test": 10_000}
PARTS = {"train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")} | {
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
}


def plan(request: Request, format: Format, places: tuple[str, ...]) -> Plan:
    """Training images are split 9 : 1 as torch's random_split with seed 42 does, as published."""
    folder = official.find(request.data_dir, places)
    if folder is None:
        raise official.missing(format, request.data_dir)
    files: dict[str, list[pathlib.Path]] = {}
    for part, names in PARTS.items():
        for name in names:
            candidates = [folder / name, folder / f"{name}.gz", folder / name.replace("-idx", ".idx")]
            found = [file for file in candidates if file.is_file()]
            if not found:
                raise official.missing(format, request.data_dir, f"{folder / name}[.gz] is missing; not all")
            files.setdefault(part, []).append(found[0])
    return Plan(
        pieces={
            "train": [functools.partial(_read_part, files["train"], 0)],
            "val": [functools.partial(_read_part, files["train"], 1)],
            "test": [functools.partial(_read_part, files["test"], None)],
        },
        origin=f"IDX files of {folder}",
        sources=[*files["train"], *files["test"]],
    )


def _read_part(files: list[pathlib.Path], part: int | None) -> Arrays:
    """The examples of a file of images and one of labels: all, or one part of a split 9 : 1."""
    images_file, labels_file = files
    images, labels = read(images_file), read(labels_file)
    if images.shape[1:] != (28, 28) or labels.shape != images.shape[:1]:
        raise DataError(
            f"{images_file} holds {images.shape}, {labels_file} {labels.shape}: not N images of 28 x 28, N labels"
        )
    if labels.max() > 9:
        at = int(np.argmax(labels > 9))
        raise DataError(f"{labels_file}: example {at} has the label {labels[at]}, not one of 0..9")
    if part is not None:
        train = round(0.9 * len(labels))
        chosen = random_split(len(labels), [train, len(labels) - train], seed=42)[part]
        images, labels = images[chosen], labels[chosen]
    return Arrays(images.reshape(-1, 784, 1), labels.astype(np.int32))


def read(file: pathlib.Path) -> UInt8[np.ndarray, "..."]:
    """The array of unsigned bytes in an IDX file.

    Raises:
      DataError: it is no such file, or is cut off.
    """
    try:
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{file} cannot be unpacked ({error}): is the download complete?") from error
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise DataError(f"{file} is no IDX file of bytes: it begins with {content[:4].hex()}")
    start = 4 + 4 * content[3]
    shape = tuple(np.frombuffer(content[4:start].ljust(start - 4, b"\0"), ">u4").tolist())
    if len(content) - start != math.prod(shape) or 0 in shape:
        raise DataError(
            f"{file} says it holds {shape}, but {len(content) - start} bytes follow: it is cut off or damaged"
        )
    return np.frombuffer(content[start:], np.uint8).reshape(shape)
