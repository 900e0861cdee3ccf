"""Official files found, unpacked or refused."""

import gzip
import io
import os
import tarfile
import zipfile

import numpy as np
import pytest
from data_helpers import prepare, unpacks_tar

from s5jax.data.prepare import find
from s5jax.data.readers import official
from s5jax.data.task import DataError

RNG = np.random.default_rng(0)


def write_reviews(folder):
    for split in ("train", "test"):
        for label in ("neg", "pos"):
            (folder / split / label).mkdir(parents=True)
            (folder / split / label / "0_1.txt").write_text("a film" * 20)


def tar(path, name="aclImdb", **options):
    """An archive of reviews, which are moved away."""
    write_reviews(path.parent / "moved")
    with tarfile.open(path, "w:gz", **options) as archive:
        archive.add(path.parent / "moved", name)


@pytest.mark.parametrize("name", ["image", "text", "retrieval", "smnist", "listops", "pathx", "sc10", "spoken_digits"])
def test_missing_files_are_named_with_their_address_and_place(tmp_path, name):
    with pytest.raises(DataError) as error:
        prepare(name, tmp_path)
    format, message = find(name).FORMAT, str(error.value)
    assert message.startswith(f"{name}: no official files in {tmp_path}; get them from {format.address}")
    assert f"put them there as {tmp_path}/{format.files}" in message and "\n" not in message
    assert ("add --generate to make examples instead" in message) == format.generator
    assert ("add --download" in message) == bool(format.downloads)
    assert list(tmp_path.iterdir()) == []


def test_folders_that_are_not_there_or_files(tmp_path):
    with pytest.raises(DataError, match=r"image: no official files in .*/nowhere; get them from"):
        prepare("image", tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "data.tar").write_bytes(b"")
    with pytest.raises(DataError, match=r"data\.tar: not a folder; unpack it if it is an archive"):
        prepare("image", tmp_path / "data.tar")


@unpacks_tar
def test_an_archive_beside_is_unpacked(tmp_path):
    tar(tmp_path / "aclImdb_v1.tar.gz")
    prepare("text", tmp_path)
    assert (tmp_path / "aclImdb/test/neg/0_1.txt").read_text() == "a film" * 20
    assert {path.name for path in tmp_path.iterdir()} == {"aclImdb", "aclImdb_v1.tar.gz", "moved", "prepared"}


def evil_tar(path, name):
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("good"))
        member = tarfile.TarInfo(name)
        if "link" in name:
            member.type = tarfile.LNKTYPE if name == "hard link" else tarfile.SYMTYPE
            member.linkname = "good" if name == "link inside" else "../../etc"
        else:
            member.size = 3
        archive.addfile(member, io.BytesIO(b"bad"))


@unpacks_tar
@pytest.mark.parametrize("name", ["../outside", "a/../../outside", "link", "hard link", "link inside"])
def test_members_that_point_outside_are_refused(tmp_path, name):
    folder = tmp_path / "data"
    folder.mkdir()
    evil_tar(folder / "aclImdb_v1.tar.gz", name)
    with pytest.raises(DataError, match=r"aclImdb_v1\.tar\.gz: .*outside"):
        prepare("text", folder)
    assert not (tmp_path / "outside").exists()
    assert [path.name for path in folder.iterdir()] == ["aclImdb_v1.tar.gz"]


@pytest.mark.parametrize("name", ["../outside", "a/../../outside", "/outside"])
def test_a_zip_stays_inside(tmp_path, name):
    folder = tmp_path / "data"
    folder.mkdir()
    with zipfile.ZipFile(folder / "evil.zip", "w") as archive:
        archive.writestr("good", "good")
        archive.writestr(name, "bad")
    with pytest.raises(DataError, match=rf"evil\.zip: {name} would lie outside the folder"):
        official.unpack(folder / "evil.zip", folder)
    assert not (tmp_path / "outside").exists() and [path.name for path in folder.iterdir()] == ["evil.zip"]


@unpacks_tar
def test_damaged_archives_and_what_is_there_already(tmp_path):
    archive = tmp_path / "aclImdb_v1.tar.gz"
    archive.write_bytes(gzip.compress(RNG.bytes(5000))[:3000])
    with pytest.raises(DataError, match=r"cannot be unpacked .*; download it again"):
        prepare("text", tmp_path)
    evil_tar(archive, "b")
    (tmp_path / "good").write_text("mine")
    with pytest.raises(DataError, match=r"holds good, which is in .* already; move one of them away"):
        official.unpack(archive, tmp_path)
    assert (tmp_path / "good").read_text() == "mine" and not (tmp_path / "b").exists()


@unpacks_tar
def test_an_archive_with_a_bit_flipped_is_refused(tmp_path):
    """Its contents still make sense: only the checksum at the end of the file shows it."""
    archive = tmp_path / "aclImdb_v1.tar.gz"
    tar(archive, compresslevel=0)
    whole = bytearray(archive.read_bytes())
    whole[whole.index(b"a filma film")] ^= 16
    archive.write_bytes(whole)
    with pytest.raises(DataError, match=r"cannot be unpacked \(CRC check failed .*; download it again"):
        prepare("text", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"moved", "aclImdb_v1.tar.gz"}


@unpacks_tar
def test_an_archive_of_something_else_is_reported(tmp_path):
    with tarfile.open(tmp_path / "lra_release.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("something/else"))
    with pytest.raises(DataError, match=r"lra_release\.gz: holds none of lra_release/.*listops-1000, .*; get it from"):
        prepare("listops", tmp_path)


def test_the_first_complete_folder_counts(tmp_path):
    for folder, names in (("lra_release/listops-1000", "a"), ("listops", "ab"), (".", "b")):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            (tmp_path / folder / name).touch()
    places, format = ["lra_release/listops-1000", "listops", "."], find("listops").FORMAT
    assert official.find(format, tmp_path, places, ["a", "b"]) == tmp_path / "listops"
    os.remove(tmp_path / "listops/b")
    with pytest.raises(official.Missing, match=r"listops: .*/lra_release/listops-1000 lacks b; get them from"):
        official.find(format, tmp_path, places, ["a", "b"])


def test_an_old_python_says_how_to_unpack(tmp_path, monkeypatch):
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    evil_tar(tmp_path / "a.tar.gz", "b")
    with pytest.raises(DataError, match=r"only Python 3\.11\.4 and newer .*; run `tar -xf .*a\.tar\.gz -C"):
        official.unpack(tmp_path / "a.tar.gz", tmp_path)
