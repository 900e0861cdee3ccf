"""How much accuracy is left when the inputs of a trained model, or those of its SSMs, are disturbed.

After the Fourier-mode experiment of perturb-then-diagonalize (arXiv 2310.01698, section 5.1): a transfer function with
a spike passes on a sinusoid of that frequency many times larger than anything the model was trained on.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from s5jax.analysis import figures, panel_figures
from s5jax.data import batches
from s5jax.data.task import PER_STEP, Task
from s5jax.models.block import Block
from s5jax.models.model import Model
from s5jax.models.sequences import Sequences
from s5jax.ssm import hippo

__all__ = [
    "Disturbance",
    "Place",
    "Sweep",
    "accuracy",
    "check",
    "frequencies",
    "plot_sweeps",
    "sweep",
    "table",
    "write_sweeps",
]

Kind = Literal["sinusoid", "white", "pink"]
Place = Literal["ssm", "data"]


@dataclasses.dataclass(frozen=True)
class Disturbance:
    """What is added.

    kind: `sinusoid`, amplitude cos(frequency t), the same in all features; `white`, Gaussian noise; `pink`, Gaussian
      noise with power in inverse proportion to the frequency, each sequence and feature its own.
    amplitude: of the sinusoid, or the noise's standard deviation, in the units of what it is added to. (An SSM's input
      behind a norm has a standard deviation of about 1.)
    frequency: radians per time, that of each feature's SSM: a sample takes its step size.
    """

    kind: Kind
    amplitude: float
    frequency: float = 0.0


def frequencies(state_size: int, count: int = 40) -> Float[np.ndarray, " F"]:
    """From 1 to 1.3 n^2/pi rad/time on a logarithmic scale, and the eigenfrequencies of HiPPO-LegS' normal part."""
    A, _, _ = hippo.legs(state_size)
    spikes = np.linalg.eigvalsh(1j * (A - A.T) / 2)[-(state_size // 2) :]
    return np.union1d(np.geomspace(1.0, 1.3 * state_size**2 / np.pi, count), spikes)


Noise = Callable[[int, Array, Array], Array]
"""Block number, what noise is added to (B, L, H), and the step size of each feature (H,), to what is added."""


def _outputs(model: Model, inputs: Array, sequences: Sequences, noise: Noise | None) -> Array:
    """What a call of the model gives, with noise added to the input of every SSM."""
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
    """Whether a block's mixer has a time of its own."""
    return hasattr(block.mixer, "time_step") and hasattr(block.mixer, "eigenvalues")


def _time_step(block: Block) -> Float[Array, " H"]:
    """How much of an SSM's time a sample takes, for each feature: where states have their own, their geometric mean."""
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


def _state_size(model: Model) -> int:
    """States of a block of the first SSM's A; 0 if it does not say."""
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
    """Raises ValueError if a model cannot be disturbed, or not in this place."""
    if task.targets:
        raise ValueError(f"task {task.name} is a regression, which has no accuracy to lose")
    if task.per_step:
        raise ValueError(f"task {task.name} has a class for each step, not one for a sequence")
    if place == "data" and task.num_tokens is not None:
        raise ValueError(f"task {task.name} gives tokens, to which nothing can be added; only SSMs' inputs can change")
    if _state_size(model) < 2:
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
    """Accuracy of a trained model under each of some disturbances.

    Args:
      model: as trained.
      task: that it was trained on.
      disturbances: what is added.
      place: to the input of every SSM, or to the data, after preprocessing; then time is that of the first SSM, its
        features' geometric mean.
      split: whose examples are taken, all of them.
      batch_size: examples at once.
      seed: of the noise.

    Raises:
      ValueError: the model has no SSM, the task is a regression or has a class for each step, or its data are tokens,
        which cannot be disturbed.
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


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Accuracies of runs that differ only in the seed."""

    label: str
    place: Place
    amplitudes: tuple[float, ...]
    frequencies: Float[np.ndarray, " F"]
    """Radians per time; the last spike of the normal part of HiPPO-LegS of the runs' block size is among them."""
    spike: float
    """That spike's."""
    clean: Float[np.ndarray, " runs"]
    sinusoid: Float[np.ndarray, "runs A F"]
    white: Float[np.ndarray, "runs A"]
    pink: Float[np.ndarray, "runs A"]


def sweep(
    label: str,
    models: Sequence[Model],
    task: Task,
    amplitudes: Sequence[float],
    *,
    place: Place = "ssm",
    split: str = "test",
    count: int = 40,
    advance: Callable[[], Any] = lambda: None,
) -> Sweep:
    """Accuracies of some runs over all frequencies and amplitudes, and under white and pink noise.

    Args:
      label: what the runs are called together.
      models: of runs that differ only in the seed.
      task: that they were trained on.
      amplitudes: of sinusoids, and standard deviations of noise.
      place, split: as for `accuracy`.
      count: frequencies besides those of spikes.
      advance: called after each run.
    """
    size = _state_size(models[0])
    omega = frequencies(size, count)
    results = []
    for model in models:
        disturbances = [
            Disturbance("white", 0.0),
            *(Disturbance("sinusoid", a, float(f)) for a in amplitudes for f in omega),
            *(Disturbance("white", a) for a in amplitudes),
            *(Disturbance("pink", a) for a in amplitudes),
        ]
        results.append(accuracy(model, task, disturbances, place=place, split=split))
        advance()
    clean, sinusoid, white, pink = np.split(
        np.stack(results), np.cumsum([1, len(amplitudes) * len(omega), len(amplitudes)]), axis=1
    )
    sinusoid = sinusoid.reshape(len(models), len(amplitudes), len(omega))
    spike = float(frequencies(size, 0).max())
    return Sweep(label, place, tuple(amplitudes), omega, spike, clean[:, 0], sinusoid, white, pink)


def table(sweeps: Sequence[Sweep]) -> str:
    """Mean accuracy over the runs, and in brackets its least and largest, as Markdown: a line for each amplitude."""

    def spread(values: Float[np.ndarray, " runs"]) -> str:
        if len(values) == 1:
            return f"{values[0]:.3f}"
        return f"{values.mean():.3f} ({values.min():.3f} to {values.max():.3f})"

    lines = [
        "| runs | added to | amplitude | nothing added | at the last spike | at the worst frequency | white | pink |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for s in sweeps:
        at = int(np.abs(s.frequencies - s.spike).argmin())
        for i, amplitude in enumerate(s.amplitudes):
            worst = int(s.sinusoid[:, i].mean(0).argmin())
            lines.append(
                f"| {s.label} | {s.place} | {amplitude:g} | {spread(s.clean)} | {spread(s.sinusoid[:, i, at])}"
                f" | {spread(s.sinusoid[:, i, worst])} at {s.frequencies[worst]:.3g}"
                f" | {spread(s.white[:, i])} | {spread(s.pink[:, i])} |"
            )
    return "\n".join(lines)


def write_sweeps(sweeps: Sequence[Sweep], file: pathlib.Path) -> None:
    """All accuracies as CSV: runs, run, place, kind, amplitude, frequency, accuracy."""
    rows: list[list[Any]] = []
    for s in sweeps:
        for run in range(len(s.clean)):
            rows.append([s.label, run, s.place, "none", 0, "", float(s.clean[run])])
            for i, amplitude in enumerate(s.amplitudes):
                for frequency, value in zip(s.frequencies, s.sinusoid[run, i], strict=True):
                    rows.append([s.label, run, s.place, "sinusoid", amplitude, float(frequency), float(value)])
                rows.append([s.label, run, s.place, "white", amplitude, "", float(s.white[run, i])])
                rows.append([s.label, run, s.place, "pink", amplitude, "", float(s.pink[run, i])])
    header = ["runs", "run", "place", "kind", "amplitude", "frequency", "accuracy"]
    panel_figures.write_csv(file, header, rows)


def plot_sweeps(sweeps: Sequence[Sweep], file: pathlib.Path, title: str) -> None:
    """Accuracy against a sinusoid's frequency, a panel for each place and amplitude; bands from least to largest."""
    places = list(dict.fromkeys(s.place for s in sweeps))
    labels = list(dict.fromkeys(s.label for s in sweeps))
    colors = {label: f"C{i}" for i, label in enumerate(labels)}
    amplitudes = sweeps[0].amplitudes
    figure = figures.new(3.6 * len(amplitudes), 2.6 * len(places) + 1.0)
    panels = figure.subplots(len(places), len(amplitudes), sharex=True, sharey=True, squeeze=False)
    for s in sweeps:
        for i, amplitude in enumerate(amplitudes):
            axes, values = panels[places.index(s.place), i], s.sinusoid[:, i]
            axes.plot(s.frequencies, values.mean(0), color=colors[s.label], lw=1.4, label=s.label)
            axes.fill_between(s.frequencies, values.min(0), values.max(0), color=colors[s.label], alpha=0.15, lw=0)
            axes.axvline(s.spike, color="#9aa5b1", lw=0.8, ls=":")
            axes.set_title(
                f"added to {'the data' if s.place == 'data' else 'every SSM'}, amplitude {amplitude:g}", size=9
            )
    for axes in panels.flat:
        axes.set_xscale("log")
        axes.set_ylim(0, 1.02)
        figures.tidy(axes)
    for axes in panels[-1]:
        axes.set_xlabel("frequency, rad/time")
    for axes in panels[:, 0]:
        axes.set_ylabel("accuracy")
    panel_figures.add_legend(figure, columns=min(len(labels), 5))
    figure.suptitle(title, fontsize=10)
    figures.save(figure, file)
