"""Downloads, by a stand-in for TensorFlow Datasets: what is asked of it, and where its files go."""

import sys
import types

import pytest

from s5jax.data import image, listops, preparation
from s5jax.data.download import download
from s5jax.data.preparation import Request
from s5jax.data.task import DataError

URL = "https://example.org/a/cifar-10-binary.tar.gz"


@pytest.fixture
def asked(monkeypatch):
    """What the stand-in was asked for."""
    record = []

    class Manager:
        def __init__(self, *, download_dir, url_infos, dataset_name, force_checksums_validation):
            record.append((dataset_name, set(url_infos), force_checksums_validation))
            self.folder = download_dir

        def download(self, urls):
            if "broken" in record:
                raise OSError("no route to host\nand more")
            paths = {}
            for name in urls:
                paths[name] = f"{self.folder}/random-name-{len(paths)}"
                with open(paths[name], "w") as file:
                    file.write(name)
            return paths

    builder = types.SimpleNamespace(url_infos={URL: 1, "https://example.org/test_set.gz": 2})
    module = types.ModuleType("tensorflow_datasets")
    module.builder_cls = lambda name: builder
    module.download = types.SimpleNamespace(DownloadManager=Manager)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", module)
    return record


def test_official_files_go_where_they_are_looked_for(tmp_path, asked):
    download(image.FORMAT, tmp_path)
    assert asked == [("cifar10", {URL}, True)]
    assert [path.name for path in tmp_path.iterdir()] == ["cifar-10-binary.tar.gz"]
    assert (tmp_path / "cifar-10-binary.tar.gz").read_text() == URL


def test_a_failed_download_leaves_nothing(tmp_path, asked):
    asked.append("broken")
    with pytest.raises(
        DataError, match=r"cifar10 cannot be downloaded \(OSError: no route to host\): get the official files"
    ):
        preparation.prepare("image", Request(data_dir=tmp_path, download=True), quiet=True)
    assert {path.name for path in tmp_path.rglob("*")} == {"prepared", ".image.lock"}


def test_what_cannot_be_downloaded(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="task listops cannot be downloaded: get the official files from https"):
        download(listops.FORMAT, tmp_path)
    with pytest.raises(DataError, match="files of listops cannot be downloaded by --download"):
        preparation.prepare("listops", Request(data_dir=tmp_path, download=True), quiet=True)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(DataError, match=r"--download needs TensorFlow Datasets \(`pip install tensorflow-datasets"):
        download(image.FORMAT, tmp_path)
