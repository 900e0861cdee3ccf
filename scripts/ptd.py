"""Perturb-then-diagonalize of HiPPO-LegS: transfer functions, and what is traded for what, as figures and numbers."""

import argparse
import pathlib
import sys

import tqdm

from s5jax.analysis import spikes
from s5jax.ssm.diagonal import Method
from s5jax.ssm.ptd import Perturbed

EXAMPLES = """examples:
  python scripts/ptd.py --n 32                         transfer functions: ptd_transfer_32.png
  python scripts/ptd.py --n 8 16 32 64 128 --methods normal ptd-conjugate
  python scripts/ptd.py --n 32 --pareto                and what it costs: ptd_pareto_32.png and .csv

The first time a matrix takes from a fraction of a second (n = 32) to a quarter of a minute (n = 128), by `ptd` longer;
then it lies in ~/.cache/s5jax, or where S5JAX_CACHE_DIR says.
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--n", type=int, nargs="+", default=[32], metavar="N", help="states, even (default: 32)")
    parser.add_argument(
        "--methods",
        choices=spikes.METHODS,
        nargs="+",
        default=list(spikes.METHODS),
        help="default: all, described at s5jax.ssm.ptd.perturb_then_diagonalize",
    )
    parser.add_argument("--pareto", action="store_true", help="also draw ||E|| against kappa(V)")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(), metavar="DIR", help="default: .")
    arguments = parser.parse_args()
    try:
        run(arguments)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def run(arguments: argparse.Namespace) -> None:
    for n in arguments.n:
        if n < 2 or n % 2:
            raise ValueError(f"--n must be even and at least 2, got {n}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows: list[Perturbed] = []
    for n in arguments.n:
        found = spikes.compare(n, arguments.methods)
        rows += found.values()
        spikes.plot_transfer(found, arguments.out / f"ptd_transfer_{n}.png")
    print(spikes.table(rows))
    for n in arguments.n:
        print(f"figure: {arguments.out / f'ptd_transfer_{n}.png'}")
        if arguments.pareto:
            draw_pareto(n, [method for method in arguments.methods if method != "normal"], arguments.out)


def draw_pareto(n: int, methods: list[Method], out: pathlib.Path) -> None:
    total = len(methods) * len(spikes.KAPPAS)
    with tqdm.tqdm(total=total, unit="matrix", disable=not sys.stderr.isatty()) as bar:
        found = spikes.pareto(n, methods, advance=bar.update)
    spikes.write_pareto(found, out / f"ptd_pareto_{n}.csv")
    spikes.plot_pareto(found, n, out / f"ptd_pareto_{n}.png")
    print(f"figure: {out / f'ptd_pareto_{n}.png'}; numbers: {out / f'ptd_pareto_{n}.csv'}")


if __name__ == "__main__":
    sys.exit(main())
