import runpy
import sys

import numpy as np
import pytest
import tiny
from PIL import Image

from scripts.pathfinder_picture import plot_images


def test_images_are_drawn_as_they_are(tmp_path):
    """Each grey level of each image is there, and covers about as much of the figure as the others."""
    images = np.arange(36, dtype=np.uint8).reshape(9, 2, 2) * 7
    file = tmp_path / "examples.png"
    plot_images(images, [f"image {i}" for i in range(9)], file, "title", columns=3)
    drawn = np.asarray(Image.open(file).convert("L"))
    histogram = np.bincount(drawn.ravel(), minlength=256)
    areas = np.convolve(histogram, [1, 1, 1], "same")[7:250:7]  # a colour map may be off by one
    assert areas.min() > 0.5 * np.median(areas) > 1000


@pytest.fixture
def call(monkeypatch, capsys):
    """The launcher's exit status, output and errors."""

    def run(*arguments):
        monkeypatch.chdir(tiny.ROOT)
        monkeypatch.setattr(sys, "argv", ["pathfinder_picture.py", *arguments])
        with pytest.raises(SystemExit) as status:
            runpy.run_path("scripts/pathfinder_picture.py", run_name="__main__")
        return status.value.code, *capsys.readouterr()

    return run


def test_the_picture_of_generated_images(tmp_path, call):
    file = tmp_path / "picture.png"
    assert call("--task=pathx", "--seed=2", f"--out={file}") == (0, f"figure: {file}\n", "")
    assert file.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--out=picture.jpg",), "must end in .png"),
        (("--out=picture.png", "--seed=-1"), "outside 0..4294967295"),
        (("--out=none/picture.png",), "No such file"),
    ],
)
def test_mistakes_are_told_without_a_traceback(call, arguments, message):
    status, _, errors = call(*arguments)
    assert status == 1 and errors.startswith("error: ") and message in errors
