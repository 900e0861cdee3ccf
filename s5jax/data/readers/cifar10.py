"""CIFAR-10 (A. Krizhevsky, 2009): 60,000 colour images of 32 x 32 pixels in ten classes.

Read from the official binary version, or from a TFDS directory, where images have their official numbers: both give
the same stores.
"""

import functools
import pathlib

import numpy as np
from jaxtyping import UInt8

from s5jax.data.prepare import Plan, Request
from s5jax.data.readers import official, tfds
from s5jax.data.readers.images import plan as plan_images
from s5jax.data.store import Format
from s5jax.data.task import DataError

__all__ = ["ADDRESS", "CLASSES", "DOWNLOADS", "FILES", "SIZES", "TFDS", "grey", "plan"]

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIZES = {"train": 45_000, "val": 5_000, "test": 10_000}
FILES = "cifar-10-batches-bin/{data_batch_1..5,test_batch}.bin or cifar-10-binary.tar.gz"
ADDRESS = "https://www.cs.toronto.edu/~kriz/cifar.html"
TFDS = "cifar10"

FOLDER, ARCHIVE = "cifar-10-batches-bin", "cifar-10-binary.tar.gz"
DOWNLOADS = {  # sum: tensorflow_datasets 4.9.10, url_checksums/cifar10.txt
    ARCHIVE: (
        f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}",
        "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    )
}
BATCHES = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}
RECORD = 1 + 3 * 1024
"""Bytes of an image: its label, then its red, green and blue pixels."""


def plan(request: Request, format: Format) -> Plan:
    """Plans CIFAR-10 with the splits of `images.plan`.

    Args:
      request: where the data are.
      format: of the task; with one channel, images are converted to grey.

    Raises:
      DataError: files are missing.
    """
    colour = format.channels == 3
    if request.tfds_dir:
        read = {split: functools.partial(_read_tfds, request.tfds_dir, split, colour) for split in BATCHES}
        return plan_images(read, f"CIFAR-10 from {request.tfds_dir / TFDS}", [], {"classes": CLASSES})
    folder = _find(request, format)
    files = {split: [folder / name for name in names] for split, names in BATCHES.items()}
    read = {split: functools.partial(_read_files, batches, colour) for split, batches in files.items()}
    return plan_images(read, f"CIFAR-10 from {folder}", [*files["train"], *files["test"]], {"classes": CLASSES})


def grey(
    red: UInt8[np.ndarray, "*N"], green: UInt8[np.ndarray, "*N"], blue: UInt8[np.ndarray, "*N"]
) -> UInt8[np.ndarray, "*N"]:
    """Luma by ITU-R 601-2, in the fixed-point arithmetic of Pillow's convert("L") and so of torchvision's Grayscale."""
    luma = np.uint32(19595) * red
    luma += np.uint32(38470) * green
    luma += np.uint32(7471) * blue
    return ((luma + np.uint32(0x8000)) >> 16).astype(np.uint8)


def _find(request: Request, format: Format) -> pathlib.Path:
    try:
        files = [name for names in BATCHES.values() for name in names]
        return official.find(format, request.data_dir, [FOLDER], files, [ARCHIVE])
    except official.Missing:
        other = [request.data_dir / name for name in ("cifar-10-batches-py", "cifar-10-python.tar.gz")]
        for path in other if not request.download else []:
            if path.exists():
                raise DataError(f"{path}: the Python version is not read; get {ARCHIVE} from {ADDRESS}") from None
        raise


def _read_files(
    files: list[pathlib.Path], colour: bool
) -> tuple[UInt8[np.ndarray, "N 1024 C"], UInt8[np.ndarray, " N"]]:
    """Pixels, row by row, and labels of all images of some files."""
    records = [_records(file) for file in files]
    planes = [some[:, 1:].reshape(-1, 3, 1024) for some in records]
    if colour:
        images = np.concatenate(planes).transpose(0, 2, 1)
    else:
        images = np.concatenate([grey(*some.swapaxes(0, 1)) for some in planes])[..., None]
    return images, np.concatenate([some[:, 0] for some in records])


def _records(file: pathlib.Path) -> UInt8[np.ndarray, "N 3073"]:
    content = file.read_bytes()
    if len(content) == 0 or len(content) % RECORD:
        fault = f"{len(content)} bytes, not a positive multiple of {RECORD}"
        raise DataError(f"{file}: {fault}; it is cut off or not a CIFAR-10 batch, get it again from {ADDRESS}")
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
    if records[:, 0].max() > 9:
        at = int(np.argmax(records[:, 0] > 9))
        raise DataError(f"{file}: image {at} has the label {records[at, 0]}, not one of 0..9; get it from {ADDRESS}")
    return records


def _read_tfds(
    tfds_dir: pathlib.Path, split: str, colour: bool
) -> tuple[UInt8[np.ndarray, "N 1024 C"], UInt8[np.ndarray, " N"]]:
    """The same from a TFDS directory, where the images of a split have ids such as train_00042."""
    examples = sorted(tfds.examples(tfds_dir, TFDS, split), key=lambda example: tfds.text(example["id"]))
    pixels = [example["image"].reshape(1024, 3) for example in examples]
    images = np.stack(pixels if colour else [grey(*some.T)[:, None] for some in pixels])
    return images, np.array([example["label"] for example in examples], np.uint8)
