"""Prepared data sets on disk: .npy files, mapped into memory, and a manifest that says what they are.

DATA_DIR/prepared/<task>/manifest.json
                         <split>.inputs.npy, <split>.labels.npy, and <split>.lengths.npy where sequences are padded
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from s5jax.data.task import DataError, Split, Task

VERSION = 1
"""Version of the layout. Stores of another version must be made again."""


class Unprepared(DataError):
    """There is no store."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Format:
    """What the official data of a task are.

    name: of the task.
    sizes: number of examples in each stored split; "val" may be missing, where loading takes it from "train".
    length: L, the steps of every stored sequence, padding included.
    num_classes: labels run from 0 to num_classes - 1.
    dtype: of the stored inputs.
    files: the official files below the data directory, in words.
    address: where they come from.
    num_tokens: inputs are token ids from 0 to num_tokens - 1; `None`: they are values.
    channels: values per step.
    pairs: an example is a pair of documents.
    padded: lengths are stored.
    sha256: SHA-256 of the concatenated hex digests of the splits' files of inputs, if made from the official files;
      `check` notes a difference.
    classes: number of examples of each class, for some splits.
    characters: size of the vocabulary of a text, without special tokens.
    unverified: splits whose sizes could not be verified; another size is not refused.
    generator: examples can be generated.
    downloads: file below the data directory -> its address and "sha256:..." sum.
    tfds: the data set's name in TensorFlow Datasets, if a directory of it can be read.
    """

    name: str
    sizes: dict[str, int]
    length: int
    num_classes: int
    dtype: str
    files: str
    address: str
    num_tokens: int | None = None
    channels: int = 1
    pairs: bool = False
    padded: bool = False
    sha256: str = ""
    classes: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    characters: int | None = None
    unverified: tuple[str, ...] = ()
    generator: bool = False
    downloads: dict[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    tfds: str = ""

    def example_shape(self) -> tuple[int, ...]:
        """Shape of the inputs of one example."""
        return (2,) * self.pairs + (self.length,) + (self.channels,) * (self.num_tokens is None)

    def task(self, splits: Mapping[str, Split], **fields: Any) -> Task:
        """The task of some splits in this format; `fields` are the others of a `Task`."""
        shared = {name: getattr(self, name) for name in ("name", "length", "num_classes", "num_tokens", "channels")}
        return Task(splits=splits, pairs=self.pairs, **shared, **fields)


class Stored(NamedTuple):
    """A store that was read.

    splits: arrays on disk, mapped into memory.
    facts: the plan's facts, and "statistics": mean and standard deviation of the values of each split.
    """

    splits: dict[str, Split]
    facts: dict[str, Any]


def directory(data_dir: pathlib.Path | str, name: str) -> pathlib.Path:
    """The folder of a task's store."""
    return pathlib.Path(os.path.expanduser(data_dir)) / "prepared" / name


def read_manifest(data_dir: pathlib.Path | str, name: str) -> dict[str, Any]:
    """The manifest of a store. Raises Unprepared if there is none, DataError if it is damaged or of another version."""
    path = directory(data_dir, name) / "manifest.json"
    command = f"python scripts/prepare_data.py {name} --data_dir={data_dir}"
    if not path.is_file():
        raise Unprepared(
            f"task {name} has not been prepared in {data_dir}: run `{command}`, or name another folder"
            " (--config.task.data_dir of train.py, --data_dir of evaluate.py)"
        )
    try:
        manifest = json.loads(path.read_text())
        version = manifest["version"]
        if version == VERSION and (lacking := {"origin", "request", "splits", "facts"} - manifest.keys()):
            raise KeyError(*lacking)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged ({error}); run `{command} --force`") from error
    if version != VERSION:
        raise DataError(f"{path}: version {version}, not {VERSION}; run `{command} --force`")
    return manifest


def read(format: Format, data_dir: pathlib.Path | str, *, verify: bool = True) -> Stored:
    """Reads the store of a task. Raises Unprepared if there is none, DataError if files are missing or cut off, or if
    they have changed since they were written (of files over 64 MiB a thousand blocks are compared). Without `verify`,
    changes are not noticed."""
    manifest, splits = read_manifest(data_dir, format.name), {}
    again = f"run `python scripts/prepare_data.py {format.name} --data_dir={data_dir} --force`"
    for name, about in manifest["splits"].items():
        arrays = {}
        for field in ("inputs", "labels", "lengths")[: 2 + format.padded]:
            file = directory(data_dir, format.name) / f"{name}.{field}.npy"
            try:
                arrays[field] = np.load(file, mmap_mode="r")
            except (OSError, ValueError, EOFError) as error:
                raise DataError(f"{file}: cannot be read ({error}); {again}") from error
            if arrays[field].shape[:1] != (about["examples"],):
                raise DataError(f"{file}: shape {arrays[field].shape} for {about['examples']} examples; {again}")
            if verify:
                large = is_large(file)
                known = manifest.get("blocks", {}).get(file.name) if large else about["sha256"][field]
                if known and known != (sha256_of_blocks if large else sha256)(file):
                    raise DataError(f"{file}: changed since it was written; {again}")
        splits[name] = Split(**arrays)
    return Stored(splits, manifest["facts"])


def is_large(path: pathlib.Path) -> bool:
    """Whether only blocks of a file are compared when it is read."""
    return path.stat().st_size > 2**26


def sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_blocks(path: pathlib.Path, count: int = 1024, block: int = 4096) -> str:
    """The SHA-256 of the size of a file and of blocks spread evenly over it, the first and the last among them."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for i in range(count):
            file.seek(max(size - block, 0) * i // (count - 1))
            digest.update(file.read(block))
    return digest.hexdigest()


def fingerprint(manifest: dict[str, Any]) -> str:
    """A SHA-256 that two stores of a task share if they hold the same examples in the same order."""
    return hashlib.sha256(json.dumps(manifest["splits"], sort_keys=True).encode()).hexdigest()


def blank(format: Format) -> Stored:
    """Zeros of the official sizes, which take no memory: enough to count parameters."""
    splits = {}
    for name, size in format.sizes.items():
        inputs = np.broadcast_to(np.zeros((), format.dtype), (size, *format.example_shape()))
        lengths = np.broadcast_to(np.int32(format.length), (size, 2) if format.pairs else (size,))
        splits[name] = Split(inputs, np.broadcast_to(np.int32(0), (size,)), lengths if format.padded else None)
    return Stored(splits, {"statistics": {split: {"mean": 0.0, "std": 1.0} for split in splits}})
