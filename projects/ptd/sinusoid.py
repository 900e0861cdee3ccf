"""Draws the predictions of trained models for sinusoids beyond the training frequencies, and writes the numbers."""

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from projects.ptd import sinusoid_task as task
from s5jax.analysis import figures
from s5jax.train import launch
from s5jax.train.config import UserError
from s5jax.train.trained import load_run
from s5jax.train.workdir import read_config

__all__ = ["Response", "plot_responses", "respond", "table", "write_responses"]

EXAMPLES = """examples:
  python scripts/train.py --config=projects/ptd/configs/sinusoid.py:s4d-legs --workdir=runs/sinusoid/s4d-legs
  python scripts/train.py --config=projects/ptd/configs/sinusoid.py:s4-ptd --workdir=runs/sinusoid/s4-ptd
  python projects/ptd/sinusoid.py --workdirs runs/sinusoid/* --out=runs/sinusoid.png

The figure shows the predicted amplitude (the true one is 1) and frequency against the true frequency, as means over
eight phases. A CSV file beside it has the same numbers. The table has mean absolute errors, within the training
frequencies and beyond them.
"""

PHASES = 8
"""Number of phases, evenly spread, for each frequency."""


def main() -> int:
    parser = launch.make_parser(__doc__, EXAMPLES)
    parser.add_argument(
        "--workdirs", type=pathlib.Path, required=True, nargs="+", metavar="DIR", help="directories of runs"
    )
    parser.add_argument(
        "--out", type=pathlib.Path, required=True, metavar="FILE.png", help="the figure; FILE.csv has its numbers"
    )
    launch.add_checkpoint(parser)
    return launch.call(extrapolate, parser.parse_args())


def extrapolate(arguments: argparse.Namespace) -> str:
    workdirs, out = arguments.workdirs, arguments.out
    if out.suffix != ".png":
        raise UserError(f"--out: the figure's name must end in .png, got {out}")
    if not out.absolute().parent.is_dir():
        raise UserError(f"--out: there is no directory {out.parent}")
    for workdir in workdirs:  # before the work on any
        name = read_config(workdir).task.name
        if name != task.__name__:
            raise UserError(f"{workdir} holds a model of the task {name}, not of {task.__name__}")
    names = [workdir.name for workdir in workdirs]
    if len(set(names)) < len(names):
        names = [str(workdir) for workdir in workdirs]
    responses = [
        respond(name, load_run(workdir, arguments.checkpoint).model)
        for name, workdir in zip(names, workdirs, strict=True)
    ]
    plot_responses(responses, out)
    write_responses(responses, out.with_suffix(".csv"))
    return f"{table(responses)}\nfigure:  {out}\nnumbers: {out.with_suffix('.csv')}"


@dataclasses.dataclass(frozen=True)
class Response:
    """Predictions for sinusoids of amplitude 1."""

    name: str
    """The name of the run."""
    true: Float[np.ndarray, " F"]
    """True frequencies, radians per unit of time."""
    amplitude: Float[np.ndarray, "F phases"]
    """Predicted amplitudes."""
    frequency: Float[np.ndarray, "F phases"]
    """Predicted frequencies, radians per unit of time."""

    def summary(self, beyond: bool) -> tuple[float, float, float]:
        """Mean absolute errors of amplitude and frequency, and the least predicted amplitude, within the training
        frequencies or beyond them."""
        at = (self.true > task.TRAIN_UP_TO) == beyond
        amplitude, frequency = self.amplitude[at], self.frequency[at]
        off = np.abs(frequency - self.true[at, None])
        return float(np.abs(amplitude - 1).mean()), float(off.mean()), float(amplitude.min())


def respond(name: str, model: nnx.Module, points: int = 401) -> Response:
    """The predictions of a trained model from frequency 0 to the end of the test split.

    Args:
      name: of the run.
      model: of the task `sinusoid_task`.
      points: frequencies, evenly spread.
    """
    true = np.linspace(0, task.TEST_UP_TO, points)
    graphdef, weights = nnx.split(model)

    @jax.jit
    def predict(weights: Any, inputs: Array) -> Array:
        return nnx.merge(graphdef, weights)(inputs)[:, :2]  # a Gaussian objective has its variances behind them

    predictions = [
        np.asarray(predict(weights, jnp.asarray(task.sinusoids(true, np.ones(points), np.full(points, phase)))))
        for phase in 2 * np.pi * np.arange(PHASES) / PHASES
    ]
    amplitude, frequency = np.moveaxis(np.stack(predictions, axis=1).astype(np.float64), 2, 0)
    return Response(name, true, amplitude, frequency * task.FREQUENCY_SCALE)


def table(responses: Sequence[Response]) -> str:
    """The errors and the least amplitude of each run, within the training frequencies and beyond them."""
    edge, end = f"{task.TRAIN_UP_TO:g}", f"{task.TEST_UP_TO:g}"
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
    """Writes the curves of `plot_responses` as CSV: the true frequency, then amplitude and frequency of each run."""
    columns = [responses[0].true, *(x.mean(1) for r in responses for x in (r.amplitude, r.frequency))]
    header = ["true", *(f"{r.name}_{part}" for r in responses for part in ("amplitude", "frequency"))]
    figures.write_csv(file, header, ([float(x) for x in row] for row in zip(*columns, strict=True)))


def plot_responses(responses: Sequence[Response], file: pathlib.Path) -> None:
    """Plots the predicted amplitude and frequency against the true frequency, as means over phases."""
    figure = figures.new(9, 3.6)
    left, right = figure.subplots(1, 2)
    true = responses[0].true
    for axes, truth in ((left, np.ones_like(true)), (right, true)):
        axes.plot(true, truth, color="#9aa5b1", lw=3, label="true")
        axes.axvline(task.TRAIN_UP_TO, color="#d1495b", lw=1, ls=":", label="end of training")
        axes.set_xlabel("frequency, radians per unit of time")
        figures.tidy(axes)
    for response in responses:
        left.plot(true, response.amplitude.mean(1), lw=1.3, label=response.name)
        right.plot(true, response.frequency.mean(1), lw=1.3)
    left.set_ylabel("predicted amplitude")
    right.set_ylabel("predicted frequency")
    left.legend(frameon=False, fontsize=8)
    figures.save(figure, file)


if __name__ == "__main__":
    sys.exit(main())
