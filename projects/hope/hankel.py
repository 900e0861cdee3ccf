"""Hankel singular values of the systems of HOPE, S4D and S4, at their start and after training."""

import argparse
import pathlib
from types import ModuleType
from typing import Any

import jax
import numpy as np
import scipy.linalg
from flax import nnx
from jaxtyping import Float

from s5jax import mixers
from s5jax.analysis import figures
from s5jax.evaluators.stability import mixers_of
from s5jax.mixers import hope, s4, s4d
from s5jax.ssm import per_feature
from s5jax.train import launch
from s5jax.train.config import UserError
from s5jax.train.trained import load_run

__all__ = ["STARTS", "numerical_rank", "plot", "singular_values", "table", "write"]

EXAMPLES = """examples:
  python projects/hope/hankel.py --out=runs
  python projects/hope/hankel.py --workdirs runs/noisy_digits/* --out=runs

Without --workdirs the systems are those of new layers, one system per feature; with it those of all layers of the runs.
Writes hankel.png and hankel.csv into --out. The numerical rank is the number of singular values above --tolerance times
the largest one.
"""

STARTS: dict[str, tuple[ModuleType, dict[str, Any]]] = {
    "HOPE": (hope, {}),
    "S4D-Lin": (s4d, {}),
    "S4D-LegS": (s4d, {"init": "legs"}),
    "S4D-Random": (s4d, {"init": "random"}),
    "S4D-Real": (s4d, {"init": "real"}),
    "S4-LegS": (s4, {}),
}
"""New layers: mixer, and options besides the number of states."""


def main() -> int:
    parser = launch.make_parser(__doc__, EXAMPLES)
    parser.add_argument("--workdirs", type=pathlib.Path, nargs="+", metavar="DIR", help="directories of runs")
    parser.add_argument("--state_size", type=int, default=64, metavar="N", help="n of new layers (default: 64)")
    parser.add_argument("--features", type=int, default=64, metavar="H", help="features of new layers (default: 64)")
    parser.add_argument("--tolerance", type=float, default=0.01, metavar="T", help="of the rank (default: 0.01)")
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="DIR", help="folder for figure and numbers")
    launch.add_checkpoint(parser)
    return launch.call(run, parser.parse_args())


def run(arguments: argparse.Namespace) -> str:
    if arguments.state_size < 2 or arguments.state_size % 2 or arguments.features < 1:
        raise UserError("--state_size must be even and at least 2, --features at least 1")
    if not 0 < arguments.tolerance < 1:
        raise UserError(f"--tolerance must lie between 0 and 1, got {arguments.tolerance}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    found = {}
    if arguments.workdirs is None:
        for name, (mixer, given) in STARTS.items():
            options = mixer.Options(state_size=arguments.state_size, **given)
            params = mixer.init(jax.random.key(0), arguments.features, options)
            found[name] = singular_values(mixer, params, options)
    else:
        for workdir in arguments.workdirs:
            found[str(workdir)] = of_run(workdir, arguments.checkpoint)
    plot(found, arguments.out / "hankel.png")
    write(found, arguments.out / "hankel.csv")
    text = table(found, arguments.tolerance)
    return f"{text}\nfigure:  {arguments.out / 'hankel.png'}\nnumbers: {arguments.out / 'hankel.csv'}"


def of_run(workdir: pathlib.Path, checkpoint: Any) -> Float[np.ndarray, "systems n"]:
    """The singular values of all layers of a run."""
    trained = load_run(workdir, checkpoint)
    values = []
    weights = nnx.to_pure_dict(nnx.state(trained.model, nnx.Param))
    for name, (mixer, options, params) in mixers_of(trained.config, weights).items():
        if mixer not in (hope, s4, s4d):
            raise UserError(f"{workdir}: {name} is {mixer.__name__}, which does not have one system per feature")
        if getattr(options, "modes", "complex") == "real":
            raise UserError(f"{workdir}: the singular values of {name} are not known here: it has real modes")
        values.append(singular_values(mixer, params, options))
    return np.concatenate(values)


def singular_values(mixer: ModuleType, params: dict[str, Any], options: Any) -> Float[np.ndarray, "systems n"]:
    """Hankel singular values, largest first, of the system of each feature (and of each direction).

    HOPE: those of the n x n Hankel matrix of the Markov parameters, h_(i+j-1), zero beyond h_n. They do not depend on
    the step size. S4D and S4: the square roots of the eigenvalues of P Q, with the Gramians

        A P + P A^T = -B B^T,    A^T Q + Q A = -C^T C,

    of the real system in continuous time. They do not depend on the step size either, and the bilinear rule keeps them.
    Values below some 1e-8 of the largest are rounding errors.
    """
    p = {name: np.asarray(value, np.float64) for name, value in params.items()}
    if mixer is hope:
        h = p["h"] if p["h"].ndim == 2 else (p["h"] @ [1, 1j]).reshape(-1, p["h"].shape[-2])
        matrices = [scipy.linalg.hankel(row) for row in h]
        return np.stack([np.linalg.svd(matrix, compute_uv=False) for matrix in matrices])
    mixers.require(mixer, "eigenvalues")
    Lambda = np.asarray(mixer.eigenvalues(params, options), np.complex128)
    B = p["B"] if "B" in p else np.stack([per_feature.initial_B(options).real, per_feature.initial_B(options).imag], -1)
    values = []
    for C in (p[name] for name in ("C", "C1", "C2") if name in p):
        for i, row in enumerate(C):
            k = i % len(Lambda)
            A = np.block([
                [np.diag(Lambda[k].real), -np.diag(Lambda[k].imag)],
                [np.diag(Lambda[k].imag), np.diag(Lambda[k].real)],
            ])  # fmt: skip
            if "P" in p:
                low_rank = np.concatenate([p["P"][:, k, :, 0], p["P"][:, k, :, 1]], axis=1)
                A = A - 2 * low_rank.T @ low_rank
            column = B[k % len(B)] if B.ndim == 3 else B
            values.append(_of_system(A, np.r_[column[:, 0], column[:, 1]], 2 * np.r_[row[:, 0], -row[:, 1]]))
    return np.stack(values)


def _of_system(
    A: Float[np.ndarray, "n n"], B: Float[np.ndarray, " n"], C: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    roots = []
    for matrix, vector in ((A, B), (A.T, C)):
        gramian = scipy.linalg.solve_continuous_lyapunov(matrix, -np.outer(vector, vector))
        size, basis = np.linalg.eigh((gramian + gramian.T) / 2)
        roots.append(basis * np.sqrt(np.maximum(size, 0)))
    return np.linalg.svd(roots[0].T @ roots[1], compute_uv=False)


def numerical_rank(values: Float[np.ndarray, "systems n"], tolerance: float) -> Float[np.ndarray, " systems"]:
    """The number of values above `tolerance` times the largest of each system."""
    return (values > tolerance * values[:, :1]).sum(1)


def table(found: dict[str, Float[np.ndarray, "systems n"]], tolerance: float) -> str:
    """The numerical rank, as a mean over systems with the least and the largest."""
    lines = [f"| systems | n | values above {tolerance:g} of the largest |", "|---|---|---|"]
    for name, values in found.items():
        rank = numerical_rank(values, tolerance)
        lines.append(f"| {name} | {values.shape[1]} | {rank.mean():.1f} ({rank.min()} to {rank.max()}) |")
    return "\n".join(lines)


def write(found: dict[str, Float[np.ndarray, "systems n"]], file: pathlib.Path) -> None:
    """The curves of `plot` as CSV."""
    rows = [
        (name, k + 1, *map(float, quantiles))
        for name, values in found.items()
        for k, quantiles in enumerate(_quantiles(values).T)
    ]
    figures.write_csv(file, ("systems", "k", "tenth", "median", "nine_tenths"), rows)


def _quantiles(values: Float[np.ndarray, "systems n"]) -> Float[np.ndarray, "3 n"]:
    """The tenth, median and nine tenths of sigma_k / sigma_1 over systems."""
    return np.quantile(values / values[:, :1], [0.1, 0.5, 0.9], axis=0)


def plot(found: dict[str, Float[np.ndarray, "systems n"]], file: pathlib.Path) -> None:
    """sigma_k / sigma_1 against k: the median over systems, and the range of four fifths of them."""
    figure = figures.new(6, 4)
    axes = figure.subplots()
    for name, values in found.items():
        low, middle, high = np.maximum(_quantiles(values), 1e-12)
        k = 1 + np.arange(len(middle))
        (line,) = axes.plot(k, middle, lw=1.4, label=name)
        axes.fill_between(k, low, high, color=line.get_color(), alpha=0.15, lw=0)
    axes.set_yscale("log")
    axes.set_ylim(1e-8, 2)
    axes.set_xlabel("k")
    axes.set_ylabel("Hankel singular value k / value 1")
    axes.legend(frameon=False, fontsize=8)
    figures.tidy(axes)
    figures.save(figure, file)


if __name__ == "__main__":
    raise SystemExit(main())
