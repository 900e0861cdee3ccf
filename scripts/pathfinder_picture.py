"""Draws 32 generated examples of Pathfinder or Path-X with their labels."""

import argparse
import pathlib
import sys

import numpy as np
from jaxtyping import UInt8

from s5jax.analysis import figures
from s5jax.data.generators import contours
from s5jax.train import launch
from s5jax.train.config import UserError

STYLES = {"pathfinder": contours.PATHFINDER, "pathx": contours.PATHX}
CAPTIONS = ("not connected", "connected")
EXAMPLES = 32


def main() -> int:
    parser = launch.make_parser(__doc__)
    parser.add_argument("--task", choices=tuple(STYLES), default="pathfinder", help="32 or 128 pixels (default: 32)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the generator (default: 0)")
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="FILE.png", help="the figure")
    return launch.call(draw, parser.parse_args())


def draw(arguments: argparse.Namespace) -> str:
    task, seed, out = arguments.task, arguments.seed, arguments.out
    if out.suffix != ".png":
        raise UserError(f"--out: the figure's name must end in .png, got {out}")
    if not 0 <= seed < 2**32:
        raise UserError(f"--seed: {seed} is outside 0..{2**32 - 1}")
    images, labels = contours.examples(STYLES[task], seed, "train", 0, EXAMPLES)
    title = f"{task}: training examples from seed {seed}, {images.shape[1]} x {images.shape[2]} pixels"
    plot_images(images, [CAPTIONS[label] for label in labels], out, title)
    return f"figure: {out}"


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


if __name__ == "__main__":
    sys.exit(main())
