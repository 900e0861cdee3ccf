"""Official files where a user put them: found, unpacked if they are still in their archive, or downloaded."""

import functools
import pathlib
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from s5jax.data.store import Format
from s5jax.data.task import DataError

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
    unpack_to: str = ".",
) -> pathlib.Path:
    """Finds the first folder that has all official files of a task, and unpacks an archive if no folder has them.

    `folders`, likeliest first, `files` that must be in one, and `archives` are relative paths; `unpack_to` is the
    subfolder for an archive whose members have no folder of their own.

    Raises:
      Missing: no folder has all files.
      DataError: an archive is damaged or holds something else.
    """
    places = [data_dir / folder for folder in folders]
    packed = [data_dir / name for name in archives if (data_dir / name).is_file()]
    for archive in [None, *packed]:
        if archive:
            unpack(archive, data_dir, unpack_to)
        for place in places:
            if place.is_dir() and all((place / file).exists() for file in files):
                return place
        if archive:
            raise DataError(f"{archive}: holds none of {', '.join(folders)}; get it from {format.address}")
    for place in places:
        lacking = [file for file in files if not (place / file).exists()]
        if len(lacking) < len(files):
            raise missing(format, data_dir, f"{place} lacks {', '.join(lacking)}")
    raise missing(format, data_dir)


def missing(format: Format, data_dir: pathlib.Path, fault: str = "") -> Missing:
    """The error for missing files: `fault` (default: all of them), where to get them, where to put them."""
    what = fault or f"no official files in {data_dir}"
    advice = f"get them from {format.address} and put them there as {data_dir}/{format.files}"
    advice += ", or add --download" if format.downloads and not fault else ""
    advice += ", or add --generate to make examples instead" if format.generator else ""
    return Missing(f"{format.name}: {what}; {advice}")


def unpack(archive: pathlib.Path, into: pathlib.Path, folder: str = ".") -> None:
    """Unpacks a tar or zip archive into a directory, or its subfolder `folder`, all of it or nothing.

    Raises:
      DataError: the archive is damaged, a member points outside, or something is in the way.
    """
    if not zipfile.is_zipfile(archive) and not hasattr(tarfile, "data_filter"):
        raise DataError(
            f"{archive}: only Python 3.11.4 and newer can unpack it safely; run `tar -xf {archive} -C {into}`"
        )
    with tempfile.TemporaryDirectory(dir=into, prefix=".unpacking-") as temporary:
        target = pathlib.Path(temporary, folder)
        bar = functools.partial(tqdm, desc=f"unpacking {archive.name}", unit=" files", disable=None, leave=False)
        try:
            if zipfile.is_zipfile(archive):
                with zipfile.ZipFile(archive) as packed:
                    for name in packed.namelist():
                        if ".." in pathlib.PurePosixPath(name).parts or name.startswith("/"):
                            raise DataError(f"{name} would lie outside the folder")
                    packed.extractall(target, bar(packed.infolist()))
            else:
                with tarfile.open(archive) as tar:
                    tar.extractall(target, bar(tar), filter=_without_links)
                    while tar.fileobj is not None and tar.fileobj.read(2**20):
                        pass  # up to the checksum at the end of a .gz
        except Exception as error:  # of tarfile, zipfile, zlib, lzma
            if isinstance(error, DataError):
                raise DataError(f"{archive}: {error}") from error
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


def _without_links(member: tarfile.TarInfo, folder: Any) -> tarfile.TarInfo:
    """Refuses links: with them an archive could write outside the folder (CVE-2025-4517). Official ones have none."""
    if member.issym() or member.islnk():
        raise DataError(f"{member.name} is a link, which could lead outside the folder: unpack it by hand")
    return tarfile.data_filter(member, folder)


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
