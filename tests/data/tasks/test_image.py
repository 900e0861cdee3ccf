"""CIFAR-10 in its official binary layout, as `image` and `scifar`."""

import jax.numpy as jnp
import numpy as np
import pytest
from data_helpers import load, prepare

from s5jax.data import store
from s5jax.data.readers import cifar10
from s5jax.data.task import DataError
from s5jax.data.tasks import image, scifar

RNG = np.random.default_rng(0)


def write_cifar(folder, sizes=(20,) * 5 + (10,)):
    """Returns the pixels (N, 3, 1024) and labels of the training files, and of the test file."""
    names = [name for names in cifar10.BATCHES.values() for name in names]
    where = folder / "cifar-10-batches-bin"
    where.mkdir()
    batches = []
    for name, n in zip(names, sizes, strict=True):
        pixels, labels = RNG.integers(0, 256, (n, 3072), np.uint8), RNG.integers(0, 10, n, np.uint8)
        (where / name).write_bytes(np.concatenate([labels[:, None], pixels], 1).tobytes())
        batches.append((pixels.reshape(n, 3, 1024), labels))
    train = tuple(np.concatenate(x) for x in zip(*batches[:5], strict=True))
    return train, batches[5]


def test_cifar(tmp_path):
    (pixels, labels), (test_pixels, test_labels) = write_cifar(tmp_path)
    prepare("image", tmp_path)
    prepare("scifar", tmp_path)
    colour, grey = load(scifar, tmp_path), load(image, tmp_path)
    assert {n: len(s) for n, s in colour.splits.items()} == {"train": 90, "val": 10, "test": 10}
    np.testing.assert_array_equal(colour.splits["test"].inputs, test_pixels.transpose(0, 2, 1))
    np.testing.assert_array_equal(colour.splits["test"].labels, test_labels)
    # Every training image is in one of two splits, with its label.
    parts = [colour.splits["train"], colour.splits["val"]]
    found = {x.tobytes(): y for s in parts for x, y in zip(np.asarray(s.inputs), s.labels, strict=True)}
    assert found == {x.T.tobytes(): y for x, y in zip(pixels, labels, strict=True)}
    # ITU-R 601-2: within the rounding of fixed point of the real-valued formula, and exactly Pillow's.
    r, g, b = np.moveaxis(np.asarray(colour.splits["test"].inputs, np.float64), -1, 0)
    luma = grey.splits["test"].inputs[..., 0]
    assert np.abs(luma - (0.299 * r + 0.587 * g + 0.114 * b)).max() <= 0.51
    pillow = pytest.importorskip("PIL.Image")
    rows = [pillow.fromarray(x.reshape(32, 32, 3)).convert("L") for x in np.asarray(colour.splits["test"].inputs)]
    np.testing.assert_array_equal(luma, np.stack([np.asarray(row).ravel() for row in rows]))
    # Normalised as published.
    scaled = np.asarray(grey.prepare(jnp.array([[[0], [255]]], jnp.uint8)), np.float64).ravel()
    np.testing.assert_allclose(scaled, [-122.6 / 61, (255 - 122.6) / 61], rtol=1e-6)
    white = np.asarray(colour.prepare(jnp.full((1, 1, 3), 255, jnp.uint8)), np.float64).ravel()
    expected = [(1 - m) / s for m, s in zip((0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261), strict=True)]
    np.testing.assert_allclose(white, expected, rtol=1e-6)
    assert sum(image.FORMAT.sizes.values()) == sum(scifar.FORMAT.sizes.values()) == 60_000


def test_statistics_of_values(tmp_path):
    write_cifar(tmp_path)
    prepare("scifar", tmp_path)
    stored = store.read(scifar.FORMAT, tmp_path)
    pixels = np.asarray(stored.splits["train"].inputs, np.float64)
    statistics = stored.facts["statistics"]["train"]
    np.testing.assert_allclose(statistics["mean"], pixels.mean((0, 1)), rtol=1e-12)
    np.testing.assert_allclose(statistics["std"], pixels.std((0, 1)), rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data_batch_2.bin", bytes(3072), r"data_batch_2\.bin: 3072 bytes, not a positive multiple of 3073"),
        ("test_batch.bin", b"", r"test_batch\.bin: 0 bytes"),
        ("test_batch.bin", b"\x0b" + bytes(3072), r"test_batch\.bin: image 0 has the label 11, not one of 0\.\.9"),
        ("test_batch.bin", None, r"image: .*cifar-10-batches-bin lacks test_batch\.bin; get them .*cs\.toronto\.edu"),
    ],
)
def test_broken_cifar(tmp_path, name, content, message):
    write_cifar(tmp_path)
    file = tmp_path / "cifar-10-batches-bin" / name
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(DataError, match=message):
        prepare("image", tmp_path)
    assert not (tmp_path / "prepared/image").exists()
