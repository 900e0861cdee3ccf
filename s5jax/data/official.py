"""Official files where a user put them: found, unpacked where they are still in their archive, or asked for."""

import fcntl
import lzma
import pathlib
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence

from tqdm import tqdm

from s5jax.data.store import Format
from s5jax.data.task import DataError

__all__ = ["Missing", "find", "lines", "missing", "unpack"]


def find(data_dir: pathlib.Path, places: Sequence[str], archives: Sequence[str] = ()) -> pathlib.Path | None:
    """The first of some folders or files that exists below a directory, unpacked from an archive if need be.

    Args:
      data_dir: where to look.
      places: relative paths, the likeliest first.
      archives: file names of the official archives that hold one of them.

    Raises:
      DataError: an archive that cannot be unpacked, should not be, or holds something else.
    """
    paths = [data_dir / place for place in places]
    for archive in [None, *(data_dir / name for name in archives if (data_dir / name).is_file())]:
        if archive is not None:
            unpack(archive, data_dir, unless=paths)
        for path in paths:
            if path.is_file() and _is_archive(path):
                raise DataError(f"{path} is an archive, not a folder: unpack it, and give the folder this name")
            if path.exists():
                return path
        if archive is not None:
            raise DataError(f"{archive} was unpacked, but holds none of {', '.join(places)}: is it the official one?")
    return None


class Missing(DataError):
    """Official files are not there."""


def missing(format: Format, data_dir: pathlib.Path, what: str = "no") -> Missing:
    """To be raised where some are."""
    return Missing(
        f"{what} official files of task {format.name} in {data_dir}: get them from {format.address}"
        f" and put them there as {data_dir}/{format.files}"
        + ("; or try --download" if format.tfds and what == "no" else "")
    )


def lines(file: pathlib.Path, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that begin at bytes start..stop - 1, whole, each with the place where it begins."""
    with file.open("rb") as stream:
        if start:
            stream.seek(start - 1)
            stream.readline()  # one that began before; where it ended just there, nothing but its end
        while (position := stream.tell()) < stop and (line := stream.readline()):
            yield position, line


def unpack(archive: pathlib.Path, into: pathlib.Path, unless: Sequence[pathlib.Path] = (), folder: str = ".") -> None:
    """Unpacks a tar or zip archive into a directory. In case of a fault nothing of it is there.

    Args:
      archive: tar, compressed or not, or zip.
      into: the directory.
      folder: below it, of an archive whose members have none of their own.
      unless: nothing is done if one of these exists, perhaps as the work of another process that was waited for.

    Raises:
      DataError: damaged, or some member would end up outside, or where something lies already.
    """
    with open(into / f".{archive.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if any(path.exists() for path in unless):
            return
        temporary = into / f".unpacking-{archive.name}"
        shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
        (temporary / folder).mkdir(parents=True)
        try:
            _extract(archive, temporary / folder, into / folder)
            for member in temporary.iterdir():
                member.rename(into / member.name)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _extract(archive: pathlib.Path, temporary: pathlib.Path, into: pathlib.Path) -> None:
    try:
        (_unzip if zipfile.is_zipfile(archive) else _untar)(archive, temporary, into)
    except tarfile.FilterError as error:
        raise DataError(f"{archive} is refused, a member points outside: {error}. Nothing was unpacked") from error
    except (
        *(tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, OSError),
        *(NotImplementedError, RuntimeError),  # a zip of an unknown method, or an encrypted one
    ) as error:
        if isinstance(error, OSError) and error.errno is not None:  # no space, no permission: not the archive's fault
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(":")
        raise DataError(f"{archive} cannot be unpacked ({reason}); is the download complete?") from error


def _untar(archive: pathlib.Path, temporary: pathlib.Path, into: pathlib.Path) -> None:
    with tarfile.open(archive) as tar:
        for member in tqdm(tar, desc=f"unpacking {archive.name}", unit=" files", disable=None, leave=False):
            if pathlib.PurePosixPath(member.name).is_absolute():  # the filter would take it for a relative one
                raise tarfile.AbsolutePathError(member)
            _refuse_to_replace(archive, member.name, into)
            tar.extract(member, temporary, filter="data")
        while tar.fileobj is not None and tar.fileobj.read(2**20):  # at its very end is the sum that tells of damage
            pass


def _unzip(archive: pathlib.Path, temporary: pathlib.Path, into: pathlib.Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        for member in tqdm(
            packed.infolist(), desc=f"unpacking {archive.name}", unit=" files", disable=None, leave=False
        ):
            # ZipFile.extract would drop a leading "/" or ".." without a word.
            if not (temporary / member.filename).resolve().is_relative_to(temporary.resolve()):
                raise tarfile.OutsideDestinationError(tarfile.TarInfo(member.filename), str(temporary))
            _refuse_to_replace(archive, member.filename, into)
            packed.extract(member, temporary)


def _refuse_to_replace(archive: pathlib.Path, member: str, into: pathlib.Path) -> None:
    top = pathlib.PurePosixPath(member).parts[:1]
    if top and top[0] != ".." and (into / top[0]).exists():
        raise DataError(f"{archive} holds {top[0]}, which is in {into} already: move one of them away")


def _is_archive(path: pathlib.Path) -> bool:
    return tarfile.is_tarfile(path) or zipfile.is_zipfile(path)
