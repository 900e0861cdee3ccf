"""Draws how the eigenvalues of a run's mixers moved in training, and writes their numbers."""

import pathlib
import sys

import numpy as np

from s5jax.analysis import eigenvalues
from s5jax.train import launch
from s5jax.train.config import UserError
from s5jax.train.workdir import read_config

EXAMPLES = """examples:
  python scripts/train.py --config=configs/digits.py:s5 --workdir=runs/moving \\
    --config.evaluators.eigenvalues.every_steps=39
  python scripts/eigenvalues.py --workdir=runs/moving
  python scripts/eigenvalues.py --workdir=runs/moving-s4d --feature=17

Before training, every 39 steps, and at the end, the first command records the eigenvalues of all mixers that have
eigenvalues. The second writes eigenvalues.png and .csv into the run's directory, or eigenvalues_featureF.png and .csv
where each feature has a system of its own; it also works while the run is going on. Eigenvalues are in radians per unit
of time of the mixer's A; the time between two samples is the step size. Those of S4 are of Lambda, the diagonal part of
its A.
"""


def main() -> int:
    parser = launch.make_parser(__doc__, EXAMPLES)
    launch.add_workdir(parser)
    parser.add_argument(
        "--feature",
        type=int,
        default=0,
        metavar="F",
        help="the feature whose system is drawn, where each has one, as in S4D and S4 (default: 0)",
    )
    arguments = parser.parse_args()
    return launch.call(draw, arguments.workdir, arguments.feature)


def draw(workdir: pathlib.Path, feature: int) -> str:
    name = "+".join(read_config(workdir).model.pattern)
    try:
        result = eigenvalues.read(workdir, feature)
    except ValueError as error:
        raise UserError(f"--feature: {error}") from error
    first, last = result.steps[[0, -1]]
    whose, file = name, workdir / "eigenvalues.png"
    if result.feature is not None:
        whose, file = f"{name}, feature {result.feature}", workdir / f"eigenvalues_feature{result.feature}.png"
    eigenvalues.plot_eigenvalues(result, file, f"{workdir.name}: eigenvalues of {whose}, step {first} to {last}")
    eigenvalues.write_eigenvalues(result, file.with_suffix(".csv"))
    lines = [f"{whose}, {len(result.steps)} records, step {first} to {last}"]
    for layer in result.layers:
        end, moves, furthest = layer.eigenvalues[-1], layer.moves, np.argmax(layer.moves)
        growing = (end.real >= 0).sum()
        lines.append(
            f"layer {layer.number}: {end.size} modes, Re {end.real.min():.3g} to {end.real.max():.3g}"
            + f", |Im| {np.abs(end.imag).min():.3g} to {np.abs(end.imag).max():.3g}"
            + f"; moved by {np.median(moves):.1%} (median) of their size, mode {furthest} by {moves[furthest]:.1%}"
            + (f"; {growing} may grow" if growing else "")
        )
    return "\n".join([*lines, f"figure:  {file}", f"numbers: {file.with_suffix('.csv')}"])


if __name__ == "__main__":
    sys.exit(main())
