"""What figures have in common: their look, panels, tables beside them, and files that are replaced in one go."""

import csv
import math
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # matplotlib takes a while to import, and training has no need of it before its end
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["add_legend", "new", "panels", "save", "tidy", "write_csv"]


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


def panels(
    count: int, width: int | float, height: int | float, xlabel: str, ylabel: str
) -> "tuple[Figure, list[Axes]]":
    """A figure with `count` panels (at least 1) of a size in inches, up to three side by side, with the same axes."""
    columns = min(3, math.ceil(math.sqrt(count)))
    rows = math.ceil(count / columns)
    figure = new(max(width * columns, 5.5), 1.2 + height * rows)
    used, unused = np.split(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel(), [count])
    for axes in unused:
        axes.remove()
    for axes in used[-columns:]:
        axes.tick_params(labelbottom=True)  # where the panel below is missing, too
        axes.set_xlabel(xlabel)
    for axes in used[::columns]:
        axes.set_ylabel(ylabel)
    return figure, list(used)


def add_legend(figure: "Figure", columns: int) -> None:
    """One legend, below the panels, of all that is labelled in any of them."""
    pairs = [pair for axes in figure.axes for pair in zip(*axes.get_legend_handles_labels(), strict=True)]
    labels = {label: handle for handle, label in pairs}
    figure.legend(labels.values(), labels.keys(), loc="outside lower center", ncols=columns, frameon=False, fontsize=8)


def write_csv(file: pathlib.Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a table, or replaces the one there; floating-point numbers with 8 digits."""
    temporary = file.with_name(file.name + ".tmp")
    with temporary.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows([f"{x:.8g}" if isinstance(x, float) else x for x in row] for row in rows)
    os.replace(temporary, file)
