"""Learning curves of a run, as a figure."""

import json
import pathlib
from typing import Any

from s5jax.analysis import figures

__all__ = ["plot_learning_curves"]

SPLITS: dict[str, Any] = {
    "train": {"color": "#9aa5b1", "label": "training", "linestyle": "-"},
    "val": {"color": "#0b6e99", "label": "validation", "linestyle": "-", "marker": "o", "markersize": 3},
}
RED = "#d1495b"


def plot_learning_curves(workdir: pathlib.Path, file: pathlib.Path | None = None) -> pathlib.Path:
    """The objective's metrics against epochs, loss first, training and validation, the best checkpoint marked.

    Reads metrics.jsonl of a run, which must be there, and result.json if it is finished. Returns the figure's path,
    `file` or learning_curves.png in the workdir.
    """
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    finished = workdir / "result.json"
    result: dict[str, Any] = json.loads(finished.read_text()) if finished.exists() else {}
    best = next((r for r in records if r["step"] == result.get("best_step") and "val/loss" in r), None)

    found = {name.partition("/")[2] for r in records for name in r if name.startswith("val/")} or {"loss"}
    quantities = [name for name in sorted(found, key=lambda name: (name != "loss", name)) if "_stride_" not in name]
    values = {q: [r[name] for r in records for name in r if name.endswith(f"/{q}")] for q in quantities}
    figure = figures.new(4.5 * len(quantities), 3.4)
    for axes, quantity in zip(figure.subplots(1, len(quantities), squeeze=False)[0], quantities, strict=True):
        for split, style in SPLITS.items():
            points = [(r["epoch"], r[f"{split}/{quantity}"]) for r in records if f"{split}/{quantity}" in r]
            axes.plot(*zip(*points, strict=True), **style) if points else None
        if best and f"val/{quantity}" in best:
            axes.plot(best["epoch"], best[f"val/{quantity}"], "*", color=RED, markersize=12, label="best checkpoint")
        test = result.get(f"test/{quantity}")
        if test is not None:
            axes.axhline(test, color=RED, lw=1, ls=":", label=f"test {test:.4f}")
        axes.set(xlabel="epoch", ylabel=quantity)
        figures.tidy(axes)
        axes.legend(frameon=False, fontsize=8)
        if quantity == "accuracy":
            axes.set_ylim(top=1.005)
        elif 0 < 10 * min(values[quantity]) < max(values[quantity]):
            axes.set_yscale("log")
    figure.suptitle(f"{workdir.name}: learning curves", fontsize=10)
    file = workdir / "learning_curves.png" if file is None else file
    figures.save(figure, file)
    return file
