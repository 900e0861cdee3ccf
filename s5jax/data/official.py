"""Official files where a user put them: found, unpacked where they are still in their archive, or asked for."""

import pathlib
import tarfile
import tempfile
import zipfile
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
      DataError: an archive that cannot be unpacked, or should not be.
    """
    for attempt in range(2):
        for place in places:
            path = data_dir / place
            if path.is_file() and _is_archive(path):
                raise DataError(f"{path} is an archive, not a folder: unpack it, and give the folder this name")
            if path.exists():
                return path
        packed = [data_dir / name for name in archives if (data_dir / name).is_file()]
        if attempt or not packed:
            return None
        unpack(packed[0], data_dir)
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


def unpack(archive: pathlib.Path, into: pathlib.Path) -> None:
    """Unpacks a tar or zip archive into a directory, all of it or, in case of a fault, nothing.

    Raises:
      DataError: damaged, or some member would end up outside, or where something lies already.
    """
    with tempfile.TemporaryDirectory(dir=into, prefix=".unpacking-") as temporary:
        try:
            if zipfile.is_zipfile(archive):
                _unzip(archive, pathlib.Path(temporary))
            else:
                _untar(archive, pathlib.Path(temporary))
        except tarfile.FilterError as error:
            raise DataError(f"{archive} is refused, a member points outside: {error}. Nothing was unpacked") from error
        except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
            reason = str(error).splitlines()[0].rstrip(":")
            raise DataError(f"{archive} cannot be unpacked ({reason}); is the download complete?") from error
        members = list(pathlib.Path(temporary).iterdir())
        for member in members:
            if (into / member.name).exists():
                raise DataError(f"{archive} holds {member.name}, which is in {into} already: move one of them away")
        for member in members:
            member.rename(into / member.name)


def _untar(archive: pathlib.Path, into: pathlib.Path) -> None:
    with tarfile.open(archive) as tar:
        for member in tqdm(tar, desc=f"unpacking {archive.name}", unit=" files"):
            tar.extract(member, into, filter="data")


def _unzip(archive: pathlib.Path, into: pathlib.Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        for member in tqdm(packed.infolist(), desc=f"unpacking {archive.name}", unit=" files"):
            # ZipFile.extract would drop a leading "/" or ".." without a word.
            if not (into / member.filename).resolve().is_relative_to(into.resolve()):
                raise tarfile.OutsideDestinationError(tarfile.TarInfo(member.filename), str(into))
            packed.extract(member, into)


def _is_archive(path: pathlib.Path) -> bool:
    return tarfile.is_tarfile(path) or zipfile.is_zipfile(path)
