"""Downloads of official files, with their SHA-256 sums checked by pooch."""

import pathlib

from s5jax.data.store import Format
from s5jax.data.task import DataError


def download(format: Format, data_dir: pathlib.Path) -> None:
    """Downloads the official files of a task (its `downloads`) that are missing, each one whole or not at all.

    Raises:
      DataError: the task has no downloads, or one failed or has another sum.
    """
    if not format.downloads:
        raise DataError(f"{format.name}: --download does not know this task; get the files from {format.address}")
    import pooch  # only downloads need it

    for name, (url, known_hash) in format.downloads.items():
        file = data_dir / name
        if file.exists():
            continue
        try:
            pooch.retrieve(url, known_hash, fname=file.name, path=file.parent, progressbar=True)
        except Exception as error:  # of requests, urllib3, the operating system; ValueError: another sum
            reason = (str(error) or type(error).__name__).splitlines()[0]
            place = f"get the files from {format.address} and put them there as {data_dir}/{format.files}"
            raise DataError(f"{url}: download failed ({reason}); try again, or {place}") from error
