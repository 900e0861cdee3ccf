"""Pathfinder and Path-X from files in the official layout, and generated."""

import jax.numpy as jnp
import numpy as np
import pytest
from data_helpers import join, load, prepare
from PIL import Image

from s5jax.data.generators import contours
from s5jax.data.prepare import Request
from s5jax.data.splits import random_split
from s5jax.data.task import DataError
from s5jax.data.tasks import pathfinder, pathx

PLACE = "pathfinder32/curv_contour_length_14"


def put(data_dir, place=PLACE, size=32, count=30):
    """Official files of random images, in three metadata files whose alphabetic order is wrong, and what they hold."""
    random = np.random.RandomState(0)
    images = random.randint(0, 256, (count, size, size)).astype(np.uint8)
    labels = random.randint(0, 2, count)
    folder = data_dir / place
    (folder / "metadata").mkdir(parents=True)
    for batch, chosen in zip((2, 9, 10), np.array_split(np.arange(count), 3), strict=True):
        (folder / f"imgs/{batch}").mkdir(parents=True)
        lines = []
        for number, i in enumerate(chosen):
            Image.fromarray(images[i]).save(folder / f"imgs/{batch}/sample_{number}.png")
            lines.append(f"imgs/{batch} sample_{number}.png {number} {labels[i]} 1.0 14 4 2 0.5 1 1\n")
        (folder / f"metadata/{batch}.npy").write_text("".join(lines))
    return images, labels


def read(data_dir, **fields):
    """The training split."""
    return join(pathfinder.plan(Request(data_dir=data_dir, subset=True, **fields)).parts["train"])


@pytest.mark.parametrize(
    ("module", "size", "place"),
    [
        (pathfinder, 32, PLACE),
        (pathfinder, 32, f"lra_release/{PLACE}"),
        (pathfinder, 32, f"lra_release/lra_release/{PLACE}"),
        (pathfinder, 32, f"pathfinder/{PLACE}"),
        (pathx, 128, "lra_release/lra_release/pathfinder128/curv_contour_length_14"),
    ],
)
def test_official_files_are_read_in_the_published_order(tmp_path, monkeypatch, module, size, place):
    monkeypatch.setattr(pathfinder, "IMAGES_PER_PART", 7)
    images, labels = put(tmp_path, place, size, count=43)
    plan = module.plan(Request(data_dir=tmp_path, subset=True))
    assert plan.origin == f"official files of {tmp_path / place}"
    assert [file.name for file in plan.sources[:4]] == ["2.npy", "9.npy", "10.npy", "sample_0.png"]
    for part, parts in zip(random_split(43, [35, 4, 4], 42), plan.parts.values(), strict=True):
        arrays = join(parts)
        np.testing.assert_array_equal(arrays.inputs, images[part].reshape(len(part), size * size, 1))
        np.testing.assert_array_equal(arrays.labels, labels[part])
        assert arrays.inputs.dtype == np.uint8


def test_a_part_of_the_official_files_is_taken_on_request_only(tmp_path):
    put(tmp_path)
    with pytest.raises(DataError, match=r"train has 24 examples, the official files 160,000.*--subset"):
        prepare("pathfinder", tmp_path, subset=False)
    prepare("pathfinder", tmp_path)
    (tmp_path / "pathfinder128/curv_contour_length_14/metadata").mkdir(parents=True)
    with pytest.raises(DataError, match=r"pathx: .*metadata has no files 0.npy, 1.npy, .*get them from"):
        prepare("pathx", tmp_path)


def test_fewer_than_ten_official_images_are_refused(tmp_path):
    put(tmp_path, count=9)
    with pytest.raises(DataError, match="pathfinder: the split val would have no examples"):
        prepare("pathfinder", tmp_path)


def change_line(line):
    def change(folder):
        file = folder / "metadata/9.npy"
        lines = file.read_text().splitlines()
        file.write_text("\n".join([*lines[:1], line, *lines[2:]]))

    return change


def change_image(change):
    """All of them, so that whichever is in the training split is among them."""

    def change_all(folder):
        for file in (folder / "imgs").glob("*/*.png"):
            change(file)

    return change_all


def truncate(file):
    file.write_bytes(file.read_bytes()[:600])


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (change_line("imgs/9 sample_1.png 1"), r"metadata/9\.npy, line 2: 3 fields, but folder"),
        (change_line("imgs/9 sample_1.png 1 2 1.0"), r"metadata/9\.npy, line 2: the label must be 0 or 1, not '2'"),
        (change_line("imgs/9 sample_1.png 1 x 1.0"), r"metadata/9\.npy, line 2: the label must be 0 or 1, not 'x'"),
        (
            lambda folder: np.save(folder / "metadata/9.npy", np.ones(99)),
            r"metadata/9\.npy, line 1: .* is damaged",
        ),
        (change_image(lambda file: file.unlink()), r"imgs/\d+/sample_\d\.png: missing or damaged .*No such file"),
        (change_image(truncate), r"imgs/\d+/sample_\d\.png: missing or damaged"),
        (change_image(lambda file: file.write_text("GIF89a")), r"sample_\d\.png: missing or damaged"),
        (change_image(lambda file: file.write_bytes(b"")), r"imgs/\d+/sample_\d\.png: missing or damaged"),
        (
            change_image(lambda file: Image.new("L", (32, 31)).save(file)),
            r"imgs/\d+/sample_\d\.png: 32 x 31 pixels of mode L, not 32 x 32 of mode L",
        ),
        (
            change_image(lambda file: Image.new("RGB", (32, 32)).save(file)),
            r"imgs/\d+/sample_\d\.png: 32 x 32 pixels of mode RGB, not 32 x 32 of mode L",
        ),
    ],
)
def test_damaged_official_files_are_named(tmp_path, break_it, message):
    put(tmp_path)
    break_it(tmp_path / PLACE)
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_images_are_generated(tmp_path, monkeypatch):
    monkeypatch.setattr(pathfinder, "IMAGES_PER_PART", 4)
    sizes = {"train": 10, "val": 4, "test": 2}
    put(tmp_path)
    plan = pathfinder.plan(Request(data_dir=tmp_path, generate=True, seed=3, sizes=sizes))
    assert "generated" in plan.origin and "which these are not" in plan.origin and "seed 3" in plan.origin
    assert not plan.sources
    for split, parts in plan.parts.items():
        images, labels = contours.examples(contours.PATHFINDER, 3, split, 0, sizes[split])
        arrays = join(parts)
        np.testing.assert_array_equal(arrays.inputs[..., 0], images.reshape(-1, 1024))
        np.testing.assert_array_equal(arrays.labels, labels)


def test_the_task_comes_from_its_store(tmp_path):
    sizes = {"train": 6, "val": 2, "test": 2}
    for name, module, length in (("pathfinder", pathfinder, 1024), ("pathx", pathx, 16384)):
        prepare(name, tmp_path, generate=True, sizes=sizes)
        task = load(module, tmp_path)
        assert (task.name, task.length, task.num_classes, task.input_size) == (name, length, 2, 1)
        grey = task.splits["train"].inputs
        prepared = np.asarray(task.prepare(jnp.asarray(grey)))
        np.testing.assert_allclose(prepared, grey / 127.5 - 1, atol=1e-6)  # the published (x / 255 - 0.5) / 0.5
        assert prepared.dtype == np.float32 and prepared.shape == (6, length, 1)
