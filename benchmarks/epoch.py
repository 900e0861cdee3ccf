"""Measures an epoch of the Image recipe, in float32 and in bfloat16, and the time to the end of the first step."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import jax

from benchmarks import cases, measure
from s5jax.train import loop, resolve
from s5jax.train.build import build, load_task
from s5jax.train.program import Program

__all__ = ["report", "run", "seconds_to_first_step"]

RECIPES = {"s5": "s5", "s5, bfloat16": "s5", "s4d": "s4d-lin"}
STEPS = 50
"""Steps in a turn."""


def run(repeats: int, advance: Callable[[float], Any]) -> dict[str, Any]:
    """Seconds of a step, fed as in training, and of an evaluation, on as many blank images as CIFAR-10 has."""
    result: dict[str, Any] = {}
    for name, recipe in RECIPES.items():
        values = resolve.load_config(f"{cases.ROOT}/configs/lra/image.py:{recipe}")
        resolve.override(values, ["--config.num_devices=1"] + ["--config.model.dtype=bfloat16"] * ("bfloat16" in name))
        config = resolve.resolve(values)
        experiment, state = build(config, load_task(config, blank=True))
        program, taken = Program(experiment), [0]
        current = [program.place(state)]
        feeds = program.feeder.feeds("train", loop._order(experiment, None, 0))

        def steps(program: Program = program, feeds: Any = feeds, current: Any = current, taken: Any = taken) -> Any:
            for _ in range(STEPS):
                current[0], metrics = program.step(current[0], next(feeds), taken[0])
                taken[0] += 1
            return metrics

        def evaluate(program: Program = program, current: Any = current) -> Any:
            return program.evaluate(current[0], "val")

        times = measure.alternate({"steps": steps, "evaluation": evaluate}, repeats, lambda: advance(0.5))
        result[name] = {
            "step": times["steps"] / STEPS,
            "evaluation": times["evaluation"],
            "steps": experiment.steps_per_epoch,
        }
    return result


def seconds_to_first_step() -> list[float]:
    """Seconds from the start of scripts/train.py on the digits to the end of the first step, for two processes; the
    second finds compiled programs in the first one's cache."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            "JAX_COMPILATION_CACHE_DIR": f"{folder}/cache",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        for i in range(2):
            command = [sys.executable, "scripts/train.py", "--config=configs/digits.py:s5", f"--workdir={folder}/{i}"]
            command += ["--config.train.steps=2", "--config.train.warmup_steps=1"]
            done = subprocess.run(
                command, cwd=cases.ROOT, env=environment, check=True, text=True, stdout=subprocess.PIPE
            )
            ended = re.search(r"start, import to first step: ([\d.]+) s", done.stdout)
            assert ended is not None
            found.append(float(ended[1]))
    return found


def report(results: dict[str, Any]) -> list[str]:
    """Seconds of an epoch, with one evaluation."""
    lines = [
        "The Image recipe with its batch size, through the training loop's own steps, on one device.",
        "",
        "| | step, ms | evaluation, s | epoch, s |",
        "|---|---|---|---|",
    ]
    whole = {name: r["step"] * r["steps"] + r["evaluation"] for name, r in results.items()}
    for name, r in results.items():
        lines.append(f"| {name} | {1e3 * r['step']:.1f} | {r['evaluation']:.1f} | {whole[name]:.1f} |")
    if jax.default_backend() == "gpu":
        aims = {"s5": 17, "s5, bfloat16": 11, "s4d": 25}
        lines += ["", *(measure.aim(f"{n}: {whole[n]:.1f} s", f"{s} s", whole[n] <= s) for n, s in aims.items())]
    return lines
