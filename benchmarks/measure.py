"""Compiles programs, and measures their time and memory."""

import ctypes
import dataclasses
import math
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jaxtyping import Array

from benchmarks import hlo

__all__ = ["Program", "aim", "alternate", "ceilings", "compile_program", "keep_memory", "product_flops"]


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled function, and what is known about it without running it.

    seconds: time to trace and compile the function.
    scratch: bytes in addition to arguments and results.
    memory: bytes of scratch, arguments and results together.
    flops: operations of the matrix products, counted in the traced function with every pass of every scan.
    bytes: what all instructions read and write, in caches or memory.
    """

    run: Callable[..., Any]
    seconds: float
    scratch: int
    memory: int
    flops: float
    bytes: float


def compile_program(function: Callable[..., Any], *arguments: Any, donate: bool = False) -> Program:
    """Compiles a function; with `donate` the results reuse the memory of the first argument."""
    jitted = jax.jit(function, donate_argnums=(0,) if donate else ())
    begin = time.perf_counter()
    traced = jitted.trace(*arguments)
    compiled = traced.lower().compile()
    seconds = time.perf_counter() - begin
    memory: Any = compiled.memory_analysis()
    scratch = memory.temp_size_in_bytes
    size = scratch + memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return Program(
        compiled, seconds, scratch, size, product_flops(traced.jaxpr.jaxpr), hlo.moved_bytes(compiled.as_text())
    )


def product_flops(jaxpr: Any) -> float:
    """Floating-point operations of all matrix products: 2 for a real multiply-add, 8 for a complex one.

    A product in a loop counts once if the number of passes is not known in advance; s5jax has no such loops.
    """
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left, result = equation.invars[0].aval, equation.outvars[0].aval
            depth = math.prod(left.shape[axis] for axis in contracted)
            total += (8 if jnp.issubdtype(result.dtype, jnp.complexfloating) else 2) * depth * result.size
        passes = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        total += passes * sum(product_flops(inner) for inner in core.jaxprs_in_params(equation.params))
    return total


def alternate(
    runs: dict[str, Callable[[], Any]], repeats: int, advance: Callable[[], Any] = lambda: None
) -> dict[str, float]:
    """Median seconds of several functions, which take turns; the first turn does not count.

    Args:
      runs: functions without arguments.
      repeats: number of turns that count.
      advance: called after each run, for a progress bar.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            begin = time.perf_counter()
            jax.block_until_ready(run())
            if turn:
                times[name].append(time.perf_counter() - begin)
            advance()
    return {name: statistics.median(values) for name, values in times.items()}


def ceilings() -> tuple[float, float]:
    """The peak of this device: FLOP/s of a product of square float32 matrices, 2048 x 2048 on a CPU and otherwise
    8192 x 8192, and bytes/s, read and written, of adding 1 to 256 MiB in place."""
    size = 2048 if jax.default_backend() == "cpu" else 8192
    square = jnp.ones((size, size))
    product = jax.jit(lambda x: x @ x)
    long = [jnp.ones(2**26)]
    copy = jax.jit(lambda x: x + 1, donate_argnums=0)  # into the same memory, which costs no new pages

    def copied() -> Array:
        long[0] = copy(long[0])
        return long[0]

    times = alternate({"product": lambda: product(square), "copy": copied}, 5)
    return 2 * size**3 / times["product"], 2 * long[0].nbytes / times["copy"]


def keep_memory() -> None:
    """Makes this process keep the memory that it frees. Call it before everything else.

    Otherwise large arrays go back to Linux and come back with pages that it must clear again, which can take longer
    than computing the arrays. Small arrays reuse memory in any case. Does nothing on other systems.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    for option, value in ((-4, 0), (-1, -1), (-8, 1)):  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_ARENA_MAX
        libc.mallopt(option, value)


def aim(text: str, wanted: str, reached: bool) -> str:
    """A line of a list: the measurement, the aim, and whether it was reached."""
    return f"- {text} (aim: {wanted}): {'reached' if reached else '**missed**'}"
