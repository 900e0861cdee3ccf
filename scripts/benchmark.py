"""Measures speed and memory: recipes beside the published algorithms, long sequences, recurrent mode, the loop."""

import importlib.metadata
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import tempfile
from typing import Any

import jax
import tqdm

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # benchmarks/ is no part of the package

from benchmarks import cases, epoch, lengths, loop_cost, measure, methods, mixers, numerics, recipes, recurrent
from s5jax.train import launch
from s5jax.train.config import UserError
from s5jax.train.loop import Interrupted

OTHERS = ("methods", "recurrent", "loop", "lengths", "mixers", "numerics", "epoch", "start")
ON_CPU = (*cases.CASES, "methods", "recurrent", "loop", "lengths")
ON_GPU = ("numerics", "image", "text", "pathfinder", "listops", "s4d", "methods", "epoch", "loop")

EXAMPLES = """examples:
  python scripts/benchmark.py --out=results/benchmark-cpu      all of it: half an hour on two cores
  python scripts/benchmark.py listops --repeats=3              one recipe, printed
  python scripts/benchmark.py image text --batch=50            another batch size
  python scripts/benchmark.py image --config.model.remat=none  other fields of the recipes
  python scripts/benchmark.py recurrent loop lengths
  python scripts/benchmark.py image text pathfinder listops --keep_memory
  python scripts/benchmark.py --out=results/benchmark-h100     on a GPU: other parts, the recipes' batch sizes
  python scripts/benchmark.py start                            the time to the first step
  python scripts/benchmark.py mixers --out=results/mixers-cpu  a layer of each mixer by length

Recipes, image to s4d-long: one batch of random data; s5jax's training step and evaluation, and those of
benchmarks/baseline.py, which computes the same the way the published code does. They take turns; times are medians,
but compilation is timed once.
Scratch memory is what the compiled program says it needs besides arguments and results. GFLOP/s count the matrix
products; products that are recomputed for the gradient count too. "peak" is the share of the rate that a product of
2048 x 2048 matrices reaches. GB/s count what the program's instructions read and write. "copy" is the share of the
bandwidth of x + 1 on an array of 256 MiB, which fits into no cache.

methods: S5's scan_method, and smaller blocks. recurrent: a causal model sample by sample. loop: what the training loop
costs in addition to its steps, on generated ListOps with the recipe's batch size. lengths: a layer at L = 1,024 to
1,048,576, and a model at the last of these. mixers: a layer of each mixer at L = 1,024 to 65,536. numerics: scans and
layers against float64 on the CPU, and, on a GPU, the first losses against those of the CPU. epoch: of the Image recipe,
also in bfloat16. start: from the command to the first step.
`lengths` runs in its own process, which keeps freed memory, because the time in which Linux clears new pages is not the
program's. The recipes count that time unless --keep_memory is given. It grows with scratch memory.

If FILE.md exists, --out=FILE keeps its text from the line "## Notes" on. `lengths` and `mixers` also write a figure,
FILE-lengths.png and FILE-mixers.png.
"""

NOTES = "## Notes"


def main() -> int:
    parser = launch.make_parser(__doc__, EXAMPLES)
    parts = [*cases.CASES, *OTHERS]
    usual = f"default: on a CPU {', '.join(ON_CPU)}; on a GPU {', '.join(ON_GPU)}"
    parser.add_argument("parts", nargs="*", metavar="PART", help=usual)
    batch = "sequences in a recipe's batch; 0: as many as in the recipe (default: 4 on a CPU, otherwise 0)"
    parser.add_argument("--batch", type=int, metavar="N", help=batch)
    repeats = "measured turns, after one that is not measured (default: 5)"
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help=repeats)
    parser.add_argument("--keep_memory", action="store_true", help="keep freed memory in all parts, as in lengths")
    parser.add_argument("--out", type=pathlib.Path, metavar="FILE", help="write FILE.json and FILE.md")
    arguments, overrides = parser.parse_known_args()
    if wrong := [text for text in overrides if not text.startswith("--config.")]:
        parser.error(f"unrecognized arguments: {wrong[0]}")
    unknown = [name for name in arguments.parts if name not in parts]
    if unknown:
        print(f"error: no part {unknown[0]!r}; there are {', '.join(parts)}", file=sys.stderr)
        return 1
    if arguments.repeats < 1 or (arguments.batch or 0) < 0:
        print("error: --repeats must be at least 1, --batch at least 0", file=sys.stderr)
        return 1
    jax.config.update("jax_enable_compilation_cache", False)  # or the time of reading from it would be measured
    try:
        if arguments.out:
            check(arguments.out)
        if overrides and not (arguments.parts and {*arguments.parts} <= {*cases.CASES}):
            raise UserError(f"{overrides[0]} is for recipes only: name those to measure, {', '.join(cases.CASES)}")
        start = {"start": epoch.seconds_to_first_step()} if "start" in arguments.parts else {}
        on_cpu = jax.default_backend() == "cpu"
        chosen = [name for name in parts if name in (arguments.parts or (ON_CPU if on_cpu else ON_GPU))]
        batch_size = (4 if on_cpu else 0) if arguments.batch is None else arguments.batch
        if chosen in (["lengths"], ["mixers"]) or arguments.keep_memory:
            measure.keep_memory()
        result = run(chosen, batch_size, arguments.repeats, overrides) | start
        report = markdown(result)
        print(report, end="")
        if arguments.out:
            write(arguments.out, result, report)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, Interrupted):
        return 130
    return 0


def run(parts: list[str], batch_size: int, repeats: int, overrides: list[str]) -> dict[str, Any]:
    """The measurements of all parts, the command, the package versions, the device, and its measured ceilings."""
    flops, copied = measure.ceilings()
    result: dict[str, Any] = {
        "command": " ".join(["python", "scripts/benchmark.py", *sys.argv[1:]]),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("jax", "flax", "optax")},
        },
        "device": f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores",
        "batch": batch_size,
        "repeats": repeats,
        "peak_flops": flops,
        "peak_bytes": copied,
        "cases": {},
    }
    turns = repeats + 1
    work: dict[str, float] = dict.fromkeys(cases.CASES, float(turns + recipes.TURNS))
    work["methods"] = turns * len(methods.SHAPES)
    work["recurrent"] = turns * len(recurrent.BATCHES)
    work["loop"] = repeats + 0.5
    work["numerics"] = len(numerics.SHAPES) + len(numerics.LAYERS) + 10 * len(numerics.RECIPES)
    work |= {"epoch": len(epoch.RECIPES) * turns, "start": 0, "mixers": len(mixers.names())}
    work["lengths"] = 2 * turns + 0.4 * len(lengths.LENGTHS) + 1 if parts == ["lengths"] else 0
    total = sum(work[name] for name in parts) + 1e-6  # never less than its parts, as floats add up
    with tqdm.tqdm(total=total, unit="turn", smoothing=0.05, bar_format=BAR) as bar:
        for name in parts:
            bar.set_description(name)
            match name:
                case "methods":
                    result[name] = methods.run(repeats, bar.update)
                case "recurrent":
                    result[name] = recurrent.run(repeats, bar.update)
                case "loop":
                    result[name] = loop_cost.run(repeats, bar.update)
                case "numerics":
                    result[name] = numerics.run(repeats, bar.update)
                case "epoch":
                    result[name] = epoch.run(repeats, bar.update)
                case "mixers":
                    result[name] = mixers.run(repeats, bar.update)
                case "start":  # measured before this process took the GPU's memory
                    pass
                case "lengths" if parts == ["lengths"]:
                    result[name] = lengths.run(repeats, bar.update)
                case "lengths":
                    try:
                        result[name] = in_another_process(name, repeats)
                    except subprocess.CalledProcessError as error:  # short of memory? The other parts are not lost
                        print(f"\nwarning: no numbers of lengths: {error}", file=sys.stderr)
                case _:
                    result["cases"][name] = recipes.run(name, batch_size, repeats, bar.update, overrides)
    return result


def in_another_process(part: str, repeats: int) -> dict[str, Any]:
    """A part alone, for the sake of `measure.keep_memory`."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, part, f"--repeats={repeats}", f"--out={folder}/part"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return json.loads(pathlib.Path(folder, "part.json").read_text())[part]


BAR = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"


def markdown(result: dict[str, Any]) -> str:
    """The numbers as tables, with what was aimed at."""
    batch = result["batch"] or "of the recipes"
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines = [
        f"`{result['command']}`",
        "",
        f"{result['device']}; {versions}; batch {batch}; medians of {result['repeats']}. Measured"
        f" ceilings: {result['peak_flops'] / 1e9:,.0f} GFLOP/s, {result['peak_bytes'] / 1e9:.1f} GB/s copied.",
    ]
    if result["cases"]:
        ceilings = result["peak_flops"], result["peak_bytes"]
        lines += ["", "## Recipes", "", *recipes.report(result["cases"], result["batch"], *ceilings)]
    for name, title, module in (
        ("methods", "Methods", methods),
        ("recurrent", "Recurrent mode", recurrent),
        ("loop", "The training loop", loop_cost),
        ("lengths", "Long sequences", lengths),
        ("mixers", "Mixers by length", mixers),
        ("numerics", "Numerics", numerics),
        ("epoch", "An epoch", epoch),
    ):
        if name in result:
            lines += ["", f"## {title}", "", *module.report(result[name])]
    if "start" in result:
        first, second = result["start"]
        text = f"From the command that trains the digits to the end of the first step: {first:.1f} s"
        lines += ["", "## Start", "", f"{text}, and {second:.1f} s with what the first process compiled."]
    return "\n".join(lines) + "\n"


def check(file: pathlib.Path) -> None:
    """Checks, before measuring, that the files can be written."""
    if not file.name:
        raise UserError(f"--out={file}: give a name for the files, as in --out={file / 'benchmark'}")
    file.parent.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=file.parent).close()


def write(file: pathlib.Path, result: dict[str, Any], report: str) -> None:
    """Writes JSON, Markdown and the figure. Each file is replaced atomically."""
    table = file.with_name(f"{file.name}.md")
    drawn = {name: module for name, module in (("lengths", lengths), ("mixers", mixers)) if name in result}
    for name in drawn:
        report += f"\n![Time and memory by length]({file.name}-{name}.png)\n"
    notes = re.search(rf"^{NOTES}[ \t]*$", table.read_text() if table.exists() else "", re.MULTILINE)
    if notes:
        report += f"\n{notes.string[notes.start() :]}"
    for path, text in ((file.with_name(f"{file.name}.json"), json.dumps(result, indent=1) + "\n"), (table, report)):
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_text(text)
        os.replace(temporary, path)
    for name, module in drawn.items():
        module.plot(result[name], file.with_name(f"{file.name}-{name}.png"))


if __name__ == "__main__":
    sys.exit(main())
