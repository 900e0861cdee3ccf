"""What figures have in common: their look, and files that no reader ever sees half of."""

import os
import pathlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # matplotlib takes a while to import, and training has no need of it before its end
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["new", "save", "tidy"]


def new(width: int | float, height: int | float) -> "Figure":
    """An empty figure of a size in inches."""
    from matplotlib.figure import Figure  # no pyplot: it would look for a display

    return Figure(figsize=(width, height), layout="constrained")


def tidy(axes: "Axes") -> None:
    """A faint grid, and no frame above and on the right."""
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: "Figure", file: pathlib.Path) -> None:
    """Writes a PNG, or replaces the one there."""
    temporary = file.with_name(file.name + ".tmp")
    figure.savefig(temporary, dpi=150, format="png")
    os.replace(temporary, file)
