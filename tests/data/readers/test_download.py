"""Downloads by pooch, from a server on this machine."""

import dataclasses
import functools
import hashlib
import http.server
import threading

import pytest

from s5jax.data.prepare import Request, prepare
from s5jax.data.readers.official import download
from s5jax.data.task import DataError
from s5jax.data.tasks import image, listops


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def address(tmp_path):
    """A server of the folder `official`."""
    pytest.importorskip("pooch")
    (tmp_path / "official").mkdir()
    handler = functools.partial(Handler, directory=str(tmp_path / "official"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def format_of(address, content):
    downloads = {"mnist/images.gz": (f"{address}/images.gz", "sha256:" + hashlib.sha256(content).hexdigest())}
    return dataclasses.replace(image.FORMAT, downloads=downloads)


def test_a_file_goes_where_it_is_looked_for(tmp_path, address):
    (tmp_path / "official/images.gz").write_bytes(b"content")
    download(format_of(address, b"content"), tmp_path / "data")
    assert (tmp_path / "data/mnist/images.gz").read_bytes() == b"content"
    (tmp_path / "official/images.gz").unlink()
    download(format_of(address, b"content"), tmp_path / "data")  # not again


@pytest.mark.parametrize("content", [b"other content", None])
def test_a_failed_download_leaves_nothing(tmp_path, address, content):
    if content:
        (tmp_path / "official/images.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"images\.gz: download failed \(.*\); try again, or get the files from https"):
        download(format_of(address, b"content"), tmp_path / "data")
    assert [path.name for path in (tmp_path / "data").rglob("*")] == ["mnist"]


def test_what_cannot_be_downloaded(tmp_path):
    with pytest.raises(DataError, match="listops: --download does not know this task; get the files from https"):
        download(listops.FORMAT, tmp_path)
    with pytest.raises(DataError, match="listops: --download does not know this task"):
        prepare("listops", Request(data_dir=tmp_path, download=True))
