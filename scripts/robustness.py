"""Disturbs trained models by sinusoids and by noise, and shows how much accuracy is left."""

import argparse
import os
import pathlib
import re
import sys
from typing import Any

import tqdm

from s5jax.analysis import robustness
from s5jax.train.compare import differences
from s5jax.train.config import UserError
from s5jax.train.trained import Trained, load

EXAMPLES = """examples:
  for seed in 0 1 2; do for m in s4d-legs-frozen s4-ptd-frozen; do
    python scripts/train.py --config=configs/robustness.py:$m --workdir=runs/robustness/$m-$seed --config.seed=$seed
  done; done
  python scripts/robustness.py --workdirs runs/robustness/*

Runs whose configs differ only in the seed are taken together, under the first one's name without its number. A
sinusoid has its frequency in radians per time, the time of each feature's SSM, of which a sample takes the step size.
Among the frequencies are those where the normal part of HiPPO-LegS, which S4D and S5 start from, has its spikes; the
last of them is dotted in the figure. Writes robustness.png, robustness.csv and robustness.md, the table, into --out.
"""


def main() -> int:
    sys.path.insert(0, os.getcwd())  # for modules of the user's
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--workdirs", type=pathlib.Path, nargs="+", required=True, metavar="DIR", help="directories of finished runs"
    )
    parser.add_argument(
        "--amplitudes",
        type=float,
        nargs="+",
        default=[0.1, 0.3, 1.0],
        metavar="A",
        help="of sinusoids, and standard deviations of noise (default: 0.1 0.3 1)",
    )
    parser.add_argument(
        "--place",
        choices=("ssm", "data", "both"),
        default="both",
        help="add to the input of every SSM, to the data, or to each in turn (default: both)",
    )
    parser.add_argument(
        "--frequencies", type=int, default=30, metavar="N", help="besides those of spikes (default: 30)"
    )
    parser.add_argument("--split", choices=("train", "val", "test"), default="test", help="default: test")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(), metavar="DIR", help="default: .")
    arguments = parser.parse_args()
    try:
        run(arguments)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def run(arguments: argparse.Namespace) -> None:
    if min(arguments.amplitudes) < 0:
        raise UserError("--amplitudes: none may be negative")
    if arguments.frequencies < 0:
        raise UserError(f"--frequencies must be at least 0, got {arguments.frequencies}")
    groups = together(arguments.workdirs)
    places: tuple[robustness.Place, ...] = ("ssm", "data") if arguments.place == "both" else (arguments.place,)
    for label, runs in groups.items():
        for place in places:
            try:
                robustness.check(runs[0].model, runs[0].task, place)
            except ValueError as error:
                raise UserError(f"{label}, --place={place}: {error}") from error
    arguments.out.mkdir(parents=True, exist_ok=True)
    sweeps = []
    with tqdm.tqdm(total=len(arguments.workdirs) * len(places), unit="run", disable=not sys.stderr.isatty()) as bar:
        for place in places:
            for label, runs in groups.items():
                found = robustness.sweep(
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
    text = robustness.table(sweeps)
    print(text)
    temporary = arguments.out / "robustness.md.tmp"
    temporary.write_text(text + "\n")
    temporary.replace(arguments.out / "robustness.md")
    robustness.write_sweeps(sweeps, arguments.out / "robustness.csv")
    robustness.plot_sweeps(sweeps, arguments.out / "robustness.png", "Accuracy under a sinusoid")
    print(f"figure:  {arguments.out / 'robustness.png'}\nnumbers: {arguments.out / 'robustness.csv'}")


def together(workdirs: list[pathlib.Path]) -> dict[str, list[Trained]]:
    """Runs that differ only in their seed, by a name for them."""
    groups: list[tuple[dict[str, Any], list[tuple[str, Trained]]]] = []
    for workdir in workdirs:
        trained = load(workdir)
        config = {**trained.config.to_dict(), "seed": 0}
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


if __name__ == "__main__":
    sys.exit(main())
