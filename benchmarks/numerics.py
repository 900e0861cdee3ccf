"""Measures the error of this device against float64 on the CPU, and compares its first losses with the CPU's."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import cases, measure
from s5jax import mixers
from s5jax.mixers import lru, s4, s4d, s5
from s5jax.ssm import diagonal_system, scan

__all__ = ["report", "run"]

SHAPES = ((50, 1024, 192), (3, 4096, 96), (2, 2000, 8), (5, 785, 24), (1, 1, 5), (2, 37, 6))
"""Sequences, samples and states: those of recipes, and odd ones."""

LAYERS: dict[str, Any] = {
    "s5": s5.Options(state_size=32, bidirectional=True),
    "s4d": s4d.Options(state_size=16, bidirectional=True),
    "s4": s4.Options(state_size=16, bidirectional=True),
    "lru": lru.Options(state_size=32, bidirectional=True),
}
LENGTH, WIDTH = 500, 24
STEPS = 100
RECIPES = ("image", "text", "listops")


def run(repeats: int, advance: Callable[[float], Any]) -> dict[str, Any]:
    """Relative errors of the scan and of layers, in values and gradients, and of the losses of `STEPS` steps.

    Products of the scan and of layers have the precision "highest"; the steps have the default, TF32 on a GPU. On a CPU
    the losses, which would be its own, are left out.
    """
    result: dict[str, Any] = {"scan": {}, "layers": {}, "losses": {}}
    method = scan.choose("auto", 1, 1)
    with jax.default_matmul_precision("highest"):
        for shape in SHAPES:
            result["scan"][str(shape)] = scan_error(*shape, method)
            advance(1)
        for name, options in LAYERS.items():
            result["layers"][name] = layer_error(name, options)
            advance(1)
    result["method"] = method
    if jax.default_backend() != "cpu":
        for name in RECIPES:
            here, cpu = (first_losses(name, device) for device in (jax.devices()[0], jax.devices("cpu")[0]))
            result["losses"][name] = float(np.max(np.abs(here / cpu - 1)))
            advance(10)
    return result


def scan_error(N: int, L: int, P: int, method: str) -> float:
    """The largest relative error, in the Euclidean norm, of the outputs and gradients of a scan in both directions."""
    rng, H = np.random.default_rng(0), 4
    a = (rng.uniform(0.9, 0.9999, P) * np.exp(1j * rng.uniform(-2, 2, P))).astype(np.complex64)
    b, g = (rng.normal(size=size).astype(np.float32) for size in ((N, L, 2, P), (N, L, H)))
    Cs = [(rng.normal(size=(H, P)) + 1j * rng.normal(size=(H, P))).astype(np.complex64) for _ in range(2)]

    @jax.jit
    def both_ways(a: Any, b: Any, Cs: Any) -> Any:
        y, pull = jax.vjp(lambda *given: diagonal_system.response(*given, method=method), a, b, Cs)
        return y, pull(jnp.asarray(g))

    y, (da, db, dCs) = jax.device_get(both_ways(*map(jnp.asarray, (a, b)), [jnp.asarray(C) for C in Cs]))
    exact = b[:, :, 0] + 1j * b[:, :, 1].astype(np.float64)
    states = [_states(a, exact, reverse) for reverse in (False, True)]
    adjoints = [_states(a.conj(), g @ C.conj(), not reverse) for C, reverse in zip(Cs, (False, True), strict=True)]
    zero = np.zeros_like(exact[:, :1])
    before = [np.concatenate([zero, states[0][:, :-1]], 1), np.concatenate([states[1][:, 1:], zero], 1)]
    pairs = [
        (y, sum((x @ C.T).real for x, C in zip(states, Cs, strict=True))),
        (da.conj(), sum((z * x.conj()).sum((0, 1)) for z, x in zip(adjoints, before, strict=True))),
        (db[:, :, 0] + 1j * db[:, :, 1], sum(adjoints)),
        *((dC.conj(), np.einsum("nlh,nlp->hp", g, x.conj())) for dC, x in zip(dCs, states, strict=True)),
    ]
    return max(_relative(actual, expected) for actual, expected in pairs)


def _states(a: np.ndarray, b: np.ndarray, reverse: bool) -> np.ndarray:
    """x_k = a x_{k-1} + b_k in complex128."""
    x, states = np.zeros(b[:, 0].shape, np.complex128), np.zeros(b.shape, np.complex128)
    for k in range(b.shape[1])[:: -1 if reverse else 1]:
        x = a.astype(np.complex128) * x + b[:, k]
        states[:, k] = x
    return states


def _relative(actual: Any, expected: Any) -> float:
    return float(np.linalg.norm(actual - expected) / (np.linalg.norm(expected) or 1))


def layer_error(name: str, options: Any) -> float:
    """The largest relative error of a mixer's outputs and gradients, against the same on the CPU in float64."""
    mixer = mixers.find(name)
    with jax.default_device(jax.devices("cpu")[0]):
        params = mixer.init(jax.random.key(0), WIDTH, options, depth=1, length=LENGTH)
        params, x = jax.device_get((params, jax.random.normal(jax.random.key(1), (3, LENGTH, WIDTH))))

    def both_ways(params: Any, x: Any) -> Any:
        y, pull = jax.vjp(lambda params, x: mixer.apply(params, x, options)[0], params, x)
        return y, pull(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))

    actual = jax.device_get(jax.jit(both_ways)(params, x))
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        exact = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), (params, x))
        expected = jax.device_get(jax.jit(both_ways)(*exact))
    return max(jax.tree.leaves(jax.tree.map(_relative, actual, expected)))


def first_losses(name: str, device: Any) -> np.ndarray:
    """The losses of the first steps of a recipe on one device, on random data of the recipe's shape, batch 4."""
    case = cases.build(name, 4)
    side = cases.ours(case)
    with jax.default_device(device):
        step = jax.jit(side.train, donate_argnums=0)
        state, batch = jax.device_put((jax.tree.map(jnp.copy, side.state), side.batch), device)
        losses = []
        for _ in range(STEPS):
            state, metrics = step(state, batch)
            losses.append(metrics["loss"])
        return np.array([np.divide(*pair) for pair in jax.device_get(losses)])


def report(results: dict[str, Any]) -> list[str]:
    """A table of errors, and what was aimed at."""
    lines = [
        f"Largest relative errors, of values and gradients, against float64 (scan: `{results['method']}`), and of the"
        f" losses of {STEPS} steps at batch 4 against those of the CPU.",
        "",
        "| | error |",
        "|---|---|",
    ]
    kinds = (("scan", "scan, N, L, P = "), ("layers", ""), ("losses", "losses of "))
    lines += [f"| {text}{name} | {error:.1e} |" for kind, text in kinds for name, error in results[kind].items()] + [""]
    for kind, most in (("scan", 1e-5), ("layers", 1e-4), ("losses", 0.02)):
        worst = max(results[kind].values(), default=None)
        if worst is not None:
            lines.append(measure.aim(f"{kind}: the largest is {worst:.1e}", f"{most}", worst <= most))
    return lines
