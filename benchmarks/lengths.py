"""Measures time and memory for sequences of up to a million samples."""

import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from benchmarks import measure
from s5jax.analysis import figures
from s5jax.mixers import s5
from s5jax.models.model import Model
from s5jax.models.options import Options

__all__ = ["LENGTHS", "plot", "report", "run"]

LENGTHS = [2**k for k in range(10, 21)]
WIDTH = 64


def run(repeats: int, advance: Callable[[float], Any]) -> dict[str, Any]:
    """Seconds and bytes of one S5 layer at each length, forward and backward, and of a model's step at the longest.

    The lengths take turns. In a turn, a length runs until it has as many samples as the longest, but at least twice.
    """
    result: dict[str, Any] = {}
    for name, bidirectional in (("one direction", False), ("two directions", True)):
        layers = {}
        for L in LENGTHS:
            layers[L] = _layer(L, bidirectional)
            advance(0.2)
        times: dict[int, list[float]] = {L: [] for L in LENGTHS}
        for turn in range(repeats + 1):
            for L, (program, arguments) in layers.items():
                for _ in range(max(2, LENGTHS[-1] // L)):
                    begin = time.perf_counter()
                    jax.block_until_ready(program.run(*arguments))
                    if turn:
                        times[L].append(time.perf_counter() - begin)
                advance(1 / len(LENGTHS))
        result[name] = {str(L): {"seconds": statistics.median(times[L]), "bytes": layers[L][0].memory} for L in LENGTHS}
    program, arguments = _model(LENGTHS[-1])
    for _ in range(2):  # the first does not count
        begin = time.perf_counter()
        _, loss = jax.block_until_ready(program.run(*arguments))
    result["model"] = {"seconds": time.perf_counter() - begin, "bytes": program.memory, "loss": float(loss)}
    advance(1)
    return result


def _layer(L: int, bidirectional: bool) -> tuple[measure.Program, Any]:
    options = s5.Options(state_size=WIDTH, bidirectional=bidirectional)
    params = s5.init(jax.random.key(0), WIDTH, options)
    u, cotangent = (jax.random.normal(jax.random.key(i), (1, L, WIDTH)) for i in (1, 2))

    def both_ways(params: Any, u: Array, cotangent: Array) -> Any:
        y, backward = jax.vjp(lambda params, u: s5.apply(params, u, options)[0], params, u)
        return y, backward(cotangent)

    return measure.compile_program(both_ways, params, u, cotangent), (params, u, cotangent)


def _model(L: int) -> tuple[measure.Program, Any]:
    """A step of gradient descent on one sequence, for a model of 4 blocks."""
    options = Options(depth=4, d_model=WIDTH, remat="full")
    mixer = ("s5", s5.Options(state_size=WIDTH, bidirectional=True))
    model = Model(options, {"s5": mixer}, 1, 2, rngs=nnx.Rngs(0))
    graphdef, *states = nnx.split(model, nnx.Param, nnx.BatchStat)
    params, rest = map(nnx.to_pure_dict, states)
    inputs = jax.random.normal(jax.random.key(1), (1, L, 1))

    def step(params: Any, rest: Any, inputs: Array) -> Any:
        def loss(params: Any) -> Array:
            logits = nnx.merge(graphdef, params, rest)(inputs, train=True)
            return -jax.nn.log_softmax(logits)[0, 0]

        value, gradient = jax.value_and_grad(loss)(params)
        return jax.tree.map(lambda p, g: p - jnp.float32(1e-3) * g, params, gradient), value

    return measure.compile_program(step, params, rest, inputs), (params, rest, inputs)


def report(results: dict[str, Any]) -> list[str]:
    """A table with a line for each length, then the aims."""
    lines = [
        f"Forward and backward pass of one S5 layer with {WIDTH} features and {WIDTH} states on one sequence. Memory"
        " is that of the whole program, with arguments and results.",
        "",
        "| L | one direction, ns per sample | bytes per sample | two directions, ns per sample | bytes per sample |",
        "|---|---|---|---|---|",
    ]
    for L in map(str, LENGTHS):
        cells = [
            f"{1e9 * results[name][L]['seconds'] / int(L):,.0f} | {results[name][L]['bytes'] / int(L):,.0f}"
            for name in ("one direction", "two directions")
        ]
        lines.append(f"| {int(L):,} | {' | '.join(cells)} |")
    lines.append("")
    for name in ("one direction", "two directions"):
        for kind, key in (("time", "seconds"), ("memory", "bytes")):
            values = [results[name][str(L)][key] / L for L in LENGTHS]
            spread = max(values) / min(values)
            text = f"{name}, {kind} per sample: the largest is {spread:.2f} times the smallest"
            lines.append(measure.aim(text, "1.3", spread <= 1.3))
    model = results["model"]
    text = (
        f"A training step of 4 blocks with two directions at L = {LENGTHS[-1]:,}, remat full:"
        f" {model['bytes'] / 1e9:.1f} GB, {model['seconds']:.0f} s"
    )
    return [*lines, measure.aim(text, "under 8 GB", model["bytes"] < 8e9)]


def plot(results: dict[str, Any], file: pathlib.Path) -> None:
    """Draws time and memory per sample against the length."""
    figure = figures.new(8, 3)
    panels = figure.subplots(1, 2)
    for axes, key, scale, label in zip(panels, ("seconds", "bytes"), (1e6, 1), ("µs", "bytes"), strict=True):
        for name, color in (("one direction", "#0b6e99"), ("two directions", "#d9730d")):
            values = [scale * results[name][str(L)][key] / L for L in LENGTHS]
            axes.plot(LENGTHS, values, marker="o", ms=3, color=color, label=name)
        axes.set_xscale("log", base=2)
        axes.set_ylim(0)
        axes.set_xlabel("length of the sequence")
        axes.set_ylabel(f"{label} per sample")
        figures.tidy(axes)
    panels[0].legend(frameon=False, fontsize=8)
    figure.suptitle(f"One S5 layer, H = {WIDTH}, forward and backward", fontsize=10)
    figures.save(figure, file)
