"""CIFAR-10 (A. Krizhevsky, 2009): 60,000 colour images of 32 x 32 pixels in ten classes.

Read from the official binary version, or from a TFDS directory, where images have their official numbers: both give
the same stores.
"""

import functools
import pathlib

import numpy as np
from jaxtyping import UInt8

from s5jax.data.prepare import Plan, Request
from s5jax.data.readers import images, official, tfds
from s5jax.data.store import Format
from s5jax.data.task import DataError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ADDRESS = "https://www.cs.toronto.edu/~kriz/cifar.html"
FOLDER, ARCHIVE = "cifar-10-batches-bin", "cifar-10-binary.tar.gz"
BATCHES = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}
RECORD = 1 + 3 * 1024
"""Bytes of an image: its label, then its red, green and blue pixels."""


def make_format(name: str, channels: int, sha256: str) -> Format:
    """The format of a task with images in colour (3 channels) or in grey (1)."""
    digest = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
    return Format(
        name=name,
        sizes={"train": 45_000, "val": 5_000, "test": 10_000},
        length=1024,
        num_classes=10,
        channels=channels,
        dtype="uint8",
        files=f"{FOLDER}/{{data_batch_1..5,test_batch}}.bin or {ARCHIVE}",
        address=ADDRESS,
        # The sum is that of tensorflow_datasets 4.9.10, url_checksums/cifar10.txt.
        downloads={ARCHIVE: (f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}", f"sha256:{digest}")},
        tfds="cifar10",
        classes={"test": (1_000,) * 10},
        sha256=sha256,
    )


def plan(format: Format, request: Request) -> Plan:
    """Plans CIFAR-10 with the splits of `images.plan`. Grey is what Pillow, and so torchvision, makes of colours."""
    facts, colour = {"classes": CLASSES}, format.channels == 3
    if request.tfds_dir:
        read_tfds = functools.partial(_read_tfds, request.tfds_dir, colour)
        return images.plan(read_tfds, f"CIFAR-10 from {request.tfds_dir / 'cifar10'}", facts=facts)
    names = [name for names in BATCHES.values() for name in names]
    folder = official.find(format, request.data_dir, [FOLDER], names, [ARCHIVE])
    read = functools.partial(_read_files, folder, colour)
    return images.plan(read, f"CIFAR-10 from {folder}", [folder / name for name in names], facts)


def _read_files(folder: pathlib.Path, colour: bool, split: str) -> images.Images:
    batches = [_records(folder / name) for name in BATCHES[split]]
    pixels = [_pixels(some[:, 1:].reshape(-1, 3, 1024).transpose(0, 2, 1), colour) for some in batches]
    return np.concatenate(pixels), np.concatenate([some[:, 0] for some in batches])


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


def _read_tfds(tfds_dir: pathlib.Path, colour: bool, split: str) -> images.Images:
    """The same from a TFDS directory, where the images of a split have ids such as train_00042."""
    examples = sorted(tfds.examples(tfds_dir, "cifar10", split), key=lambda example: example["id"])
    pixels = np.stack([example["image"].reshape(1024, 3) for example in examples])
    return _pixels(pixels, colour), np.array([example["label"] for example in examples], np.uint8)


def _pixels(rgb: UInt8[np.ndarray, "N 1024 3"], colour: bool) -> UInt8[np.ndarray, "N 1024 C"]:
    from PIL import Image

    return rgb if colour else np.asarray(Image.fromarray(rgb).convert("L"))[..., None]
