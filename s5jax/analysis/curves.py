"""Learning curves of a run, as a figure."""

import json
import pathlib
from typing import Any

from s5jax.analysis import figures

__all__ = ["plot_learning_curves"]


def plot_learning_curves(workdir: pathlib.Path, file: pathlib.Path | None = None) -> pathlib.Path:
    """The objective's metrics against epochs, loss first, training and validation, the best checkpoint marked.

    Args:
      workdir: of the run; its metrics.jsonl is read, and result.json where the run is finished.
      file: where to; default learning_curves.png in the workdir.

    Returns:
      The figure's path.

    Raises:
      FileNotFoundError: the run has no metrics.jsonl.
    """
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    result: dict[str, Any] = {}
    if (workdir / "result.json").exists():
        result = json.loads((workdir / "result.json").read_text())

    found = {name.partition("/")[2] for r in records for name in r if name.startswith("val/")} or {"loss"}
    quantities = [name for name in sorted(found, key=lambda name: (name != "loss", name)) if "_stride_" not in name]
    figure = figures.new(4.5 * len(quantities), 3.4)
    for axes, quantity in zip(figure.subplots(1, len(quantities), squeeze=False)[0], quantities, strict=True):
        for split, color, label in (("train", "#9aa5b1", "training"), ("val", "#0b6e99", "validation")):
            points = [(r["epoch"], r[f"{split}/{quantity}"]) for r in records if f"{split}/{quantity}" in r]
            style = "-" if split == "train" else "o-"
            axes.plot(*zip(*points, strict=True), style, color=color, label=label, markersize=3) if points else None
        best = next((r for r in records if r["step"] == result.get("best_step") and "val/loss" in r), None)
        if best:
            axes.plot(
                best["epoch"], best[f"val/{quantity}"], "*", color="#d1495b", markersize=12, label="best checkpoint"
            )
        if f"test/{quantity}" in result:
            axes.axhline(
                result[f"test/{quantity}"],
                color="#d1495b",
                lw=1,
                ls=":",
                label=f"test {result[f'test/{quantity}']:.4f}",
            )
        axes.set_xlabel("epoch")
        axes.set_ylabel(quantity)
        figures.tidy(axes)
        axes.legend(frameon=False, fontsize=8)
        if quantity == "accuracy":
            axes.set_ylim(top=1.005)
        elif all(value > 0 for r in records for name, value in r.items() if name.endswith(f"/{quantity}")):
            axes.set_yscale("log")
    figure.suptitle(f"{workdir.name}: learning curves", fontsize=10)
    file = workdir / "learning_curves.png" if file is None else file
    figures.save(figure, file)
    return file
