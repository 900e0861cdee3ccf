"""How the answer of a causal classifier moves while it reads sample by sample."""

import dataclasses
import pathlib
import time
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Shaped

from s5jax.analysis import figures
from s5jax.models.model import Model

__all__ = ["Stream", "plot_stream", "stream"]


@dataclasses.dataclass(frozen=True)
class Stream:
    """Class probabilities after each sample of one sequence.

    probabilities: (steps, classes), the first after `first` samples, the last after all.
    first: samples that were read at once, or 1.
    parallel: (classes,), of the whole sequence at once.
    samples_per_second: of those fed one by one, reading the probabilities after each; 0 if there were none.
    """

    probabilities: Float[np.ndarray, "steps classes"]
    first: int
    parallel: Float[np.ndarray, " classes"]
    samples_per_second: float

    @property
    def difference(self) -> float:
        """Largest difference between the last probabilities and those of the whole sequence at once."""
        return float(np.abs(self.probabilities[-1] - self.parallel).max())


def stream(model: Model, inputs: Shaped[Array, "L ..."], prefill: int = 0) -> Stream:
    """Feeds one sequence to a model in evaluation.

    Args:
      model: of causal mixers; with a class for a sequence, or for each step.
      inputs: values (L, C) or token ids (L,).
      prefill: samples to read at once before the others come one by one; at most L.

    Raises:
      ValueError: a mixer has no recurrent mode, or `prefill` is out of range.
    """
    if not 0 <= prefill <= len(inputs):
        raise ValueError(f"prefill must lie in 0..{len(inputs)}, the sequence's length; got {prefill}")
    graphdef, weights = nnx.split(model)

    @jax.jit
    def step(weights: Any, cells: Any, state: Any, sample: Array) -> tuple[Any, Array]:
        logits, state = nnx.merge(graphdef, weights).step(state, sample[None], cells)
        return state, jax.nn.softmax(logits[0])

    def last(logits: Array) -> np.ndarray:
        """Probabilities of what has been read, or of its last step."""
        return np.asarray(jax.nn.softmax(logits[0] if logits.ndim == 2 else logits[0, -1]))

    parallel = last(model(inputs[None]))
    state, cells, probabilities = model.init_state(1, max_length=len(inputs)), model.discretize(), []
    if prefill:
        logits, state = model.prefill(state, inputs[None, :prefill])
        probabilities.append(last(logits))
    samples = list(inputs[prefill:])
    if samples:
        jax.block_until_ready(step(weights, cells, state, samples[0]))  # compiled before the clock starts
    started = time.perf_counter()
    for sample in samples:
        state, after = step(weights, cells, state, sample)
        probabilities.append(np.asarray(after))
    seconds = time.perf_counter() - started
    return Stream(np.stack(probabilities), max(prefill, 1), parallel, len(samples) / seconds if samples else 0.0)


def plot_stream(result: Stream, inputs: Shaped[np.ndarray, "L ..."], file: pathlib.Path, title: str) -> None:
    """The sequence above, the probabilities of its classes below."""
    figure = figures.new(8, 4.4)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[1, 3])
    above.step(
        np.arange(1, len(inputs) + 1), np.asarray(inputs).reshape(len(inputs), -1), lw=1, color="#52606d", where="mid"
    )
    above.set_ylabel("input")
    steps = result.first + np.arange(len(result.probabilities))
    likely = np.argsort(-result.probabilities.max(axis=0))
    for rank, label in enumerate(likely):
        style = {"lw": 1.6, "label": f"class {label}"} if rank < 5 else {"lw": 0.7, "color": "#cbd2d9"}
        below.plot(steps, result.probabilities[:, label], marker="." if len(steps) == 1 else None, **style)
    below.set_xlabel("samples read")
    below.set_ylabel("probability")
    below.set_ylim(-0.02, 1.02)
    below.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    for axes in (above, below):
        figures.tidy(axes)
    figure.suptitle(title, fontsize=10)
    figures.save(figure, file)
