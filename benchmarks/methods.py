"""Measures the scan methods, and blocks of states; `scan.choose` and `diagonal_system.BLOCKS` rest on these numbers."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jaxtyping import Array

from benchmarks import measure
from s5jax.mixers import s5
from s5jax.ssm import diagonal_system

__all__ = ["SHAPES", "report", "run"]

SHAPES = {"1024, 512, 384": (1024, 512, 384), "4096, 256, 192": (4096, 256, 192)}
SHAPES |= {"1024, 192, 256": (1024, 192, 256), "2048, 128, 16": (2048, 128, 16)}
"""L, H and state_size of the layers of the four S5 recipes."""

WAYS = ("sequential", "blocks of 2 MiB", "chunked", "associative")
ON_GPU = ("kernel", "associative", "chunked")


def run(repeats: int, advance: Callable[[float], Any]) -> dict[str, Any]:
    """Seconds and scratch bytes of the forward and backward pass of a layer with two directions."""
    result: dict[str, Any] = {}
    ways, batch = (WAYS, 4) if jax.default_backend() == "cpu" else (ON_GPU, 50)
    for name, (L, H, size) in SHAPES.items():
        u, cotangent = (jax.random.normal(jax.random.key(i), (batch, L, H)) for i in (1, 2))
        programs: dict[str, measure.Program] = {}
        runs: dict[str, Callable[[], Any]] = {}
        for way in ways:
            method: Any = "sequential" if way == "blocks of 2 MiB" else way
            options = s5.Options(state_size=size, bidirectional=True, scan_method=method)
            params = s5.init(jax.random.key(0), H, options)

            def both_ways(params: Any, u: Array, cotangent: Array, options: s5.Options = options) -> Any:
                y, backward = jax.vjp(lambda params, u: s5.apply(params, u, options)[0], params, u)
                return y, backward(cotangent)

            with _small_blocks() if way == "blocks of 2 MiB" else contextlib.nullcontext():
                programs[way] = measure.compile_program(both_ways, params, u, cotangent)
            runs[way] = functools.partial(programs[way].run, params, u, cotangent)
        medians = measure.alternate(runs, repeats, lambda: advance(1 / len(ways)))
        result[name] = {way: {"seconds": medians[way], "scratch_bytes": programs[way].scratch} for way in ways}
    return result


@contextlib.contextmanager
def _small_blocks() -> Iterator[None]:
    kept = dict(diagonal_system.BLOCKS)
    diagonal_system.BLOCKS[jax.default_backend()] = (0, 2**19)
    try:
        yield
    finally:
        diagonal_system.BLOCKS.clear()
        diagonal_system.BLOCKS.update(kept)


def report(results: dict[str, Any]) -> list[str]:
    """A table of milliseconds and megabytes."""
    ways = list(next(iter(results.values())))
    blocks = ", batch 4, for each `scan_method`, and for `sequential` in blocks of 2 MiB of states"
    lines = [
        "Forward and backward pass of an S5 layer with two directions"
        f"{blocks if 'blocks of 2 MiB' in ways else ', batch 50, for each `scan_method`'}."
        " The numbers are ms, and MB of scratch memory.",
        "",
        f"| L, H, state_size | {' | '.join(ways)} |",
        "|---|" + "---|" * len(ways),
    ]
    for name, ways in results.items():
        cells = [f"{1e3 * ways[way]['seconds']:.1f}, {ways[way]['scratch_bytes'] / 1e6:.0f}" for way in ways]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines
