"""Official files where a user put them: found, and unpacked if they are still in their archive."""

import lzma
import pathlib
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

from tqdm import tqdm

from s5jax.data.store import Format
from s5jax.data.task import DataError

__all__ = ["LRA_ADDRESS", "LRA_ARCHIVES", "LRA_FOLDERS", "Missing", "find", "missing", "unpack"]

LRA_FOLDERS = ("lra_release/lra_release", "lra_release", ".")
"""Folders that may hold what the archive of the Long Range Arena holds, likeliest first."""

LRA_ARCHIVES = ("lra_release.gz", "lra_release.tar.gz")
LRA_ADDRESS = "https://storage.googleapis.com/long-range-arena/lra_release.gz"


class Missing(DataError):
    """Official files are not there."""


def find(
    format: Format,
    data_dir: pathlib.Path,
    folders: Sequence[str],
    files: Sequence[str] = (),
    archives: Sequence[str] = (),
) -> pathlib.Path:
    """Finds the first folder that has all official files of a task, and unpacks an archive if no folder has them.

    Args:
      format: of the task.
      data_dir: where to look.
      folders: relative paths of folders, likeliest first.
      files: files or folders that must be in it.
      archives: names of official archives.

    Returns:
      The folder.

    Raises:
      Missing: no folder has all files.
      DataError: an archive is damaged or holds something else.
    """
    places = [data_dir / folder for folder in folders]
    for archive in [None, *(data_dir / name for name in archives if (data_dir / name).is_file())]:
        if archive is not None:
            unpack(archive, data_dir)
        for place in places:
            if place.is_dir() and all((place / file).exists() for file in files):
                return place
        if archive is not None:
            raise DataError(f"{archive}: holds none of {', '.join(folders)}; get it from {format.address}")
    for place in places:
        lacking = [file for file in files if not (place / file).exists()]
        if len(lacking) < len(files):
            raise missing(format, data_dir, f"{place} lacks {', '.join(lacking)}")
    raise missing(format, data_dir)


def missing(format: Format, data_dir: pathlib.Path, fault: str = "") -> Missing:
    """The error to raise where official files are missing: what, where to get them, where to put them.

    Args:
      format: of the task.
      data_dir: where they should be.
      fault: what is missing, if not all of them.
    """
    what = fault or f"no official files in {data_dir}"
    advice = f"get them from {format.address} and put them there as {data_dir}/{format.files}"
    if format.downloads and not fault:
        advice += ", or add --download"
    if format.generator:
        advice += ", or add --generate to make examples instead"
    return Missing(f"{format.name}: {what}; {advice}")


def unpack(archive: pathlib.Path, into: pathlib.Path, folder: str = ".") -> None:
    """Unpacks a tar or zip archive into a directory, all of it or nothing.

    Args:
      archive: tar, compressed or not, or zip.
      into: the directory.
      folder: subfolder for an archive whose members have no folder of their own.

    Raises:
      DataError: the archive is damaged, a member points outside, or something is in the way.
    """
    with tempfile.TemporaryDirectory(dir=into, prefix=".unpacking-") as temporary:
        target = pathlib.Path(temporary, folder)
        target.mkdir(exist_ok=True)
        try:
            (_unzip if zipfile.is_zipfile(archive) else _untar)(archive, target)
        except (
            *(tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, OSError),
            *(NotImplementedError, RuntimeError),  # a zip of an unknown method, or an encrypted one
        ) as error:
            if isinstance(error, OSError) and error.errno is not None:  # no space, no permission
                raise
            reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(":")
            raise DataError(f"{archive}: cannot be unpacked ({reason}); download it again") from error
        members = list(pathlib.Path(temporary).iterdir())
        for member in members:
            if (into / member.name).exists():
                raise DataError(f"{archive}: holds {member.name}, which is in {into} already; move one of them away")
        for member in members:
            member.rename(into / member.name)


def _untar(archive: pathlib.Path, target: pathlib.Path) -> None:
    with tarfile.open(archive) as tar:
        for member in _progress(tar, archive):
            tar.extract(member, target, filter="data")
        while tar.fileobj is not None and tar.fileobj.read(2**20):  # up to the checksum at the end of a .gz
            pass


def _unzip(archive: pathlib.Path, target: pathlib.Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        for member in _progress(packed.infolist(), archive):
            packed.extract(member, target)


def _progress(members: Iterable[Any], archive: pathlib.Path) -> Iterable[Any]:
    return tqdm(members, f"unpacking {archive.name}", unit=" files", disable=None, leave=False)
