"""Measures time and memory per sample of one layer of every mixer, at lengths of 1,024 to 65,536."""

import dataclasses
import functools
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
MEMORY = 8e9
"""Bytes beyond which a program is not run."""


def names() -> list[str]:
    """All mixers of the package."""
    folder = pathlib.Path(mixers.__file__).parent
    return sorted(path.stem for path in folder.glob("[!_]*.py"))


def run(repeats: int, advance: Callable[[float], Any]) -> dict[str, Any]:
    """Seconds and bytes of each mixer at each length, forward and backward, for 65,536 samples in sequences of that
    length. A mixer's lengths take turns."""
    result: dict[str, Any] = {}
    for name in names():
        runs: dict[str, Callable[[], Any]] = {}
        memory: dict[str, int] = {}
        for L in LENGTHS:
            program, arguments = _layer(name, L)
            if program.memory < MEMORY:
                runs[str(L)], memory[str(L)] = functools.partial(program.run, *arguments), program.memory
        medians = measure.alternate(runs, repeats)
        lengths = {L: {"seconds": medians[L], "bytes": memory[L]} for L in runs}
        result[name] = {"transforms": _transforms(name), "lengths": lengths}
        advance(1)
    return result


def _options(name: str, L: int) -> Any:
    options = mixers.find(name).Options
    fields = {field.name for field in dataclasses.fields(options)}
    return options(**({"max_length": L} if "max_length" in fields else {}))


def _transforms(name: str) -> bool:
    """Whether a mixer computes its output by Fourier transforms or by blocks of them."""
    fields = {field.name: field.default for field in dataclasses.fields(mixers.find(name).Options)}
    return "conv_method" in fields or fields.get("mode") == "convolution" or name == "s4"


def _layer(name: str, L: int) -> tuple[measure.Program, Any]:
    mixer, options = mixers.find(name), _options(name, L)
    params = mixer.init(jax.random.key(0), WIDTH, options, length=L)
    x, cotangent = (jax.random.normal(jax.random.key(i), (LENGTHS[-1] // L, L, WIDTH)) for i in (1, 2))

    def both_ways(params: Any, x: Array, cotangent: Array) -> Any:
        y, backward = jax.vjp(lambda params, x: mixer.apply(params, x, options)[0], params, x)
        return y, backward(cotangent)

    return measure.compile_program(both_ways, params, x, cotangent), (params, x, cotangent)


def growth(lengths: dict[str, Any], key: str) -> float:
    """Largest value per sample over that at the shortest length."""
    values = [value[key] for value in lengths.values()]
    return max(values) / values[0]


def report(results: dict[str, Any]) -> list[str]:
    """A table with a line for each mixer, then the aims."""
    lines = [
        f"Forward and backward pass of one layer with {WIDTH} features and the mixer's default options, on"
        f" {LENGTHS[-1]:,} samples in sequences of L. Memory is that of the whole program.",
        "",
        f"| ns per sample at L = | {' | '.join(f'{L:,}' for L in LENGTHS)} | growth | bytes per sample, growth |",
        "|---|" + "---|" * (len(LENGTHS) + 2),
    ]
    for name, found in results.items():
        by_length = found["lengths"]
        times = [f"{1e9 * by_length[str(L)]['seconds'] / LENGTHS[-1]:,.0f}" for L in LENGTHS if str(L) in by_length]
        times += ["-"] * (len(LENGTHS) - len(times))
        size = next(iter(by_length.values()))["bytes"] / LENGTHS[-1]
        cells = [*times, f"{growth(by_length, 'seconds'):.2f}", f"{size:,.0f}, {growth(by_length, 'bytes'):.2f}"]
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
    """Draws time and memory per sample against the length, a line for each mixer with its name at its end."""
    figure = figures.new(9, 4.5)
    panels = figure.subplots(1, 2)
    for axes, key, scale, label in zip(panels, ("seconds", "bytes"), (1e6, 1e-3), ("µs", "kB"), strict=True):
        for name, found in results.items():
            L = [int(n) for n in found["lengths"]]
            values = [scale * value[key] / LENGTHS[-1] for value in found["lengths"].values()]
            style = "--" if found["transforms"] else "-"
            (line,) = axes.plot(L, values, style, marker="o", ms=2, lw=1)
            axes.annotate(
                name, (L[-1], values[-1]), (4, 0), textcoords="offset points", fontsize=7, color=line.get_color()
            )
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.margins(x=0.2)
        axes.set_xlabel("length of the sequences")
        axes.set_ylabel(f"{label} per sample")
        figures.tidy(axes)
    figure.suptitle(f"One layer, H = {WIDTH}, forward and backward (dashed: by transforms)", fontsize=10)
    figures.save(figure, file)
