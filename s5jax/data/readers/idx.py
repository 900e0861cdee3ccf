"""Images in IDX files, plain or gzipped: MNIST and Fashion-MNIST (Y. LeCun et al., 1998)."""

import functools
import gzip
import math
import pathlib
import zlib
from typing import Any

import numpy as np
from jaxtyping import UInt8

from s5jax.data.prepare import Plan, Request
from s5jax.data.readers import images, official, tfds
from s5jax.data.store import Format
from s5jax.data.task import DataError

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def make_format(name: str, folder: str, *, url: str, sums: tuple[str, str, str, str], **fields: Any) -> Format:
    """The format of a task whose files are in a folder below the data directory.

    They are downloaded from the folder at `url`; `sums` are the SHA-256 of images and labels of training, then of
    testing, all of them gzipped. `fields` are others of a `Format`.
    """
    names = [f"{name}.gz" for names in FILES.values() for name in names]
    return Format(
        name=name,
        sizes={"train": 54_000, "val": 6_000, "test": 10_000},
        length=784,
        num_classes=10,
        dtype="uint8",
        files=f"{folder}/{{train,t10k}}-{{images-idx3,labels-idx1}}-ubyte[.gz]",
        downloads={f"{folder}/{x}": (f"{url}/{x}", f"sha256:{digest}") for x, digest in zip(names, sums, strict=True)},
        **fields,
    )


def plan(format: Format, folders: tuple[str, ...], request: Request) -> Plan:
    """Plans MNIST or Fashion-MNIST, from one of several folders, with the splits of `images.plan`."""
    if request.tfds_dir:
        read_tfds = functools.partial(_read_tfds, request.tfds_dir, format.tfds)
        return images.plan(read_tfds, f"TFDS directory {request.tfds_dir / format.tfds}")
    folder = official.find(format, request.data_dir, folders)
    files = {name: _file(folder, name, request, format) for names in FILES.values() for name in names}
    return images.plan(functools.partial(_read_files, files), f"IDX files of {folder}", list(files.values()))


def _file(folder: pathlib.Path, name: str, request: Request, format: Format) -> pathlib.Path:
    for spelling in (name, f"{name}.gz", name.replace("-idx", ".idx")):
        if (folder / spelling).is_file():
            return folder / spelling
    raise official.missing(format, request.data_dir, f"{folder} lacks {name}[.gz]")


def _read_files(files: dict[str, pathlib.Path], split: str) -> images.Images:
    images_file, labels_file = (files[name] for name in FILES[split])
    pixels, labels = _array(images_file), _array(labels_file)
    if pixels.shape[1:] != (28, 28) or labels.shape != pixels.shape[:1]:
        fault = f"arrays of {pixels.shape} and {labels.shape} are not N images of 28 x 28 and N labels"
        raise DataError(f"{images_file}, {labels_file.name}: {fault}; get the official files")
    if labels.max() > 9:
        at = int(np.argmax(labels > 9))
        raise DataError(f"{labels_file}: example {at} has the label {labels[at]}, not one of 0..9")
    return pixels.reshape(-1, 784, 1), labels


def _array(file: pathlib.Path) -> UInt8[np.ndarray, "..."]:
    """The array of unsigned bytes in an IDX file, gzipped if its name ends in .gz."""
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


def _read_tfds(tfds_dir: pathlib.Path, name: str, split: str) -> images.Images:
    """The same from a TFDS directory, in its order: these images have no ids."""
    examples = list(tfds.examples(tfds_dir, name, split))
    pixels = np.stack([example["image"] for example in examples])
    return pixels.reshape(-1, 784, 1), np.array([example["label"] for example in examples], np.uint8)
