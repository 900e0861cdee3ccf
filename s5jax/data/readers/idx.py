"""Images in IDX files, plain or gzipped: MNIST and Fashion-MNIST (Y. LeCun et al., 1998)."""

import functools
import gzip
import math
import pathlib
import zlib

import numpy as np
from jaxtyping import UInt8

from s5jax.data.prepare import Plan, Request
from s5jax.data.readers import images, official, tfds
from s5jax.data.store import Format
from s5jax.data.task import DataError

__all__ = ["SIZES", "downloads", "plan", "read"]

SIZES = {"train": 54_000, "val": 6_000, "test": 10_000}
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def downloads(address: str, folder: str, sums: tuple[str, str, str, str]) -> dict[str, tuple[str, str]]:
    """The `downloads` of a format: both images and labels of training, then of testing.

    Args:
      address: of the folder of the files.
      folder: below the data directory.
      sums: SHA-256 of each file.
    """
    names = [f"{name}.gz" for names in FILES.values() for name in names]
    return {
        f"{folder}/{name}": (f"{address}/{name}", f"sha256:{digest}") for name, digest in zip(names, sums, strict=True)
    }


def plan(request: Request, format: Format, folders: tuple[str, ...]) -> Plan:
    """Plans MNIST or Fashion-MNIST with the splits of `images.plan`.

    Args:
      request: where the data are.
      format: of the task.
      folders: that may hold the files.

    Raises:
      DataError: files are missing.
    """
    if request.tfds_dir and format.tfds:
        tfds_read = {split: functools.partial(_read_tfds, request.tfds_dir, format.tfds, split) for split in FILES}
        return images.plan(tfds_read, f"TFDS directory {request.tfds_dir / format.tfds}", [])
    folder = official.find(format, request.data_dir, folders)
    files = {split: [_file(folder, name, request, format) for name in names] for split, names in FILES.items()}
    read = {split: functools.partial(_read_files, *pair) for split, pair in files.items()}
    return images.plan(read, f"IDX files of {folder}", [*files["train"], *files["test"]])


def read(file: pathlib.Path) -> UInt8[np.ndarray, "..."]:
    """The array of unsigned bytes in an IDX file, gzipped if its name ends in .gz.

    Raises:
      DataError: it is not such a file, or is cut off.
    """
    try:
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{file}: cannot be unpacked ({error}); download it again") from error
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise DataError(f"{file}: not an IDX file of bytes, it begins with {content[:4].hex()}; get the official one")
    start = 4 + 4 * content[3]
    shape = tuple(np.frombuffer(content[4:start].ljust(start - 4, b"\0"), ">u4").tolist())
    if len(content) - start != math.prod(shape) or 0 in shape:
        raise DataError(f"{file}: {len(content) - start} bytes for an array of {shape}; download it again")
    return np.frombuffer(content[start:], np.uint8).reshape(shape)


def _file(folder: pathlib.Path, name: str, request: Request, format: Format) -> pathlib.Path:
    for spelling in (name, f"{name}.gz", name.replace("-idx", ".idx")):
        if (folder / spelling).is_file():
            return folder / spelling
    raise official.missing(format, request.data_dir, f"{folder} lacks {name}[.gz]")


def _read_files(
    images_file: pathlib.Path, labels_file: pathlib.Path
) -> tuple[UInt8[np.ndarray, "N 784 1"], UInt8[np.ndarray, " N"]]:
    pixels, labels = read(images_file), read(labels_file)
    if pixels.shape[1:] != (28, 28) or labels.shape != pixels.shape[:1]:
        fault = f"arrays of {pixels.shape} and {labels.shape} are not N images of 28 x 28 and N labels"
        raise DataError(f"{images_file}, {labels_file.name}: {fault}; get the official files")
    if labels.max() > 9:
        at = int(np.argmax(labels > 9))
        raise DataError(f"{labels_file}: example {at} has the label {labels[at]}, not one of 0..9")
    return pixels.reshape(-1, 784, 1), labels


def _read_tfds(
    tfds_dir: pathlib.Path, name: str, split: str
) -> tuple[UInt8[np.ndarray, "N 784 1"], UInt8[np.ndarray, " N"]]:
    """The same from a TFDS directory, in its order: these images have no ids."""
    examples = list(tfds.examples(tfds_dir, name, split))
    pixels = np.stack([example["image"] for example in examples])
    return pixels.reshape(-1, 784, 1), np.array([example["label"] for example in examples], np.uint8)
