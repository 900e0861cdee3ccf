"""Accuracy of a trained model when a sinusoid or noise is added to its inputs, or to those of its SSMs.

After the Fourier-mode experiment of arXiv 2310.01698, section 5.1: a transfer function with a spike amplifies a
sinusoid of that frequency far more than anything that the model was trained on.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from s5jax.data import batches
from s5jax.data.task import PER_STEP, Task
from s5jax.models.block import Block
from s5jax.models.model import Model
from s5jax.ssm import hippo
from s5jax.ssm.sequence import Sequences

__all__ = ["Disturbance", "Place", "accuracy", "check", "frequencies", "state_size"]

Kind = Literal["sinusoid", "white", "pink"]
Place = Literal["ssm", "data"]


@dataclasses.dataclass(frozen=True)
class Disturbance:
    """A sinusoid or noise to add."""

    kind: Kind
    """`sinusoid`: amplitude cos(frequency t), the same in all features; `white`: Gaussian noise; `pink`: Gaussian noise
    with a power of 1 / frequency. Each sequence and feature has its own noise."""
    amplitude: float
    """The amplitude of the sinusoid or the standard deviation of the noise, in the units of the disturbed array. Behind
    a norm, the input of an SSM has a standard deviation of about 1."""
    frequency: float = 0.0
    """In radians per unit of time of each feature's SSM; the time between two samples is the feature's step size."""


def frequencies(state_size: int, count: int = 40) -> Float[np.ndarray, " F"]:
    """`count` frequencies from 1 to 1.3 n^2/pi rad/time, evenly on a logarithmic scale, and the eigenfrequencies of the
    normal part of HiPPO-LegS with n = `state_size` states."""
    A, _, _ = hippo.legs(state_size)
    spikes = np.linalg.eigvalsh(1j * (A - A.T) / 2)[-(state_size // 2) :]
    return np.union1d(np.geomspace(1.0, 1.3 * state_size**2 / np.pi, count), spikes)


Noise = Callable[[int, Array, Array], Array]
"""Maps the number of a block, the disturbed array (B, L, H) and the step size of each feature (H,) to the array to
add."""


def _outputs(model: Model, inputs: Array, sequences: Sequences, noise: Noise | None) -> Array:
    """The outputs of the model, with noise added to the input of every SSM."""
    stack = model.encoder
    inside = sequences if stack.options.mask_padding else sequences._replace(lengths=None)
    x = stack.encode(inputs, inside.counted(inputs.shape[1]))
    for number, block in enumerate(stack.blocks):

        def mix(u: Array, block: Block = block, number: int = number, **skip: Array) -> tuple[Array, Any]:
            if noise is not None and _is_ssm(block):
                u = u + noise(number, u, _time_step(block))
            return block.mixer.apply(block.params, u, block.mixer_options, **inside._asdict(), **skip)

        x, _ = block(x, mix=mix)
    return model.decoder.read(x, sequences)[0]


def _is_ssm(block: Block) -> bool:
    """Whether the mixer of a block has step sizes and eigenvalues."""
    return hasattr(block.mixer, "time_step") and hasattr(block.mixer, "eigenvalues")


def _time_step(block: Block) -> Float[Array, " H"]:
    """The step size of each feature: the geometric mean over states if these have their own."""
    params, options = block.params, block.mixer_options
    log_step = jnp.log(block.mixer.time_step(params, options))
    if block.mixer.eigenvalues(params, options).ndim > 1:  # a system for each feature
        return jnp.exp(log_step.mean(-1))
    return jnp.broadcast_to(jnp.exp(log_step.mean()), (block.options.d_model,))


def _first_ssm(model: Model) -> Block:
    """The first block whose mixer is an SSM.

    Raises:
      ValueError: there is none.
    """
    first = next((block for block in model.encoder.blocks if _is_ssm(block)), None)
    if first is None:
        names = ", ".join(dict.fromkeys(block.mixer_name for block in model.encoder.layers))
        raise ValueError(f"no mixer of the model has a time_step, in which frequencies are measured: {names}")
    return first


def state_size(model: Model) -> int:
    """The number of states in a block of A in the first SSM; 0 if its options do not say.

    Raises:
      ValueError: the model has no SSM.
    """
    options = _first_ssm(model).mixer_options
    return getattr(options, "state_size", 0) // getattr(options, "blocks", 1)


def _noise(
    kind: Kind, like: Float[Array, "B L H"], step: Float[Array, " H"], frequency: Array, key: PRNGKeyArray
) -> Float[Array, "B L H"]:
    if kind == "sinusoid":
        k = jnp.arange(like.shape[1], dtype=like.dtype)
        return jnp.broadcast_to(jnp.cos(k[:, None] * (frequency * step)[None, :])[None], like.shape)
    white = jax.random.normal(key, like.shape, like.dtype)
    if kind == "white":
        return white
    bins = jnp.arange(like.shape[1] // 2 + 1, dtype=like.dtype)
    fall = jnp.where(bins > 0, jax.lax.rsqrt(jnp.maximum(bins, 1)), 0)[None, :, None]
    spectrum = jnp.fft.rfft(white, axis=1)
    pink = jnp.fft.irfft(spectrum * fall.astype(spectrum.dtype), n=like.shape[1], axis=1)
    return pink / jnp.maximum(jnp.std(pink, axis=1, keepdims=True), 1e-12)


def check(model: Model, task: Task, place: Place) -> None:
    """Raises ValueError if a model cannot be disturbed in this place."""
    if task.targets:
        raise ValueError(f"task {task.name} is a regression and has no accuracy")
    if task.per_step:
        raise ValueError(f"task {task.name} has a class for each step, not one for a sequence")
    if place == "data" and task.num_tokens is not None:
        raise ValueError(f"task {task.name} gives tokens, to which nothing can be added; use --place=ssm")
    if state_size(model) < 2:
        raise ValueError(
            f"frequencies follow from a state_size of at least 2, which {_first_ssm(model).mixer_name} lacks"
        )


def accuracy(
    model: Model,
    task: Task,
    disturbances: Sequence[Disturbance],
    *,
    place: Place = "ssm",
    split: str = "test",
    batch_size: int = 512,
    seed: int = 0,
) -> Float[np.ndarray, " D"]:
    """Accuracy of a trained model under each of several disturbances.

    Args:
      model: the trained model.
      task: the task that it was trained on.
      disturbances: what to add, one at a time.
      place: add to the input of every SSM (`ssm`), or to the data after preprocessing (`data`). In the data, the time
        between two samples is the step size of the first SSM, as the geometric mean over its features.
      split: the split to evaluate on, with all its examples.
      batch_size: number of examples per batch.
      seed: seed of the noise.

    Raises:
      ValueError: the model has no SSM, the task is a regression or has a class for each step, or its data are tokens
        and `place` is `data`.
    """
    check(model, task, place)
    graphdef, weights = nnx.split(model)
    data = task.splits[split]

    @functools.partial(jax.jit, static_argnums=0)
    def correct(kind: Kind, weights: Any, amplitude: Array, frequency: Array, key: Array, batch: Any) -> Array:
        model = nnx.merge(graphdef, weights)
        inputs, given = task.prepare(batch["inputs"]), {name: batch.get(name) for name in ("lengths", *PER_STEP)}

        def noise(index: int, like: Array, step: Array) -> Array:
            return amplitude * _noise(kind, like, step, frequency, jax.random.fold_in(key, index))

        if place == "data":
            mean = jnp.exp(jnp.log(_time_step(_first_ssm(model))).mean())
            flat = inputs.reshape(-1, *inputs.shape[-2:])
            inputs = inputs + noise(0, flat, jnp.broadcast_to(mean, inputs.shape[-1:])).reshape(inputs.shape)
        fold = model.decoder.fold
        sequences = Sequences(**jax.tree.map(fold, given))
        logits = _outputs(model, fold(inputs), sequences, noise if place == "ssm" else None)
        return jnp.sum((logits.argmax(-1) == batch["labels"]) & batch["counted"])

    order = batches.padded_batches(np.arange(len(data)), min(batch_size, len(data)))
    result = []
    for disturbance in disturbances:
        total = 0
        for number, (index, counted) in enumerate(zip(*order, strict=True)):
            types = {"labels": np.int32, "lengths": np.int32, "rate": np.float32}
            arrays = data.select(index).arrays.items()
            batch = {name: np.asarray(array, types.get(name, array.dtype)) for name, array in arrays}
            batch["counted"] = counted
            key = jax.random.fold_in(jax.random.key(seed), number)
            amplitude, frequency = jnp.float32(disturbance.amplitude), jnp.float32(disturbance.frequency)
            total += int(correct(disturbance.kind, weights, amplitude, frequency, key, batch))
        result.append(total / len(data))
    return np.array(result)
