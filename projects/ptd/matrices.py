"""Compares diagonal systems that approximate HiPPO-LegS: a table, transfer functions, the cost of a small kappa(V)."""

import argparse
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tqdm

from projects.ptd.methods import METHODS, Diagonalized, Method, diagonalize, frequency_response, unit_kappa
from s5jax.analysis import figures
from s5jax.ssm import hippo
from s5jax.ssm.perturbation import Unreachable

__all__ = ["KAPPAS", "compare", "pareto", "plot_pareto", "plot_transfer", "table", "write_pareto"]

EXAMPLES = """examples:
  python projects/ptd/matrices.py --n 32                             all methods: the table, ptd_transfer_32.png
  python projects/ptd/matrices.py --n 8 16 32 64 128 --methods normal ptd-conjugate
  python projects/ptd/matrices.py --n 32 --pareto --out=runs         and ptd_pareto_32.png and .csv

methods: normal, the normal part as in S4D and S5; random, a random perturbation; dense, the best complex perturbation,
as published; ptd-conjugate, the best real one whose modes are conjugate pairs, which s5-ptd and s4-ptd start from.
kappa(V) is the condition number of the eigenvectors, first with the columns as each method scales them, and then with
columns of norm 1.
`dense` takes seconds at n = 32 and minutes beyond; --pareto takes a minute at n = 32.
"""

STYLES = {
    "normal": ("#e0a458", "normal part (S4D, S5)"),
    "random": ("#b0a0c8", "random perturbation"),
    "dense": ("#6a9f58", "PTD as published, dense and complex"),
    "ptd-conjugate": ("#0b6e99", "PTD, conjugate modes"),
}
PUBLISHED = {8: (5.11, 0.098), 16: (6.56, 0.051), 32: (8.31, 0.038), 64: (9.17, 0.034)}
"""kappa(V) with columns of norm 1 and ||E||_2 / ||A||_2 of the best matrices that come with the published code,
github.com/AnnanYu/Approximate_Diagonal at ec98d6a. Its matrix for n = 128 has an unstable mode."""

KAPPAS = (2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 14.0, 20.0, 30.0)
"""The bounds on kappa(V) in `pareto`."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--n", type=int, nargs="+", default=[32], metavar="N", help="states, even (default: 32)")
    parser.add_argument("--methods", choices=METHODS, nargs="+", default=list(METHODS), help="default: all four")
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
    rows: list[Diagonalized] = []
    for n in arguments.n:
        found = compare(n, arguments.methods)
        rows += found.values()
        plot_transfer(found, arguments.out / f"ptd_transfer_{n}.png")
    print(table(rows))
    for n in arguments.n:
        print(f"figure: {arguments.out / f'ptd_transfer_{n}.png'}")
        if arguments.pareto:
            methods = [method for method in arguments.methods if method != "normal"]
            with tqdm.tqdm(total=len(methods) * len(KAPPAS), unit="matrix", disable=not sys.stderr.isatty()) as bar:
                trade = pareto(n, methods, advance=bar.update)
            file = arguments.out / f"ptd_pareto_{n}.png"
            write_pareto(trade, file.with_suffix(".csv"))
            plot_pareto(trade, n, file)
            print(f"figure: {file}; numbers: {file.with_suffix('.csv')}")


def compare(n: int, methods: Sequence[Method] = METHODS) -> dict[str, Diagonalized]:
    """HiPPO-LegS of n states, diagonalized by each method with its default bound."""
    A, _, _ = hippo.legs(n)
    return {method: diagonalize(A, method) for method in methods}


def table(found: Sequence[Diagonalized]) -> str:
    """A Markdown table with a line for each system, and in that of `ptd-conjugate` the published matrix of that n."""
    lines = [
        "| n | method | kappa(V) | kappa(V), columns of norm 1 | published kappa(V) | norm of E / norm of A"
        " | published norm of E / norm of A | max Re | sup of abs(G - G_HiPPO) | at omega in rad/time |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for p in found:
        error, at = p.transfer_error()
        kappa, norm = PUBLISHED.get(len(p.A), ("", "")) if p.method == "ptd-conjugate" else ("", "")
        cells = [len(p.A), p.method, f"{p.kappa:.2f}", f"{unit_kappa(p.V):.2f}", kappa, f"{p.norm:.4f}", norm]
        cells += [f"{p.max_real:.3f}", f"{error:.4f}", f"{at:.2f}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def plot_transfer(found: dict[str, Diagonalized], file: pathlib.Path) -> None:
    """Plots |G(i omega)| of HiPPO-LegS and of each system, and below it the distance between them.

    B is that of HiPPO, or half of it for the normal part. C is the first unit vector.
    """
    A, B, _ = hippo.legs(len(next(iter(found.values())).A))
    n, C = len(A), np.eye(len(A))[0]
    end = 1.3 * n**2 / np.pi
    peaks = np.concatenate(
        [np.abs(p.Lambda.imag)[:, None] + np.array([-1.0, -0.5, 0.0, 0.5, 1.0]) for p in found.values()]
    )
    omega = np.union1d(np.geomspace(0.05, end, 1500), peaks.ravel())
    omega = omega[(omega >= 0.05) & (omega <= end)]
    exact = frequency_response(A, B, C, omega)
    figure = figures.new(8, 5.6)
    above, below = figure.subplots(2, 1, sharex=True)
    above.loglog(omega, np.abs(exact), color="#9aa5b1", lw=3.5, label="HiPPO-LegS")
    for method, p in found.items():
        color, label = STYLES[method]
        G = p.response(B, C, omega)
        above.loglog(
            omega, np.abs(G), color=color, lw=1.1, label=f"{label}: kappa {p.kappa:.1f}, ||E|| / ||A|| {p.norm:.3f}"
        )
        below.loglog(omega, np.maximum(np.abs(G - exact), 1e-7), color=color, lw=1.1)
    above.set_ylabel("|G|")
    below.set_ylabel("|G - G of HiPPO-LegS|")
    below.set_ylim(1e-5, 10)
    below.set_xlabel("frequency, rad/time")
    for axes in (above, below):
        figures.tidy(axes)
    above.legend(frameon=False, fontsize=8, loc="lower left")
    figure.suptitle(f"Diagonal systems that stand for HiPPO-LegS, n = {n}", fontsize=10)
    figures.save(figure, file)


Trade = dict[str, list[tuple[float, float, float]]]
"""For each method: kappa(V), ||E||_2 / ||A||_2 and sup |G - G_HiPPO| for each bound that could be met."""


def pareto(n: int, methods: Sequence[Method], advance: Callable[[], Any] = lambda: None) -> Trade:
    """The least E of each method for each bound on kappa(V); for `random`, kappa(V) for each size of E.

    Args:
      n: number of states of HiPPO-LegS.
      methods: any methods except `normal`.
      advance: called after each of the len(methods) len(KAPPAS) perturbations.
    """
    A, _, _ = hippo.legs(n)
    found: Trade = {}
    for method in methods:
        found[method] = []
        for kappa, norm in zip(KAPPAS, np.geomspace(1, 1e-3, len(KAPPAS)), strict=True):
            try:
                p = diagonalize(A, method, float(norm) if method == "random" else kappa)
                found[method].append((p.kappa, p.norm, p.transfer_error()[0]))
            except Unreachable:
                pass  # a bound that this method does not meet has no point on its curve
            advance()
    return found


def write_pareto(found: Trade, file: pathlib.Path) -> None:
    """Writes a CSV file: method, kappa, norm, transfer_error."""
    rows = [(method, *values) for method, points in found.items() for values in points]
    figures.write_csv(file, ["method", "kappa", "norm", "transfer_error"], rows)


def plot_pareto(found: Trade, n: int, file: pathlib.Path) -> None:
    """Plots ||E|| / ||A|| and the error of the transfer function against kappa(V)."""
    figure = figures.new(9, 3.8)
    left, right = figure.subplots(1, 2)
    for method, points in found.items():
        if not points:
            continue
        kappa, norm, error = np.array(sorted(points)).T
        color, label = STYLES[method]
        style = "o" if method == "random" else "o-"
        left.loglog(kappa, norm, style, color=color, ms=3.5, lw=1.2, label=label)
        right.loglog(kappa, error, style, color=color, ms=3.5, lw=1.2)
    normal = diagonalize(hippo.legs(n)[0], "normal")
    left.plot(normal.kappa, normal.norm, "s", color=STYLES["normal"][0], label=STYLES["normal"][1])
    right.plot(normal.kappa, normal.transfer_error()[0], "s", color=STYLES["normal"][0])
    if n in PUBLISHED:
        left.plot(*PUBLISHED[n], "*", color="#d1495b", ms=11, label="published matrix, columns of norm 1")
    left.set_ylabel("||E|| / ||A||")
    right.set_ylabel("sup |G - G of HiPPO-LegS|")
    for axes in (left, right):
        axes.set_xlabel("kappa(V)")
        figures.tidy(axes)
    left.legend(frameon=False, fontsize=8)
    figure.suptitle(f"What a well-conditioned eigenbasis of HiPPO-LegS costs, n = {n}", fontsize=10)
    figures.save(figure, file)


if __name__ == "__main__":
    sys.exit(main())
