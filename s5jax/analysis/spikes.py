"""Perturbations of HiPPO-LegS beside HiPPO-LegS: transfer functions, their errors, and what is traded for what."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from s5jax.analysis import figures, panel_figures
from s5jax.ssm import hippo, perturbation, ptd
from s5jax.ssm.diagonal import Method

__all__ = ["KAPPAS", "METHODS", "Trade", "compare", "pareto", "plot_pareto", "plot_transfer", "table", "write_pareto"]

METHODS: tuple[Method, ...] = ("normal", "random", "ptd", "ptd-conjugate")
STYLES = {
    "normal": ("#e0a458", "normal part (S4D, S5)"),
    "random": ("#b0a0c8", "random perturbation"),
    "ptd": ("#6a9f58", "PTD as published, dense and complex"),
    "ptd-conjugate": ("#0b6e99", "PTD, conjugate modes"),
}
PUBLISHED = {8: (5.11, 0.098), 16: (6.56, 0.051), 32: (8.31, 0.038), 64: (9.17, 0.034), 128: (9.17, 0.034)}
"""kappa(V) and ||E||_2 / ||A||_2 of the best matrices that come with the published code (github.com/AnnanYu/
Approximate_Diagonal); of n = 128 there is none that is stable, and those of n = 64 stand in."""

KAPPAS = (2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 14.0, 20.0, 30.0)
"""Bounds on the condition number that `pareto` goes through."""


def compare(n: int, methods: Sequence[Method] = METHODS) -> dict[str, ptd.Perturbed]:
    """HiPPO-LegS of n states, perturbed by each method with its default bound."""
    A, _, _ = hippo.legs(n)
    return {method: ptd.perturb_then_diagonalize(A, method=method) for method in methods}


def table(found: Sequence[ptd.Perturbed]) -> str:
    """What each is worth, as Markdown, the published values of that n beside it."""
    lines = [
        "| n | method | kappa(V) | norm of E / norm of A | max Re | sup abs(G - G_HiPPO) | at rad/time | published |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for p in found:
        error, at = p.transfer_error()
        kappa, norm = PUBLISHED.get(len(p.A), (None, None))
        published = f"{kappa}, {norm}" if kappa and p.method.startswith("ptd") else ""
        published += " (of n = 64)" if published and len(p.A) == 128 else ""
        lines.append(
            f"| {len(p.A)} | {p.method} | {p.kappa:.2f} | {p.norm:.4f} | {p.max_real:.3f} | {error:.4f} | {at:.2f}"
            f" | {published} |"
        )
    return "\n".join(lines)


def plot_transfer(found: dict[str, ptd.Perturbed], file: pathlib.Path) -> None:
    """|G(i omega)| of HiPPO-LegS and of each perturbation above, the distance between them below.

    B is HiPPO's, half of it for the normal part, and C the first unit vector.
    """
    A, B, _ = hippo.legs(len(next(iter(found.values())).A))
    n, C = len(A), np.eye(len(A))[0]
    end = 1.3 * n**2 / np.pi
    peaks = np.concatenate(
        [np.abs(p.Lambda.imag)[:, None] + np.array([-1.0, -0.5, 0.0, 0.5, 1.0]) for p in found.values()]
    )
    omega = np.union1d(np.geomspace(0.05, end, 1500), peaks.ravel())
    omega = omega[(omega >= 0.05) & (omega <= end)]
    exact = ptd.frequency_response(A, B, C, omega)
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
"""By method: kappa(V), ||E||_2 / ||A||_2 and sup |G - G_HiPPO| of each bound that could be met."""


def pareto(n: int, methods: Sequence[Method], advance: Callable[[], Any] = lambda: None) -> Trade:
    """The least E for each bound on kappa(V), by each method; `random` by the size of E instead.

    Args:
      n: states of HiPPO-LegS.
      methods: which, `normal` not among them.
      advance: called after each of the len(methods) len(KAPPAS) perturbations.
    """
    A, _, _ = hippo.legs(n)
    found: Trade = {}
    for method in methods:
        found[method] = []
        for kappa, norm in zip(KAPPAS, np.geomspace(1, 1e-3, len(KAPPAS)), strict=True):
            try:
                if method == "random":
                    p = ptd.perturb_then_diagonalize(A, method=method, norm=float(norm))
                else:
                    p = ptd.perturb_then_diagonalize(A, method=method, kappa=kappa)
                found[method].append((p.kappa, p.norm, p.transfer_error()[0]))
            except perturbation.Unreachable:
                pass  # a bound that this method does not meet has no point on its curve
            advance()
    return found


def write_pareto(found: Trade, file: pathlib.Path) -> None:
    """As CSV: method, kappa, norm, transfer_error."""
    rows = [(method, *values) for method, points in found.items() for values in points]
    panel_figures.write_csv(file, ["method", "kappa", "norm", "transfer_error"], rows)


def plot_pareto(found: Trade, n: int, file: pathlib.Path) -> None:
    """||E|| / ||A|| and the error of the transfer function against kappa(V)."""
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
    normal = ptd.perturb_then_diagonalize(hippo.legs(n)[0], method="normal")
    left.plot(normal.kappa, normal.norm, "s", color=STYLES["normal"][0], label=STYLES["normal"][1])
    right.plot(normal.kappa, normal.transfer_error()[0], "s", color=STYLES["normal"][0])
    if n in PUBLISHED and n < 128:
        left.plot(*PUBLISHED[n], "*", color="#d1495b", ms=11, label="published matrix")
    left.set_ylabel("||E|| / ||A||")
    right.set_ylabel("sup |G - G of HiPPO-LegS|")
    for axes in (left, right):
        axes.set_xlabel("kappa(V)")
        figures.tidy(axes)
    left.legend(frameon=False, fontsize=8)
    figure.suptitle(f"What a well-conditioned eigenbasis of HiPPO-LegS costs, n = {n}", fontsize=10)
    figures.save(figure, file)
