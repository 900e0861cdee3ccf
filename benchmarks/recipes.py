"""Compares training steps and evaluations of recipes with the published algorithms."""

import functools
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import cases, measure

__all__ = ["TURNS", "report", "run"]

TURNS = 4
"""Turns that compiling a case counts for in the progress bar."""

S5 = ("image", "text", "pathfinder", "listops")
TORCH_MS = {"s4d": 13_190, "s4": 28_106, "s4d-long": 5_114}
"""Time of a training step of the published PyTorch code, batch 4, measured once on another machine with 2 cores."""

KINDS = {"step": ("train", "seconds"), "evaluation": ("evaluate", "seconds")}
KINDS |= {"compile": ("train", "compile_seconds"), "scratch": ("train", "scratch_bytes")}


def run(
    name: str, batch_size: int, repeats: int, advance: Callable[[float], Any], overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Measures a case: seconds, bytes and operations of each program. `overrides`: fields of the recipe's config, whose
    sizes are also those of the baseline."""
    case = cases.build(name, batch_size or None, *overrides)
    programs: dict[str, measure.Program] = {}
    runs: dict[str, Callable[[], Any]] = {}
    for label, side in (("baseline", cases.published(case)), ("s5jax", cases.ours(case))):
        state = jax.tree.map(jnp.copy, side.state)
        programs[f"{label} train"] = measure.compile_program(side.train, state, side.batch, donate=True)
        advance(1)
        programs[f"{label} evaluate"] = measure.compile_program(side.evaluate, side.state, side.batch)
        advance(1)
        runs[f"{label} train"] = _trainer(programs[f"{label} train"], state, side.batch)
        runs[f"{label} evaluate"] = functools.partial(programs[f"{label} evaluate"].run, side.state, side.batch)
    medians = measure.alternate(runs, repeats, lambda: advance(1 / len(runs)))
    return {
        "tokens": case.tokens,
        **{
            key: {
                "seconds": medians[key],
                "compile_seconds": program.seconds,
                "scratch_bytes": program.scratch,
                "flops": program.flops,
                "bytes": program.bytes,
            }
            for key, program in programs.items()
        },
    }


def _trainer(program: measure.Program, state: Any, batch: Any) -> Callable[[], Any]:
    current = [state]

    def step() -> Any:
        current[0], metrics = program.run(current[0], batch)
        return metrics

    return step


def report(results: dict[str, Any], batch_size: int, peak_flops: float, peak_bytes: float) -> list[str]:
    """A table with a line for each case and implementation, and their ratios; then the aims."""
    lines = [
        "Inputs are random, of full length and without padding. The baseline, `benchmarks/baseline.py`, computes the"
        " same as the published code, in the same way. Its tokens are made one-hot in advance, and one AdamW updates"
        " all parameters. The first four cases are S5's recipes on the Long Range Arena. `s4d` and `s4` are S4D and S4"
        " with 6 blocks and 512 features, on Image. `s4d-long` is S4D with 6 blocks and 128 features, on Text. Scratch"
        " is the memory that the compiled program needs in addition to arguments and results. GFLOP/s count matrix"
        " products. GB/s count what all instructions read and write, in caches or memory. Compilation is timed once,"
        " all other times are medians.",
        "",
        "| case | | step, ms | tokens/s | evaluation, ms | compile, s | scratch, MB | GFLOP/s (peak) | GB/s (copy) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    ratios = {name: _ratios(case) for name, case in results.items()}
    for name, case in results.items():
        for label in ("baseline", "s5jax"):
            train, evaluate = case[f"{label} train"], case[f"{label} evaluate"]
            flops, moved = train["flops"] / train["seconds"], train["bytes"] / train["seconds"]
            lines.append(
                f"| {name} | {label} | {1e3 * train['seconds']:,.0f} | {case['tokens'] / train['seconds']:,.0f} |"
                f" {1e3 * evaluate['seconds']:,.0f} | {train['compile_seconds']:.1f} |"
                f" {train['scratch_bytes'] / 1e6:,.0f} | {flops / 1e9:,.0f} ({flops / peak_flops:.0%}) |"
                f" {moved / 1e9:,.1f} ({moved / peak_bytes:.0%}) |"
            )
        step, evaluation, compiling, scratch = (f"**{ratios[name][kind]:.2f}**" for kind in KINDS)
        lines.append(f"| | ratio | {step} | | {evaluation} | {compiling} | {scratch} | | |")
    lines += ["", *_aims(results, ratios, batch_size)]
    return lines


def _ratios(case: dict[str, Any]) -> dict[str, float]:
    """Baseline divided by s5jax, for each of `KINDS`."""
    return {name: case[f"baseline {kind}"][key] / case[f"s5jax {kind}"][key] for name, (kind, key) in KINDS.items()}


def _aims(results: dict[str, Any], ratios: dict[str, dict[str, float]], batch_size: int) -> list[str]:
    lines = []
    chosen = [ratios[name] for name in S5 if name in ratios]
    if len(chosen) == len(S5):
        for kind, aim, least in (("step", 2.5, 2.2), ("evaluation", 3, 0), ("compile", 5, 0), ("scratch", 3, 0)):
            values = [ratio[kind] for ratio in chosen]
            mean = statistics.geometric_mean(values)
            lines.append(
                measure.aim(
                    f"S5, {kind}: geometric mean of the ratios {mean:.2f}, smallest {min(values):.2f}",
                    f"{aim}" + (f", none below {least}" if least else ""),
                    mean >= aim and min(values) >= least,
                )
            )
    for name, torch in TORCH_MS.items():
        if name in results and batch_size == 4:
            ratio = torch / 1e3 / results[name]["s5jax train"]["seconds"]
            text = f"{name}, step: {ratio:.1f} times as fast as published PyTorch ({torch:,} ms, 2 cores elsewhere)"
            lines.append(measure.aim(text, "8", ratio >= 8))
    return lines
