"""What the images of a data set look like."""

import pathlib

import numpy as np
from jaxtyping import UInt8

from s5jax.analysis import figures

__all__ = ["plot_images"]


def plot_images(
    images: UInt8[np.ndarray, "N height width"],
    captions: list[str],
    file: pathlib.Path,
    title: str,
    columns: int = 8,
) -> None:
    """Grey images side by side, 0 black and 255 white, each below its caption."""
    rows = -(-len(images) // columns)
    figure = figures.new(1.25 * columns, 1.45 * rows + 0.3)
    for i, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axes.set_axis_off()
        if i < len(images):
            axes.imshow(images[i], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes.set_title(captions[i], size=8, pad=3)
    figure.suptitle(title, fontsize=10)
    figures.save(figure, file)
