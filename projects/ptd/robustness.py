"""Adds sinusoids and noise to the inputs of trained models, and shows the accuracy that remains."""

import argparse
import dataclasses
import pathlib
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tqdm
from jaxtyping import Float

from projects.ptd import disturbance
from projects.ptd.disturbance import Disturbance, Place
from s5jax.analysis import figures
from s5jax.data.task import Task
from s5jax.models.model import Model
from s5jax.train import launch
from s5jax.train.config import Config, UserError
from s5jax.train.trained import Trained, load
from s5jax.train.workdir import differences

__all__ = ["Sweep", "plot_sweeps", "sweep", "table", "write_sweeps"]

EXAMPLES = """examples:
  for seed in 0 1 2; do for m in s4d-legs-frozen s4-ptd-frozen; do
    python scripts/train.py --config=projects/ptd/configs/robustness.py:$m --workdir=runs/robustness/$m-$seed \\
      --config.seed=$seed
  done; done
  python projects/ptd/robustness.py --workdirs runs/robustness/* --out=runs
  python projects/ptd/robustness.py --workdirs runs/robustness/s4* --place=ssm --amplitudes 1 --frequencies 4

Runs whose configs differ only in the seed are averaged, under the name of the first run without its number. The
frequency of a sinusoid is in radians per unit of time of each feature's SSM, where the time between two samples is the
step size. The frequencies include the spikes of the normal part of HiPPO-LegS, from which S4D and S5 start. A dotted
line in the figure shows the last spike. Writes robustness.png, robustness.csv and the table, robustness.md, into --out.
"""


def main() -> int:
    parser = launch.make_parser(__doc__, EXAMPLES)
    parser.add_argument(
        "--workdirs", type=pathlib.Path, nargs="+", required=True, metavar="DIR", help="directories of finished runs"
    )
    parser.add_argument(
        "--amplitudes",
        type=float,
        nargs="+",
        default=[0.1, 0.3, 1.0],
        metavar="A",
        help="amplitudes of sinusoids, standard deviations of noise (default: 0.1 0.3 1)",
    )
    parser.add_argument(
        "--place",
        choices=("ssm", "data", "both"),
        default="both",
        help="add to the input of every SSM, to the data, or to each in turn (default: both)",
    )
    parser.add_argument(
        "--frequencies", type=int, default=30, metavar="N", help="frequencies besides those of spikes (default: 30)"
    )
    parser.add_argument("--split", choices=("train", "val", "test"), default="test", help="default: test")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(), metavar="DIR", help="default: .")
    return launch.call(run, parser.parse_args())


def run(arguments: argparse.Namespace) -> None:
    if min(arguments.amplitudes) < 0:
        raise UserError("--amplitudes: none may be negative")
    if arguments.frequencies < 0:
        raise UserError(f"--frequencies must be at least 0, got {arguments.frequencies}")
    groups = together(arguments.workdirs)
    places: tuple[Place, ...] = ("ssm", "data") if arguments.place == "both" else (arguments.place,)
    for label, runs in groups.items():
        for place in places:
            try:
                disturbance.check(runs[0].model, runs[0].task, place)
            except ValueError as error:
                raise UserError(f"{label}, --place={place}: {error}") from error
    arguments.out.mkdir(parents=True, exist_ok=True)
    sweeps = []
    with tqdm.tqdm(total=len(arguments.workdirs) * len(places), unit="run", disable=not sys.stderr.isatty()) as bar:
        for place in places:
            for label, runs in groups.items():
                found = sweep(
                    label,
                    [trained.model for trained in runs],
                    runs[0].task,
                    arguments.amplitudes,
                    place=place,
                    split=arguments.split,
                    count=arguments.frequencies,
                    advance=bar.update,
                )
                sweeps.append(found)
    text = table(sweeps)
    print(text)
    temporary = arguments.out / "robustness.md.tmp"
    temporary.write_text(text + "\n")
    temporary.replace(arguments.out / "robustness.md")
    write_sweeps(sweeps, arguments.out / "robustness.csv")
    plot_sweeps(sweeps, arguments.out / "robustness.png", "Accuracy under a sinusoid")
    print(f"figure:  {arguments.out / 'robustness.png'}\nnumbers: {arguments.out / 'robustness.csv'}")


def together(workdirs: list[pathlib.Path]) -> dict[str, list[Trained]]:
    """Groups runs that differ only in their seed, by a common name."""
    groups: list[tuple[Config, list[tuple[str, Trained]]]] = []
    for workdir in workdirs:
        trained = load(workdir)
        config = dataclasses.replace(trained.config, seed=0)
        runs = next((runs for other, runs in groups if not differences(other, config)), None)
        if runs is None:
            runs = []
            groups.append((config, runs))
        runs.append((workdir.resolve().name, trained))
    named: dict[str, list[Trained]] = {}
    for _, runs in groups:
        name = runs[0][0]
        label = re.sub(r"[-_.]*\d*$", "", name) if len(runs) > 1 else name
        label = label.lstrip("_") or name
        while label in named:
            label += "'"
        named[label] = [trained for _, trained in runs]
    return named


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Accuracies of a group of runs that differ only in their seed."""

    label: str
    place: Place
    amplitudes: tuple[float, ...]
    frequencies: Float[np.ndarray, " F"]
    """In radians per time. They include the last spike of the normal part of HiPPO-LegS of the runs' block size."""
    spike: float
    """The frequency of that spike."""
    clean: Float[np.ndarray, " runs"]
    sinusoid: Float[np.ndarray, "runs A F"]
    white: Float[np.ndarray, "runs A"]
    pink: Float[np.ndarray, "runs A"]


def sweep(
    label: str,
    models: Sequence[Model],
    task: Task,
    amplitudes: Sequence[float],
    *,
    place: Place = "ssm",
    split: str = "test",
    count: int = 40,
    advance: Callable[[], Any] = lambda: None,
) -> Sweep:
    """Accuracies of a group of runs for all frequencies and amplitudes, and under white and pink noise.

    Args:
      label: the name of the group.
      models: the models of the runs, which differ only in their seed.
      task: the task that they were trained on.
      amplitudes: amplitudes of sinusoids, and standard deviations of noise.
      place, split: as for `disturbance.accuracy`.
      count: number of frequencies in addition to those of spikes.
      advance: called after each run.
    """
    size = disturbance.state_size(models[0])
    omega = disturbance.frequencies(size, count)
    results = []
    for model in models:
        disturbances = [
            Disturbance("white", 0.0),
            *(Disturbance("sinusoid", a, float(f)) for a in amplitudes for f in omega),
            *(Disturbance("white", a) for a in amplitudes),
            *(Disturbance("pink", a) for a in amplitudes),
        ]
        results.append(disturbance.accuracy(model, task, disturbances, place=place, split=split))
        advance()
    clean, sinusoid, white, pink = np.split(
        np.stack(results), np.cumsum([1, len(amplitudes) * len(omega), len(amplitudes)]), axis=1
    )
    sinusoid = sinusoid.reshape(len(models), len(amplitudes), len(omega))
    spike = float(disturbance.frequencies(size, 0).max())
    return Sweep(label, place, tuple(amplitudes), omega, spike, clean[:, 0], sinusoid, white, pink)


def table(sweeps: Sequence[Sweep]) -> str:
    """A Markdown table with a line for each amplitude: mean accuracy over the runs, and in brackets the range."""

    def spread(values: Float[np.ndarray, " runs"]) -> str:
        if len(values) == 1:
            return f"{values[0]:.3f}"
        return f"{values.mean():.3f} ({values.min():.3f} to {values.max():.3f})"

    lines = [
        "| runs | added to | amplitude | nothing added | at the last spike | at the worst frequency | white | pink |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for s in sweeps:
        at = int(np.abs(s.frequencies - s.spike).argmin())
        for i, amplitude in enumerate(s.amplitudes):
            worst = int(s.sinusoid[:, i].mean(0).argmin())
            lines.append(
                f"| {s.label} | {s.place} | {amplitude:g} | {spread(s.clean)} | {spread(s.sinusoid[:, i, at])}"
                f" | {spread(s.sinusoid[:, i, worst])} at {s.frequencies[worst]:.3g}"
                f" | {spread(s.white[:, i])} | {spread(s.pink[:, i])} |"
            )
    return "\n".join(lines)


def write_sweeps(sweeps: Sequence[Sweep], file: pathlib.Path) -> None:
    """Writes all accuracies as CSV: runs, run, place, kind, amplitude, frequency, accuracy."""
    rows: list[list[Any]] = []
    for s in sweeps:
        for run in range(len(s.clean)):
            rows.append([s.label, run, s.place, "none", 0, "", float(s.clean[run])])
            for i, amplitude in enumerate(s.amplitudes):
                for frequency, value in zip(s.frequencies, s.sinusoid[run, i], strict=True):
                    rows.append([s.label, run, s.place, "sinusoid", amplitude, float(frequency), float(value)])
                rows.append([s.label, run, s.place, "white", amplitude, "", float(s.white[run, i])])
                rows.append([s.label, run, s.place, "pink", amplitude, "", float(s.pink[run, i])])
    header = ["runs", "run", "place", "kind", "amplitude", "frequency", "accuracy"]
    figures.write_csv(file, header, rows)


def plot_sweeps(sweeps: Sequence[Sweep], file: pathlib.Path, title: str) -> None:
    """Plots accuracy against frequency, a panel for each place and amplitude; bands show the range over the runs."""
    places = list(dict.fromkeys(s.place for s in sweeps))
    labels = list(dict.fromkeys(s.label for s in sweeps))
    colors = {label: f"C{i}" for i, label in enumerate(labels)}
    amplitudes = sweeps[0].amplitudes
    figure = figures.new(3.6 * len(amplitudes), 2.6 * len(places) + 1.0)
    panels = figure.subplots(len(places), len(amplitudes), sharex=True, sharey=True, squeeze=False)
    for s in sweeps:
        for i, amplitude in enumerate(amplitudes):
            axes, values = panels[places.index(s.place), i], s.sinusoid[:, i]
            axes.plot(s.frequencies, values.mean(0), color=colors[s.label], lw=1.4, label=s.label)
            axes.fill_between(s.frequencies, values.min(0), values.max(0), color=colors[s.label], alpha=0.15, lw=0)
            axes.axvline(s.spike, color="#9aa5b1", lw=0.8, ls=":")
            axes.set_title(
                f"added to {'the data' if s.place == 'data' else 'every SSM'}, amplitude {amplitude:g}", size=9
            )
    for axes in panels.flat:
        axes.set_xscale("log")
        axes.set_ylim(0, 1.02)
        figures.tidy(axes)
    for axes in panels[-1]:
        axes.set_xlabel("frequency, rad/time")
    for axes in panels[:, 0]:
        axes.set_ylabel("accuracy")
    figures.add_legend(figure, columns=min(len(labels), 5))
    figure.suptitle(title, fontsize=10)
    figures.save(figure, file)


if __name__ == "__main__":
    sys.exit(main())
