"""How the eigenvalues of a run's mixers moved in training: its records, as a table and as a figure."""

import dataclasses
import pathlib
import zipfile
from typing import Any

import numpy as np
from jaxtyping import Complex, Float, Int

from s5jax.analysis import figures

__all__ = ["Layer", "Trajectories", "plot_eigenvalues", "read", "write_eigenvalues"]


SUFFIX = "/eigenvalues"


@dataclasses.dataclass(frozen=True)
class Layer:
    """The modes of one mixer; T records, N stored modes."""

    number: int
    """The number of the block."""
    eigenvalues: Complex[np.ndarray, "T N"]
    """Radians per unit of the mixer's time."""
    step_size: Float[np.ndarray, "T N"]
    """For each mode, in that unit; 1 for a mixer without step sizes, whose time is measured in samples."""

    @property
    def moves(self) -> Float[np.ndarray, " N"]:
        """The relative distance of each eigenvalue from its start, |end - start| / |start|."""
        start, end = self.eigenvalues[0], self.eigenvalues[-1]
        return np.abs(end - start) / np.maximum(np.abs(start), np.finfo(np.float32).tiny)


@dataclasses.dataclass(frozen=True)
class Trajectories:
    """The records of a run."""

    steps: Int[np.ndarray, " T"]
    layers: list[Layer]
    """The blocks whose mixers have eigenvalues."""
    feature: int | None
    """The feature whose systems these are; `None` where one system serves all features, as in S5."""


def read(workdir: pathlib.Path, feature: int = 0) -> Trajectories:
    """What a run recorded with `config.evaluators.eigenvalues`.

    Args:
      workdir: the run's directory; the run may still be training.
      feature: the feature to look at, in mixers with one system per feature.

    Raises:
      OSError: nothing was recorded, or a record is damaged.
      ValueError: there is no such feature.
    """
    files = sorted(file for file in (workdir / "eigenvalues").glob("*.npz") if file.stem.isdecimal())
    if not files:
        raise FileNotFoundError(
            f"{workdir} has no records of eigenvalues: train with --config.evaluators.eigenvalues.every_steps=N"
        )
    records = [_read_file(file) for file in files]
    numbers = [int(key.removesuffix(SUFFIX).removeprefix("layers_")) for key in records[0] if key.endswith(SUFFIX)]
    if not numbers:
        raise FileNotFoundError(f"{workdir} has records, but none of its mixers has eigenvalues")
    layers, for_each_feature = [], False
    for number in sorted(numbers):
        values, step_size = (
            np.stack([record.get(f"layers_{number}/{name}", np.ones((), np.float32)) for record in records])
            for name in ("eigenvalues", "step_size")
        )
        if values.ndim == 3:  # (T, S, N) and (T, H, N or 1); feature h uses copy h mod S
            if not 0 <= feature < step_size.shape[1]:
                raise ValueError(f"features run from 0 to {step_size.shape[1] - 1}, got {feature}")
            values, step_size, for_each_feature = values[:, feature % values.shape[1]], step_size[:, feature], True
        step_size = np.broadcast_to(step_size.reshape(len(records), -1), values.shape)
        layers.append(Layer(number, values, step_size))
    steps = np.array([int(file.stem) for file in files])
    return Trajectories(steps, layers, feature if for_each_feature else None)


def _read_file(file: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        with file.open("rb") as stream, np.load(stream) as arrays:  # numpy leaves open what it cannot read
            return dict(arrays)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise OSError(f"{file} is damaged: {error}") from error


def write_eigenvalues(result: Trajectories, file: pathlib.Path) -> None:
    """All numbers as CSV, a row for each record, layer and stored mode."""
    rows = (
        (step, layer.number, index, float(value.real), float(value.imag), float(layer.step_size[t, index]))
        for t, step in enumerate(result.steps)
        for layer in result.layers
        for index, value in enumerate(layer.eigenvalues[t])
    )
    figures.write_csv(file, ("step", "layer", "index", "re", "im", "step_size"), rows)


def plot_eigenvalues(result: Trajectories, file: pathlib.Path, title: str) -> None:
    """Each eigenvalue's path in training, plotted as (Re, |Im|).

    There is one panel for each layer, all with the same axes. An axis is logarithmic, except near 0, if its values
    span decades. Dotted lines show the lowest and the highest Nyquist frequency of the last record's step sizes,
    with a band between them. Modes above their Nyquist frequency alias.
    """
    from matplotlib.collections import LineCollection

    figure, panels = figures.panels(len(result.layers), 3.4, 3, "Re, 1 / time", "|Im|, radians / time")
    everything = np.concatenate([layer.eigenvalues.ravel() for layer in result.layers])
    panels[0].set_xscale(**_scale(everything.real))
    panels[0].set_yscale(**_scale(everything.imag))
    for axes, layer in zip(panels, result.layers, strict=True):
        points = np.stack([layer.eigenvalues.real, np.abs(layer.eigenvalues.imag)], axis=-1)  # (T, N, 2)
        ways = LineCollection(
            list(np.stack([points[:-1], points[1:]], axis=2).reshape(-1, 2, 2)),
            array=np.repeat((result.steps[:-1] + result.steps[1:]) / 2, points.shape[1]),
            cmap="copper_r",
            clim=(result.steps[0], max(result.steps[-1], result.steps[0] + 1)),
            linewidths=1.4,
        )
        axes.add_collection(ways)
        axes.plot(*points[0].T, "o", mfc="none", mec="#52606d", mew=0.7, ms=5, label="start")
        axes.plot(*points[-1].T, "o", color="#0b6e99", ms=2.5, label="end")
        axes.axvline(0, color="#52606d", lw=1)
        axes.axhline(0, color="#52606d", lw=1)
        axes.set_title(f"layer {layer.number}", fontsize=9)
        figures.tidy(axes)
    bottom, top = panels[0].get_ylim()
    for axes, layer in zip(panels, result.layers, strict=True):
        nyquist = np.pi / layer.step_size[-1]
        axes.axhspan(nyquist.min(), nyquist.max(), color="#d1495b", alpha=0.12, lw=0)
        for frequency in {nyquist.min(), nyquist.max()}:
            if frequency < top:
                axes.axhline(frequency, color="#d1495b", lw=1, ls=":", label="Nyquist frequency")
    panels[0].set_ylim(bottom, top)  # of the eigenvalues, wherever the Nyquist frequencies lie
    figure.colorbar(ways, ax=panels, label="step", shrink=0.8, aspect=40)
    figures.add_legend(figure, columns=3)
    figure.suptitle(title, fontsize=10)
    figures.save(figure, file)


def _scale(values: Float[np.ndarray, " M"]) -> dict[str, Any]:
    """Scale of an axis that includes 0: linear, or logarithmic beyond a threshold if values span decades. The threshold
    is the 10 % quantile of their sizes, at least 1, rounded to a power of ten."""
    sizes = np.abs(values[values != 0])
    tenth = np.quantile(sizes, 0.1) if sizes.size else 0.0
    threshold = 10 ** np.round(np.log10(max(tenth, 1.0)))  # decades of slow modes would leave others no room
    if not (sizes > 10 * threshold).any():
        return {"value": "linear"}
    return {"value": "symlog", "linthresh": threshold}
