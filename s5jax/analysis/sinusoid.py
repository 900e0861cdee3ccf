"""What models of the task `sinusoid` make of frequencies within and beyond those of training."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from s5jax.analysis import figures, panel_figures
from s5jax.data.tasks import sinusoid

__all__ = ["Response", "plot_responses", "respond", "table", "write_responses"]

PHASES = 8
"""Evenly spread phases that each frequency is shown with."""


@dataclasses.dataclass(frozen=True)
class Response:
    """Predictions for sinusoids of amplitude 1.

    name: of the run.
    true: (F,), frequencies in radians per unit of time.
    amplitude, frequency: (F, phases), as predicted, the latter in radians per unit of time.
    """

    name: str
    true: Float[np.ndarray, " F"]
    amplitude: Float[np.ndarray, "F phases"]
    frequency: Float[np.ndarray, "F phases"]

    def summary(self, beyond: bool) -> tuple[float, float, float]:
        """Mean absolute errors of amplitude and frequency, and the least amplitude: up to training's end, or beyond."""
        at = (self.true > sinusoid.TRAIN_UP_TO) == beyond
        amplitude, frequency = self.amplitude[at], self.frequency[at]
        off = np.abs(frequency - self.true[at, None])
        return float(np.abs(amplitude - 1).mean()), float(off.mean()), float(amplitude.min())


def respond(name: str, model: nnx.Module, points: int = 401) -> Response:
    """A trained model's predictions from frequency 0 to the end of the test split's.

    Args:
      name: of the run.
      model: of the task `sinusoid`.
      points: frequencies, evenly spread.
    """
    true = np.linspace(0, sinusoid.TEST_UP_TO, points)
    graphdef, weights = nnx.split(model)

    @jax.jit
    def predict(weights: Any, inputs: Array) -> Array:
        return nnx.merge(graphdef, weights)(inputs)[:, :2]  # behind them a Gaussian objective has its variances

    predictions = [
        np.asarray(predict(weights, jnp.asarray(sinusoid.sinusoids(true, np.ones(points), np.full(points, phase)))))
        for phase in 2 * np.pi * np.arange(PHASES) / PHASES
    ]
    amplitude, frequency = np.moveaxis(np.stack(predictions, axis=1).astype(np.float64), 2, 0)
    return Response(name, true, amplitude, frequency * sinusoid.FREQUENCY_SCALE)


def table(responses: Sequence[Response]) -> str:
    """Each run's errors and least amplitude, up to the end of training and beyond it."""
    edge, end = f"{sinusoid.TRAIN_UP_TO:g}", f"{sinusoid.TEST_UP_TO:g}"
    width = max(len(response.name) for response in responses)
    heads = ("error of amplitude 1", "error of frequency", "least amplitude")
    lines = [
        "   ".join([" " * width, *(f"{head:^20}" for head in heads)]),
        "   ".join([" " * width, *[f"{f'0..{edge}':>9}  {f'{edge}..{end}':>9}"] * len(heads)]),
    ]
    for response in responses:
        pairs = zip(response.summary(beyond=False), response.summary(beyond=True), strict=True)
        lines.append("   ".join([f"{response.name:{width}}", *(f"{x:9.3f}  {y:9.3f}" for x, y in pairs)]))
    return "\n".join(lines)


def write_responses(responses: Sequence[Response], file: pathlib.Path) -> None:
    """The curves of `plot_responses` as CSV: the true frequency, then amplitude and frequency of each run."""
    columns = [responses[0].true, *(x.mean(1) for r in responses for x in (r.amplitude, r.frequency))]
    header = ["true", *(f"{r.name}_{part}" for r in responses for part in ("amplitude", "frequency"))]
    panel_figures.write_csv(file, header, ([float(x) for x in row] for row in zip(*columns, strict=True)))


def plot_responses(responses: Sequence[Response], file: pathlib.Path) -> None:
    """Predicted amplitude and frequency against the true frequency, each the mean over phases."""
    figure = figures.new(9, 3.6)
    left, right = figure.subplots(1, 2)
    true = responses[0].true
    for axes, truth in ((left, np.ones_like(true)), (right, true)):
        axes.plot(true, truth, color="#9aa5b1", lw=3, label="true")
        axes.axvline(sinusoid.TRAIN_UP_TO, color="#d1495b", lw=1, ls=":", label="end of training")
        axes.set_xlabel("frequency, radians per unit of time")
        figures.tidy(axes)
    for response in responses:
        left.plot(true, response.amplitude.mean(1), lw=1.3, label=response.name)
        right.plot(true, response.frequency.mean(1), lw=1.3)
    left.set_ylabel("predicted amplitude")
    right.set_ylabel("predicted frequency")
    left.legend(frameon=False, fontsize=8)
    figures.save(figure, file)
