"""Official archives by the downloader of TensorFlow Datasets, which knows their addresses and SHA-256."""

import os
import pathlib
import tempfile

from s5jax.data.store import Format
from s5jax.data.task import DataError

__all__ = ["download"]


def download(format: Format, data_dir: pathlib.Path) -> None:
    """Puts the official files of a task where they belong in a data directory, each one whole or not at all.

    Args:
      format: of the task; its `tfds` names the data set and the folder for its files.
      data_dir: the directory.

    Raises:
      DataError: TensorFlow Datasets is not installed or does not know the task, or the download failed.
    """
    if format.tfds is None:
        raise DataError(f"task {format.name} cannot be downloaded: get the official files from {format.address}")
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise DataError(
            "--download needs TensorFlow Datasets (`pip install tensorflow-datasets importlib_resources`, or"
            f" s5jax[download]): {error}"
        ) from error
    name, folder = format.tfds
    infos = {url: info for url, info in tfds.builder_cls(name).url_infos.items() if "test_set" not in url}
    goal = data_dir / folder
    missing = [url for url in infos if not (goal / url.rsplit("/", 1)[-1]).exists()]
    with tempfile.TemporaryDirectory(dir=data_dir, prefix=".downloading-") as temporary:
        manager = tfds.download.DownloadManager(
            download_dir=temporary, url_infos=infos, dataset_name=name, force_checksums_validation=True
        )
        try:
            paths = manager.download({url: url for url in missing})
        except Exception as error:  # there are many that it may end with
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise DataError(
                f"{name} cannot be downloaded ({type(error).__name__}: {reason}): get the official files from"
                f" {format.address} and put them there as {data_dir}/{format.files}"
            ) from error
        goal.mkdir(exist_ok=True)
        for url, path in paths.items():
            os.replace(path, goal / url.rsplit("/", 1)[-1])
