"""How long layers remember: their impulse responses at their start and after training."""

import argparse
import pathlib
from types import ModuleType
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from s5jax import mixers
from s5jax.analysis import figures
from s5jax.evaluators.stability import mixers_of
from s5jax.mixers import hope, s4, s4d, s5
from s5jax.train import launch
from s5jax.train.config import UserError
from s5jax.train.trained import load_run

__all__ = ["STARTS", "plot", "remaining", "response", "table", "write"]

EXAMPLES = """examples:
  python projects/hope/memory.py --out=runs
  python projects/hope/memory.py --dt=0.1 --out=runs
  python projects/hope/memory.py --workdirs runs/noisy_digits/* --out=runs

Without --workdirs the layers are new ones, whose step sizes are drawn from 0.001 to 0.1 or are all --dt; with it those
of the runs. The layers are linear: the response at lag k is the derivative of the outputs at step k by the input at
step 0. Writes memory.png and memory.csv into --out.
"""

STARTS: dict[str, tuple[ModuleType, dict[str, Any]]] = {
    "HOPE": (hope, {}),
    "S4D-Lin": (s4d, {}),
    "S4D-LegS": (s4d, {"init": "legs"}),
    "S4-LegS": (s4, {}),
    "S5": (s5, {}),
}
"""New layers: mixer, and options besides the number of states and the step sizes."""

SHARES = (0.5, 0.1, 0.01)
"""The table has the lags after which this share of the response's energy remains."""


def main() -> int:
    parser = launch.make_parser(__doc__, EXAMPLES)
    parser.add_argument("--workdirs", type=pathlib.Path, nargs="+", metavar="DIR", help="directories of causal runs")
    parser.add_argument("--state_size", type=int, default=64, metavar="N", help="n of new layers (default: 64)")
    parser.add_argument("--features", type=int, default=32, metavar="H", help="features of new layers (default: 32)")
    parser.add_argument("--dt", type=float, metavar="DT", help="step size of new layers (default: 0.001 to 0.1)")
    parser.add_argument("--lags", type=int, default=16384, metavar="L", help="number of lags (default: 16384)")
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="DIR", help="folder for figure and numbers")
    launch.add_checkpoint(parser)
    return launch.call(run, parser.parse_args())


def run(arguments: argparse.Namespace) -> str:
    if arguments.lags < 2 or arguments.features < 1:
        raise UserError("--lags must be at least 2, --features at least 1")
    arguments.out.mkdir(parents=True, exist_ok=True)
    found = {}
    if arguments.workdirs is None:
        steps = {} if arguments.dt is None else {"dt_min": arguments.dt, "dt_max": arguments.dt}
        for name, (mixer, given) in STARTS.items():
            try:
                options = mixer.Options(state_size=arguments.state_size, **given, **steps)
            except ValueError as error:
                raise UserError(f"--state_size, --dt: {error}") from error
            params = mixer.init(jax.random.key(0), arguments.features, options)
            found[name] = response(mixer, params, options, arguments.lags)
    else:
        for workdir in arguments.workdirs:
            trained = load_run(workdir, arguments.checkpoint)
            weights = nnx.to_pure_dict(nnx.state(trained.model, nnx.Param))
            for name, (mixer, options, params) in mixers_of(trained.config, weights).items():
                if not (hasattr(mixer, "kernel") and mixers.ability(mixer, "CAUSAL", options)):
                    raise UserError(f"{workdir}: {name} is not a causal mixer with an impulse response")
                found[f"{workdir}, {name}"] = response(mixer, params, options, arguments.lags)
    plot(found, arguments.out / "memory.png")
    write(found, arguments.out / "memory.csv")
    return f"{table(found)}\nfigure:  {arguments.out / 'memory.png'}\nnumbers: {arguments.out / 'memory.csv'}"


def response(mixer: ModuleType, params: dict[str, Array], options: Any, L: int) -> Float[np.ndarray, " L"]:
    """The norm of the impulse response at each lag, over all pairs of outputs and inputs, without D."""
    K = np.asarray(jax.jit(lambda params: mixer.kernel(params, L, options))(params), np.float64)
    return np.sqrt((K**2).reshape(-1, L).sum(0))


def remaining(response: Float[np.ndarray, " L"]) -> Float[np.ndarray, " L"]:
    """The share of the energy, the sum of squares, at this lag and later ones."""
    energy = np.cumsum(response[::-1] ** 2)[::-1]
    return energy / energy[0]


def table(found: dict[str, Float[np.ndarray, " L"]]) -> str:
    """For each layer the lags after which shares of the energy remain."""
    shares = " | ".join(f"{share:.0%} remain after lag" for share in SHARES)
    lines = [f"| layer | {shares} |", "|---" * (1 + len(SHARES)) + "|"]
    for name, of_layer in found.items():
        left = remaining(of_layer)
        lines.append(f"| {name} | {' | '.join(str(int((left >= share).sum()) - 1) for share in SHARES)} |")
    return "\n".join(lines)


def write(found: dict[str, Float[np.ndarray, " L"]], file: pathlib.Path) -> None:
    """The responses as CSV, at lags that are even on a logarithmic scale."""
    L = len(next(iter(found.values())))
    lags = np.unique(np.geomspace(1, L, 200).astype(int)) - 1
    rows = [(int(k), *(float(of_layer[k]) for of_layer in found.values())) for k in lags]
    figures.write_csv(file, ("lag", *found), rows)


def plot(found: dict[str, Float[np.ndarray, " L"]], file: pathlib.Path) -> None:
    """The response, relative to its largest value and averaged over neighbouring lags, and the energy that remains."""
    figure = figures.new(9, 3.6)
    left, right = figure.subplots(1, 2)
    for name, of_layer in found.items():
        edges = np.unique(np.geomspace(1, len(of_layer), 80).astype(int)) - 1
        counts = np.diff(edges)
        smooth = np.sqrt(np.add.reduceat(of_layer**2, edges[:-1])[: len(counts)] / counts)
        left.plot(1 + edges[:-1], np.maximum(smooth / smooth.max(), 1e-9), lw=1.3, label=name)
        right.plot(1 + np.arange(len(of_layer)), remaining(of_layer), lw=1.3)
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xlabel("lag + 1")
        figures.tidy(axes)
    left.set_yscale("log")
    left.set_ylim(1e-5, 2)
    left.set_ylabel("response / largest response")
    right.set_ylabel("energy at this lag and later")
    left.legend(frameon=False, fontsize=8)
    figures.save(figure, file)


if __name__ == "__main__":
    raise SystemExit(main())
