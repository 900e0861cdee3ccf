"""Measures recurrent mode: a causal model reads sample by sample."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from benchmarks import baseline, measure
from benchmarks.names import per_layer
from s5jax.mixers import s5
from s5jax.models.model import Model
from s5jax.models.options import Options

__all__ = ["BATCHES", "report", "run"]

BATCHES = {1: 400, 64: 40}
"""The number of samples in a measurement, for each batch size."""

WAYS = {
    "baseline": "the published algorithm: a jitted step, called from Python, that discretises each time",
    "alone": "`model.step` without cells, jitted and called from Python",
    "step": "`model.step` with cells discretised in advance, jitted and called from Python",
    "rollout": "`model.rollout`, one compiled loop",
}


def run(repeats: int, advance: Callable[[float], Any]) -> dict[str, Any]:
    """Steps per second of a causal S5 of 6 blocks, 512 features and 384 states, for each batch size and way."""
    options, ssm = Options(depth=6, d_model=512), s5.Options(state_size=384, blocks=3)
    model = Model(options, {"s5": ("s5", ssm)}, 1, 10, rngs=nnx.Rngs(0))
    graphdef, params, *others = nnx.split(model, nnx.Param, nnx.BatchStat)
    published = per_layer(nnx.to_pure_dict(params)), per_layer(nnx.to_pure_dict(others[0]))
    cells = model.discretize()
    published_step = jax.jit(functools.partial(baseline.step, model=options, options=ssm))

    def swapped(state: Any, sample: Array) -> Any:
        """The baseline's step, with its results in the order of ours."""
        state, logits = published_step(*published, state, sample)
        return logits, state

    @jax.jit
    def step(params: Any, cells: Any, state: Any, sample: Array) -> Any:
        return nnx.merge(graphdef, params, *others).step(state, sample, cells)

    @jax.jit
    def alone(params: Any, state: Any, sample: Array) -> Any:
        return nnx.merge(graphdef, params, *others).step(state, sample)

    @jax.jit
    def rollout(params: Any, state: Any, samples: Array) -> Any:
        return nnx.merge(graphdef, params, *others).rollout(state, samples)

    result = {}
    for batch, length in BATCHES.items():
        samples = jax.random.normal(jax.random.key(0), (batch, length, 1))
        one_by_one = [samples[:, k] for k in range(length)]
        state = model.init_state(batch)
        states = [jnp.zeros((batch, 192), jnp.complex64)] * 6
        published_state = states, jnp.zeros((batch, 512)), jnp.float32(0)
        runs = {
            "baseline": functools.partial(_loop, swapped, published_state),
            "alone": functools.partial(_loop, functools.partial(alone, params), state),
            "step": functools.partial(_loop, functools.partial(step, params, cells), state),
        }
        calls: dict[str, Callable[[], Any]] = {name: functools.partial(loop, one_by_one) for name, loop in runs.items()}
        calls["rollout"] = functools.partial(rollout, params, state, samples)
        medians = measure.alternate(calls, repeats, lambda: advance(1 / len(WAYS)))
        result[str(batch)] = {name: length / seconds for name, seconds in medians.items()}
    return result


def _loop(step: Callable[..., Any], state: Any, samples: list[Array]) -> Any:
    for sample in samples:
        logits, state = step(state, sample)
    return logits


def report(results: dict[str, Any]) -> list[str]:
    """A table of steps per second."""
    lines = [
        "A causal S5 of 6 blocks, 512 features and 384 states reads sample by sample. The numbers are steps of the"
        " whole batch per second.",
        "",
        f"| | {' | '.join(f'batch {batch}' for batch in BATCHES)} |",
        "|---|" + "---|" * len(BATCHES),
    ]
    for name, text in WAYS.items():
        cells = [f"{results[str(b)][name]:,.0f} ({_gain(results, b, name):.1f})" for b in BATCHES]
        lines.append(f"| {text} | {' | '.join(cells)} |")
    return [*lines, "", "In brackets: how many times as fast as the published algorithm."]


def _gain(results: dict[str, Any], batch: int, name: str) -> float:
    return results[str(batch)][name] / results[str(batch)]["baseline"]
