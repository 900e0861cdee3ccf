"""Measures time and memory per sample of one layer of every mixer, at lengths of 1,024 to 65,536."""

import functools
import math
import pathlib
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array

from benchmarks import measure
from s5jax import mixers
from s5jax.analysis import figures

__all__ = ["LENGTHS", "names", "plot", "report", "run"]

LENGTHS = [2**k for k in range(10, 17)]
WIDTH = 64
MEMORY = 20e9
"""Bytes beyond which a program is not run."""


def names() -> list[str]:
    """All mixers of the package."""
    folder = pathlib.Path(mixers.__file__).parent
    return sorted(path.stem for path in folder.glob("[!_]*.py"))


def run(repeats: int, advance: Callable[[float], Any]) -> dict[str, Any]:
    """Seconds and bytes of each mixer at each length, forward and backward, for one sequence. A mixer's lengths take
    turns. In a batch the kernel of a convolution would be computed once for all sequences, and the growth with the
    length would depend on the size of the batch."""
    result: dict[str, Any] = {}
    for name in names():
        runs: dict[str, Callable[[], Any]] = {}
        memory: dict[str, int] = {}
        for L in LENGTHS:
            program, arguments, transforms = _layer(name, L)
            if program.memory < MEMORY:
                runs[str(L)], memory[str(L)] = functools.partial(program.run, *arguments), program.memory
        medians = measure.alternate(runs, repeats)
        lengths = {L: {"seconds": medians[L], "bytes": memory[L]} for L in runs}
        result[name] = {"transforms": transforms, "lengths": lengths}
        advance(1)
    return result


def _options(name: str, L: int) -> Any:
    """The default options; RTF's length of the truncated response is that of the sequences."""
    return mixers.find(name).Options(**({"trunc_len": L} if name == "rtf" else {}))


def _layer(name: str, L: int) -> tuple[measure.Program, Any, bool]:
    """A program, its arguments, and whether it computes Fourier transforms."""
    mixer, options = mixers.find(name), _options(name, L)
    params = mixer.init(jax.random.key(0), WIDTH, options, length=L)
    x, cotangent = (jax.random.normal(jax.random.key(i), (1, L, WIDTH)) for i in (1, 2))

    def both_ways(params: Any, x: Array, cotangent: Array) -> Any:
        y, backward = jax.vjp(lambda params, x: mixer.apply(params, x, options)[0], params, x)
        return y, backward(cotangent)

    arguments = params, x, cotangent
    transforms = "fft" in str(jax.make_jaxpr(both_ways)(*arguments))
    return measure.compile_program(both_ways, *arguments), arguments, transforms


def per_sample(lengths: dict[str, Any], key: str) -> list[float]:
    """Seconds or bytes per sample at each length."""
    return [value[key] / int(L) for L, value in lengths.items()]


def growth(lengths: dict[str, Any], key: str) -> float:
    """Largest value per sample over that at the shortest length."""
    values = per_sample(lengths, key)
    return max(values) / values[0]


def rise(lengths: dict[str, Any], key: str) -> float:
    """Largest ratio of a value per sample to one at a shorter length."""
    values = per_sample(lengths, key)
    return max(value / min(values[: i + 1]) for i, value in enumerate(values))


def report(results: dict[str, Any]) -> list[str]:
    """A table with a line for each mixer, then the aims."""
    columns = "growth | rise | bytes per sample | growth | rise"
    lines = [
        f"Forward and backward pass of one layer with {WIDTH} features and the mixer's default options, on"
        " one sequence of length L. Memory is that of the whole program. Growth is against the shortest length, where"
        " fixed costs may be large; rise is the largest ratio to any shorter length.",
        "",
        f"| ns per sample at L = | {' | '.join(f'{L:,}' for L in LENGTHS)} | {columns} |",
        "|---|" + "---|" * (len(LENGTHS) + 5),
    ]
    for name, found in results.items():
        by_length = found["lengths"]
        times = [f"{1e9 * seconds:,.0f}" for seconds in per_sample(by_length, "seconds")]
        times += ["-"] * (len(LENGTHS) - len(times))
        size = per_sample(by_length, "bytes")[0]
        cells = [*times, *(f"{ratio(by_length, 'seconds'):.2f}" for ratio in (growth, rise)), f"{size:,.0f}"]
        cells += [f"{ratio(by_length, 'bytes'):.2f}" for ratio in (growth, rise)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines.append("")
    for kind, limit in (("scans", 1.3), ("transforms", 2.2)):
        chosen = {n: f for n, f in results.items() if f["transforms"] == (kind == "transforms") and n != "attention"}
        worst = {n: max(growth(f["lengths"], key) for key in ("seconds", "bytes")) for n, f in chosen.items()}
        missed = ", ".join(f"{n} {value:.2f}" for n, value in worst.items() if value > limit)
        text = f"{kind}, growth of time and memory per sample, largest {max(worst.values()):.2f}"
        lines.append(measure.aim(text + (f" (above: {missed})" if missed else ""), str(limit), not missed))
    return lines


def plot(results: dict[str, Any], file: pathlib.Path) -> None:
    """Draws time and memory per sample against the length, a line for each mixer, its name at the right in the order of
    the lines' ends."""
    figure = figures.new(10, 6)
    panels = figure.subplots(1, 2)
    colors = [f"C{i % 10}" for i in range(len(results))]
    for axes, key, scale, label in zip(panels, ("seconds", "bytes"), (1e6, 1e-3), ("µs", "kB"), strict=True):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        ends = []
        for (name, found), color in zip(results.items(), colors, strict=True):
            L = [int(n) for n in found["lengths"]]
            values = [scale * value for value in per_sample(found["lengths"], key)]
            axes.plot(L, values, "--" if found["transforms"] else "-", marker="o", ms=2, lw=1, color=color)
            ends.append((math.log(values[-1]), name, L[-1], color))
        low, high = (math.log(limit) for limit in axes.get_ylim())
        place = -math.inf
        for height, name, last, color in sorted(ends):
            place = max(height, place + (high - low) / 38)
            axes.annotate(
                name,
                (last, math.exp(height)),
                (1.25 * LENGTHS[-1], math.exp(place)),
                fontsize=7,
                color=color,
                va="center",
                arrowprops={"arrowstyle": "-", "lw": 0.4, "color": color},
            )
        axes.set_xlim(0.8 * LENGTHS[0], 4 * LENGTHS[-1])
        axes.set_xticks(LENGTHS[::2])
        axes.set_xlabel("length of the sequence")
        axes.set_ylabel(f"{label} per sample")
        figures.tidy(axes)
    figure.suptitle(f"One layer, H = {WIDTH}, forward and backward (dashed: by transforms)", fontsize=10)
    figures.save(figure, file)
