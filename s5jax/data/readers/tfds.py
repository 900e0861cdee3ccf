"""Data sets that TensorFlow Datasets prepared, read without TensorFlow."""

import pathlib
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

from s5jax.data.task import DataError


def examples(tfds_dir: pathlib.Path, name: str, split: str) -> Iterator[dict[str, Any]]:
    """Yields the examples of a split, in the order in which TFDS wrote them: shuffled, but always the same.

    Args:
      tfds_dir: folder of all data sets, such as ~/tensorflow_datasets.
      name: of the data set and its config, such as "cifar10" or "imdb_reviews/plain_text"; its newest version is read.
      split: "train" or "test".

    Raises:
      DataError: TFDS is not installed, or the data are not there or not in a format with random access.
    """
    try:
        import tensorflow_datasets
    except ImportError as error:
        advice = "install it with `pip install tensorflow-datasets importlib_resources`"
        raise DataError(f"--tfds_dir needs TensorFlow Datasets ({error}); {advice}") from error
    versions = [path.parent for path in (tfds_dir / name).glob("*.*.*/dataset_info.json")]
    if not versions:
        raise DataError(f"{tfds_dir / name}: not a data set of TFDS, no VERSION/dataset_info.json; check --tfds_dir")
    folder = max(versions, key=lambda path: [int(number) for number in path.name.split(".") if number.isdecimal()])
    try:
        source = tensorflow_datasets.builder_from_directory(folder).as_data_source(split=split)
    except Exception as error:  # TFDS raises many kinds
        reason = (str(error) or type(error).__name__).splitlines()[0]
        advice = f"tfds.builder({name!r}, data_dir=..., file_format='array_record').download_and_prepare() writes one"
        raise DataError(f"{folder}: no readable split {split} ({reason}); {advice}") from error
    yield from tqdm(source, f"{name} {split}", unit=" examples", disable=None, leave=False)
