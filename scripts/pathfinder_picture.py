"""Draws 32 generated examples of Pathfinder or Path-X with their labels."""

import argparse
import pathlib
import sys

from s5jax.analysis.examples import plot_images
from s5jax.data.generators import contours
from s5jax.train.config import UserError

STYLES = {"pathfinder": contours.PATHFINDER, "pathx": contours.PATHX}
CAPTIONS = ("not connected", "connected")
EXAMPLES = 32


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--task", choices=tuple(STYLES), default="pathfinder", help="32 or 128 pixels (default: 32)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the generator (default: 0)")
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="FILE.png", help="the figure")
    arguments = parser.parse_args()
    try:
        draw(arguments.task, arguments.seed, arguments.out)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def draw(task: str, seed: int, out: pathlib.Path) -> None:
    if out.suffix != ".png":
        raise UserError(f"--out: the figure's name must end in .png, got {out}")
    if not 0 <= seed < 2**32:
        raise UserError(f"--seed: {seed} is outside 0..{2**32 - 1}")
    images, labels = contours.examples(STYLES[task], seed, "train", 0, EXAMPLES)
    title = f"{task}: training examples from seed {seed}, {images.shape[1]} x {images.shape[2]} pixels"
    plot_images(images, [CAPTIONS[label] for label in labels], out, title)
    print(f"figure: {out}")


if __name__ == "__main__":
    sys.exit(main())
