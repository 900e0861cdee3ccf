"""CIFAR-10 from its official files (A. Krizhevsky, 2009): 60,000 colour images of 32 x 32 pixels in ten classes.

Read from the binary version, or from the Python version without executing what its pickles say.
"""

import functools
import io
import pathlib
import pickle
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8

from s5jax.data import official
from s5jax.data.preparation import Plan, Request
from s5jax.data.random_split import random_split
from s5jax.data.store import Arrays, Format
from s5jax.data.task import DataError

__all__ = ["ADDRESS", "CLASSES", "FILES", "SIZES", "TFDS", "grey", "plan"]

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIZES = {"train": 45_000, "val": 5_000, "test": 10_000}
FILES = "cifar-10-batches-bin/{data_batch_1..5,test_batch}.bin, or cifar-10-batches-py/, or the archive of either"
ADDRESS = "https://www.cs.toronto.edu/~kriz/cifar.html"
TFDS = ("cifar10", ".")

BATCHES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
PLACES = ("cifar-10-batches-bin", "cifar-10-batches-py")
ARCHIVES = ("cifar-10-binary.tar.gz", "cifar-10-python.tar.gz")
RECORD = 1 + 3 * 1024


def plan(request: Request, format: Format) -> Plan:
    """Training images are split 9 : 1 as torch's random_split with seed 42 does, as published."""
    folder = official.find(request.data_dir, PLACES, ARCHIVES)
    if folder is None:
        raise official.missing(format, request.data_dir)
    suffix = ".bin" if folder.name == PLACES[0] else ""
    files = {part: [folder / f"{name}{suffix}" for name in names] for part, names in BATCHES.items()}
    for file in [*files["train"], *files["test"]]:
        if not file.is_file():
            raise official.missing(format, request.data_dir, f"{file} is missing; not all")
    piece = functools.partial(_read_part, colour=format.channels == 3)
    return Plan(
        pieces={
            "train": [functools.partial(piece, files["train"], 0)],
            "val": [functools.partial(piece, files["train"], 1)],
            "test": [functools.partial(piece, files["test"], None)],
        },
        origin=f"CIFAR-10 from {folder}",
        sources=[*files["train"], *files["test"]],
        facts={"classes": CLASSES},
    )


def grey(rgb: UInt8[np.ndarray, "*N 3"]) -> UInt8[np.ndarray, "*N"]:
    """Luma by ITU-R 601-2 in the fixed-point arithmetic of Pillow's convert("L"), which torchvision's Grayscale is."""
    r, g, b = (rgb[..., i].astype(np.uint32) for i in range(3))
    return ((19595 * r + 38470 * g + 7471 * b + 0x8000) >> 16).astype(np.uint8)


def _read_part(files: list[pathlib.Path], part: int | None, *, colour: bool) -> Arrays:
    """The images of some files: all, or one part of a split 9 : 1."""
    read = [_read(file) for file in files]
    images = np.concatenate([pixels if colour else grey(pixels)[..., None] for pixels, _ in read])
    labels = np.concatenate([labels for _, labels in read])
    if part is not None:
        train = round(0.9 * len(labels))
        chosen = random_split(len(labels), [train, len(labels) - train], seed=42)[part]
        images, labels = images[chosen], labels[chosen]
    return Arrays(images, labels.astype(np.int32))


def _read(file: pathlib.Path) -> tuple[UInt8[np.ndarray, "N 1024 3"], UInt8[np.ndarray, " N"]]:
    """Images, row by row, and labels of one batch file."""
    if file.suffix == ".bin":
        content = file.read_bytes()
        if len(content) == 0 or len(content) % RECORD:
            raise DataError(
                f"{file} has {len(content)} bytes, no multiple of {RECORD}: it is cut off or no CIFAR-10 batch"
            )
        records = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
        labels, pixels = records[:, 0], records[:, 1:]
    else:
        labels, pixels = _unpickle(file)
    if labels.max() > 9:
        at = int(np.argmax(labels > 9))
        raise DataError(f"{file}: image {at} has the label {labels[at]}, not one of 0..9: this is no CIFAR-10 batch")
    return pixels.reshape(-1, 3, 1024).transpose(0, 2, 1), labels


def _unpickle(file: pathlib.Path) -> tuple[UInt8[np.ndarray, " N"], UInt8[np.ndarray, "N 3072"]]:
    try:
        batch = _Inert(io.BytesIO(file.read_bytes()), encoding="bytes").load()
        labels = np.asarray(batch[b"labels"], np.uint8)
        pixels = batch[b"data"].array().reshape(len(labels), 3072)
    except DataError as error:
        raise DataError(f"{file}: {error}") from error
    except Exception as error:  # whatever a broken pickle may lead to
        raise DataError(f"{file} is no batch of CIFAR-10's Python version: {error}") from error
    return labels, pixels


class _PickledArray:
    """Stands for a NumPy array in a pickle, and keeps what it was made of."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self._shape, _, fortran, self._bytes = state
        self._order: Literal["C", "F"] = "F" if fortran else "C"

    def array(self) -> UInt8[np.ndarray, "..."]:
        return np.frombuffer(self._bytes, np.uint8).reshape(self._shape, order=self._order)


class _PickledType:
    def __setstate__(self, state: tuple[Any, ...]) -> None:
        pass


class _Inert(pickle.Unpickler):
    """Reads a dict of lists, bytes and one array, and calls nothing but the stand-ins above."""

    def find_class(self, module: str, name: str) -> Any:
        stand_ins: dict[str, Any] = {
            "_reconstruct": lambda *_: _PickledArray(),
            "ndarray": _PickledArray,
            "dtype": lambda *_: _PickledType(),
            "encode": lambda text, _: text.encode("latin1"),  # how Python 3 writes bytes for protocol 2
        }
        if module.split(".")[0] not in ("numpy", "_codecs") or name not in stand_ins:
            raise DataError(f"the pickle asks for {module}.{name}, which is not executed: this is no official file")
        return stand_ins[name]
