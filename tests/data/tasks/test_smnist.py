"""MNIST and Fashion-MNIST in their official layouts."""

import gzip
import struct

import jax.numpy as jnp
import numpy as np
import pytest
from data_helpers import load, prepare

from s5jax.data.task import DataError
from s5jax.data.tasks import sfashion, smnist

RNG = np.random.default_rng(0)


def idx_bytes(array):
    return struct.pack(f">BBBB{array.ndim}i", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_mnist(folder, packed):
    folder.mkdir()
    pack, suffix = (gzip.compress, ".gz") if packed else (bytes, "")
    test = RNG.integers(0, 256, (10, 28, 28), np.uint8), RNG.integers(0, 10, 10, np.uint8)
    train = RNG.integers(0, 256, (30, 28, 28), np.uint8), RNG.integers(0, 10, 30, np.uint8)
    for part, (images, labels) in (("train", train), ("t10k", test)):
        (folder / f"{part}-images-idx3-ubyte{suffix}").write_bytes(pack(idx_bytes(images)))
        (folder / f"{part}-labels-idx1-ubyte{suffix}").write_bytes(pack(idx_bytes(labels)))
    return test


@pytest.mark.parametrize(("module", "folder", "packed"), [(smnist, "mnist", False), (sfashion, "fashion-mnist", True)])
def test_mnist_and_fashion(tmp_path, module, folder, packed):
    images, labels = write_mnist(tmp_path / folder, packed)
    prepare(module.FORMAT.name, tmp_path)
    options = (smnist.Options(),) if module is smnist else ()
    task = load(module, tmp_path, *options)
    assert {n: len(s) for n, s in task.splits.items()} == {"train": 27, "val": 3, "test": 10}
    np.testing.assert_array_equal(task.splits["test"].inputs, images.reshape(10, 784, 1))
    np.testing.assert_array_equal(task.splits["test"].labels, labels)
    np.testing.assert_allclose(task.prepare(jnp.array([[[255], [51]]], jnp.uint8)), [[[1], [0.2]]], rtol=1e-6)
    assert module.FORMAT.sizes == {"train": 54_000, "val": 6_000, "test": 10_000}
    url, digest = module.FORMAT.downloads[f"{folder}/t10k-labels-idx1-ubyte.gz"]
    assert url.endswith("/t10k-labels-idx1-ubyte.gz") and len(digest) == len("sha256:") + 64


def test_permuted_mnist_is_bit_reversed(tmp_path):
    images, _ = write_mnist(tmp_path / "mnist", False)
    prepare("smnist", tmp_path)
    task = load(smnist, tmp_path, smnist.Options(permuted=True))
    pixels = np.asarray(task.prepare(jnp.asarray(task.splits["test"].inputs)))[..., 0]
    # The order of a decimation-in-time FFT of 1,024 points, without the points beyond 783.
    order = np.array([0])
    while len(order) < 1024:
        order = np.concatenate([2 * order, 2 * order + 1])
    order = order[order < 784]
    assert order[:4].tolist() == [0, 512, 256, 768] and sorted(order) == list(range(784))
    np.testing.assert_allclose(pixels, images.reshape(10, 784)[:, order] / np.float32(255), rtol=1e-6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx_bytes(np.zeros((30, 28, 28), np.uint8))[:-9], r"ubyte: 23511 bytes for an array of \(30, 28, 28\)"),
        (b"\x1f\x8b" + bytes(30), r"not an IDX file of bytes, it begins with 1f8b0000"),
        (b"", "not an IDX file of bytes"),
        (idx_bytes(np.zeros((30, 28, 27), np.uint8)), "not N images of 28 x 28 and N labels"),
        (idx_bytes(np.zeros((29, 28, 28), np.uint8)), "not N images of 28 x 28 and N labels"),
        (None, r"smnist: .*/mnist lacks train-images-idx3-ubyte\[\.gz\]; get them from"),
    ],
)
def test_broken_mnist(tmp_path, content, message):
    write_mnist(tmp_path / "mnist", False)
    file = tmp_path / "mnist/train-images-idx3-ubyte"
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(DataError, match=message):
        prepare("smnist", tmp_path)


def test_mnist_with_wrong_labels_or_cut_off_gzip(tmp_path):
    write_mnist(tmp_path / "fashion-mnist", True)
    labels = tmp_path / "fashion-mnist/t10k-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(idx_bytes(np.full(10, 10, np.uint8))))
    with pytest.raises(DataError, match=r"example 0 has the label 10"):
        prepare("sfashion", tmp_path)
    labels.write_bytes(labels.read_bytes()[:-12])
    with pytest.raises(DataError, match=r"cannot be unpacked .*; download it again"):
        prepare("sfashion", tmp_path)
