"""Measures training steps and evaluations of recipes against the published algorithms, side by side."""

import argparse
import json
import os
import pathlib
import platform
import sys
from typing import Any

import jax
import jax.numpy as jnp
import tqdm

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # benchmarks/ is no part of the package

from benchmarks import cases, measure

EXAMPLES = """examples:
  python scripts/benchmark.py --out=results/benchmark-cpu      all cases: some ten minutes on two cores
  python scripts/benchmark.py listops --repeats=3              one of them, printed
  python scripts/benchmark.py image text --batch=50            another batch size

Each case is a recipe on one batch of random data: s5jax's training step and evaluation, and those of
benchmarks/baseline.py, which computes the same the way the published code does. They take turns; times are medians.
Scratch memory is what the compiled program says it needs besides arguments and results; FLOP/s count the matrix
products of the traced function (those that are computed again for the gradient too), "peak" is their share of what a
product of 2048 x 2048 matrices reaches.
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "cases", nargs="*", default=list(cases.CASES), metavar="CASE", help=f"default: all, {', '.join(cases.CASES)}"
    )
    parser.add_argument("--batch", type=int, default=4, metavar="N", help="sequences in a batch (default: 4)")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="turns, besides a first (default: 5)")
    parser.add_argument("--out", type=pathlib.Path, metavar="FILE", help="write FILE.json and FILE.md")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.cases if name not in cases.CASES]
    if unknown:
        print(f"error: no case {unknown[0]!r}; there are {', '.join(cases.CASES)}", file=sys.stderr)
        return 1
    if min(arguments.batch, arguments.repeats) < 1:
        print("error: --batch and --repeats must be at least 1", file=sys.stderr)
        return 1
    try:
        result = measure_all(arguments.cases, arguments.batch, arguments.repeats)
        report = markdown(result)
        print(report)
        if arguments.out:
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            write(arguments.out.with_suffix(".json"), json.dumps(result, indent=1) + "\n")
            write(arguments.out.with_suffix(".md"), report + "\n")
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def write(file: pathlib.Path, text: str) -> None:
    temporary = file.with_name(file.name + ".tmp")
    temporary.write_text(text)
    os.replace(temporary, file)


def measure_all(names: list[str], batch_size: int, repeats: int) -> dict[str, Any]:
    """Numbers of all cases, of this machine, and of what runs on it, as they are written to JSON."""
    flops, copied = measure.ceilings()
    result: dict[str, Any] = {
        "command": " ".join(["python", "scripts/benchmark.py", *sys.argv[1:]]),
        "versions": {"python": platform.python_version(), "jax": jax.__version__},
        "device": f"{jax.devices()[0].device_kind}, {len(os.sched_getaffinity(0))} cores",
        "batch": batch_size,
        "repeats": repeats,
        "peak_flops": flops,
        "peak_bytes": copied,
        "cases": {},
    }
    with tqdm.tqdm(total=len(names) * (repeats + 5), unit="turn", smoothing=0.05) as bar:
        for name in names:
            bar.set_description(name)
            result["cases"][name] = measure_case(name, batch_size, repeats, bar)
    return result


def measure_case(name: str, batch_size: int, repeats: int, bar: Any) -> dict[str, Any]:
    case = cases.build(name, batch_size)
    programs: dict[str, measure.Program] = {}
    runs = {}
    for label, side in (("baseline", cases.published(case)), ("s5jax", cases.ours(case))):
        state = jax.tree.map(jnp.copy, side.state)
        programs[f"{label} train"] = measure.compile_program(side.train, state, case.batch, donate=True)
        bar.update()
        programs[f"{label} evaluate"] = measure.compile_program(side.evaluate, side.state, case.batch)
        bar.update()
        runs[f"{label} train"] = trainer(programs[f"{label} train"], state, case.batch)
        runs[f"{label} evaluate"] = lambda p=programs[f"{label} evaluate"], s=side: p.run(s.state, case.batch)
    medians = measure.alternate(runs, repeats, lambda: bar.update(1 / len(runs)))
    return {
        "tokens": case.tokens,
        **{
            key: {
                "seconds": medians[key],
                "compile_seconds": program.seconds,
                "scratch_bytes": program.scratch,
                "flops": program.flops,
            }
            for key, program in programs.items()
        },
    }


def trainer(program: measure.Program, state: Any, batch: Any) -> Any:
    current = [state]

    def run() -> Any:
        current[0], metrics = program.run(current[0], batch)
        return metrics

    return run


def markdown(result: dict[str, Any]) -> str:
    """The numbers as a table: a line for each case and implementation, and their ratios."""
    rows = [
        "| case | | step, ms | tokens/s | evaluation, ms | compile, s | scratch, MB | GFLOP/s (peak) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, case in result["cases"].items():
        for label in ("baseline", "s5jax"):
            train, evaluate = case[f"{label} train"], case[f"{label} evaluate"]
            rate = train["flops"] / train["seconds"]
            rows.append(
                f"| {name} | {label} | {1e3 * train['seconds']:,.0f} | {case['tokens'] / train['seconds']:,.0f} |"
                f" {1e3 * evaluate['seconds']:,.0f} | {train['compile_seconds']:.1f} |"
                f" {train['scratch_bytes'] / 1e6:,.0f} | {rate / 1e9:,.0f} ({rate / result['peak_flops']:.0%}) |"
            )
        ratios = [
            case[f"baseline {kind}"][key] / case[f"s5jax {kind}"][key]
            for kind, key in (
                ("train", "seconds"),
                ("evaluate", "seconds"),
                ("train", "compile_seconds"),
                ("train", "scratch_bytes"),
            )
        ]
        step, evaluation, compiling, scratch = (f"**{ratio:.2f}**" for ratio in ratios)
        rows.append(f"| | ratio | {step} | | {evaluation} | {compiling} | {scratch} | |")
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return "\n".join(
        [
            f"`{result['command']}`",
            "",
            f"{result['device']}; {versions}; batch {result['batch']}; medians of {result['repeats']}. Measured"
            f" ceilings: {result['peak_flops'] / 1e9:,.0f} GFLOP/s, {result['peak_bytes'] / 1e9:.1f} GB/s copied.",
            "",
            *rows,
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
