"""Draws how the eigenvalues of a run's SSMs moved in training, and writes them down as numbers."""

import argparse
import pathlib
import sys

import numpy as np

from s5jax.analysis import eigenvalues
from s5jax.training.config import UserError
from s5jax.training.workdir import read_config

EXAMPLES = """examples:
  python scripts/train.py --config=configs/digits.py:s5 --workdir=runs/moving --config.log.eigenvalues_every_steps=39
  python scripts/eigenvalues.py --workdir=runs/moving
  python scripts/eigenvalues.py --workdir=runs/moving-s4d --feature=17

The first line records all SSMs' eigenvalues before training, each 39 steps and at the end. Writes eigenvalues.png and
.csv into the run's directory, or eigenvalues_featureF.png and .csv where each feature has a system of its own. Works
while the run is going on, too. Eigenvalues are in radians per unit of the layer's time, of which a sample takes the
step size. Of S4 they are those of Lambda, the diagonal part of its A.
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--workdir", type=pathlib.Path, required=True, metavar="DIR", help="the run's directory")
    parser.add_argument(
        "--feature",
        type=int,
        default=0,
        metavar="F",
        help="whose system, where each feature has one, as in S4D and S4 (default: 0)",
    )
    arguments = parser.parse_args()
    try:
        print(draw(arguments.workdir, arguments.feature))
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def draw(workdir: pathlib.Path, feature: int) -> str:
    name = read_config(workdir).ssm.name
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
    for number, layer in enumerate(result.layers):
        end, moves, furthest = layer.Lambda[-1], layer.moves, np.argmax(layer.moves)
        growing = (end.real >= 0).sum()
        lines.append(
            f"layer {number}: {end.size} modes, Re {end.real.min():.3g} to {end.real.max():.3g}"
            + f", |Im| {np.abs(end.imag).min():.3g} to {np.abs(end.imag).max():.3g}"
            + f"; moved by {np.median(moves):.1%} (median) of their size, mode {furthest} by {moves[furthest]:.1%}"
            + (f"; {growing} may grow" if growing else "")
        )
    return "\n".join([*lines, f"figure:  {file}", f"numbers: {file.with_suffix('.csv')}"])


if __name__ == "__main__":
    sys.exit(main())
