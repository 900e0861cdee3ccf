"""What a data set is: splits of examples, and what a model needs to know about them."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Num, Shaped

__all__ = ["DataError", "Split", "Task", "check_range"]


class DataError(ValueError):
    """The data are missing, damaged, or not what the task says."""


PER_STEP = ("mask", "reset", "rate")
"""Arrays of a split with a value for each step; inputs always have one, labels and weights may."""


@dataclasses.dataclass(frozen=True)
class Split:
    """Examples as stored: small integers where possible, since the whole split is kept on the device.

    Shapes have N examples; where examples are pairs, an axis of 2 documents comes after N.

    inputs: values (N, L, C) or token ids (N, L).
    labels: integers (N,), or (N, L) with one per step; in a regression floats with one more axis, the targets.
    lengths: (N,), number of valid steps of each sequence; default: the full length.
    mask: (N, L), true where a sample is missing; default: nowhere.
    reset: (N, L), true where a new sequence starts; default: at the first step.
    rate: (N, L), the time before each sample, in units of the model's step sizes; default: 1.
    weights: of the labels, in their shape without targets; default: 1.
    """

    inputs: Num[np.ndarray, "..."]
    labels: Num[np.ndarray, "..."]
    lengths: Num[np.ndarray, "..."] | None = None
    mask: Shaped[np.ndarray, "..."] | None = None
    reset: Shaped[np.ndarray, "..."] | None = None
    rate: Num[np.ndarray, "..."] | None = None
    weights: Num[np.ndarray, "..."] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays that are given, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def select(self, index: Num[np.ndarray, " n"]) -> "Split":
        """The examples at some indices."""
        return Split(**{name: array[index] for name, array in self.arrays.items()})


@dataclasses.dataclass(frozen=True)
class Task:
    """A data set with its splits "train", "val" and "test". Raises DataError if they contradict the following.

    length: L, the steps of every sequence, padding included.
    num_classes: labels run from 0 to num_classes - 1; 0 in a regression.
    num_tokens: inputs are token ids from 0 to num_tokens - 1; default: they are values.
    channels: C, values per step.
    pairs: an example is a pair of documents.
    per_step: there is a label for each step, not one for a sequence.
    preprocess: function from stored inputs to the model's inputs, inside the jitted step; default: values become
      float32, tokens stay as they are.
    targets: number of values to predict in a regression, best scaled to order one; 0: a classification.
    tolerance: in a regression, predictions within it count as accurate, in the unit of the labels.
    objective: module of `s5jax.objectives`; default: classification or regression.
    judge: the metric on the validation split that chooses the best checkpoint, and "max" or "min"; of equal checkpoints
      the one with less loss is chosen. Default: accuracy where there is one, otherwise loss.
    consecutive: examples follow each other as pieces of one sequence, so that a state can be carried from each to the
      next.
    facts: what a run keeps of the data in its data.json: `sha256` identifies them, and with a `vocabulary` the model's
      outputs can be read without them.
    """

    name: str
    splits: Mapping[str, Split]
    length: int
    num_classes: int = 0
    num_tokens: int | None = None
    channels: int = 1
    pairs: bool = False
    per_step: bool = False
    preprocess: Callable[[Shaped[Array, "..."]], Shaped[Array, "..."]] | None = None
    targets: int = 0
    tolerance: float = 0.0
    objective: str = ""
    judge: tuple[str, str] = ("", "")
    consecutive: bool = False
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        name, classes, targets, tolerance = self.name, self.num_classes, self.targets, self.tolerance
        kinds = "either num_classes (classification) or targets (regression) must be positive"
        one = min(classes, targets) == 0 < max(classes, targets)
        _require(one, name, f"{kinds}; got {classes} and {targets}")
        fits = tolerance == 0 or (tolerance > 0 and targets)
        _require(fits, name, f"tolerance must be positive, and is for regressions only; got {tolerance}")
        _require(not (self.pairs and self.per_step), name, "labels of pairs cannot be per_step")
        if not self.objective:
            object.__setattr__(self, "objective", "classification" if classes else "regression")
        if self.judge == ("", ""):
            object.__setattr__(self, "judge", ("accuracy", "max") if classes or tolerance else ("loss", "min"))
        known = len(self.judge) == 2 and self.judge[1] in ("min", "max")
        _require(known, name, f'judge must be a metric and "max" or "min", got {self.judge}')
        names = ", ".join(self.splits)
        _require(
            {*self.splits} == {"train", "val", "test"}, name, f"the splits must be train, val and test, got {names}"
        )
        for split_name, split in self.splits.items():
            self._check(f"task {name}, split {split_name}", split)

    @property
    def input_size(self) -> int:
        """Width of the encoder's input: tokens or channels."""
        return self.channels if self.num_tokens is None else self.num_tokens

    def limited(self, examples: int) -> "Task":
        """The task with at most `examples` random examples in each split, always the same."""
        splits = {}
        for name, split in self.splits.items():
            index = np.sort(np.random.RandomState(0).permutation(len(split))[:examples])
            splits[name] = split if len(split) <= examples else split.select(index)
        return dataclasses.replace(self, splits=splits)

    def prepare(self, inputs: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
        """Applies `preprocess` or its default."""
        if self.preprocess is not None:
            return self.preprocess(inputs)
        return inputs.astype(jnp.float32) if self.num_tokens is None else inputs

    def example_shape(self) -> tuple[int, ...]:
        """Shape of the inputs of one example."""
        shape = (self.length,) if self.num_tokens is not None else (self.length, self.channels)
        return (2, *shape) if self.pairs else shape

    def _check(self, where: str, split: Split) -> None:
        arrays, inputs, labels, weights = split.arrays, split.inputs, split.labels, split.weights
        time, shape = 1 + self.pairs, (len(split), *self.example_shape())
        _require(len(split) > 0, where, "no examples")
        longer = inputs.shape[time] if inputs.ndim > time and inputs.shape[time] > self.length else 0
        fault = f"sequences of {longer} steps, longer than the task's length {self.length}"
        _require(not longer, where, f"{fault}; truncate them or raise the length")
        _require(inputs.shape == shape, where, f"inputs have shape {inputs.shape}, not {shape} as the task says")
        for name, array in [(name, arrays[name]) for name in PER_STEP if name in arrays]:
            fits = array.shape == shape[: 1 + time]
            _require(fits, where, f"{name} has shape {array.shape}, not {shape[: 1 + time]}")
            _require(name == "rate" or array.dtype == bool, where, f"{name} must be boolean, got {array.dtype}")
        if weights is not None and weights.shape != labels.shape[: 1 + self.per_step]:
            raise DataError(f"{where}: weights have shape {weights.shape} for labels of {labels.shape}")
        if weights is not None:
            good = (np.isfinite(weights) & (weights >= 0)).all()
            _require(good, where, "some weights are negative, NaN or infinite")
        self._check_labels(where, labels, weights)
        if self.num_tokens is not None:
            _require(np.issubdtype(inputs.dtype, np.integer), where, f"token ids must be integers, got {inputs.dtype}")
            check_range(f"{where}: token", inputs, 0, self.num_tokens - 1, "num_tokens")
        elif np.issubdtype(inputs.dtype, np.floating):
            there = inputs if split.mask is None else inputs[~split.mask]
            _require(np.isfinite(there).all(), where, "some inputs are NaN or infinite")
        if split.lengths is not None:
            fits = split.lengths.shape == shape[:time]
            _require(fits, where, f"lengths have shape {split.lengths.shape} for {len(split)} examples")
            check_range(f"{where}: sequence length", split.lengths, 1, self.length, "length")
        if split.rate is not None:  # steps after the end of a sequence do not matter
            valid = True if split.lengths is None else np.arange(self.length) < split.lengths[..., None]
            _require((np.isfinite(split.rate) | ~np.asarray(valid)).all(), where, "some rates are NaN or infinite")

    def _check_labels(self, where: str, labels: np.ndarray, weights: np.ndarray | None) -> None:
        shape = (self.length,) * self.per_step + (self.targets,) * (self.targets > 0)
        kind, words = (np.floating, "floats") if self.targets else (np.integer, "integers")
        needed = ", ".join(["N", *map(str, shape)]) + ("" if shape else ",")
        fits = labels.shape == (len(labels), *shape) and np.issubdtype(labels.dtype, kind)
        _require(fits, where, f"labels must be {words} of shape ({needed}), got {labels.dtype} {labels.shape}")
        if self.targets:
            finite = np.isfinite(labels if weights is None else labels[weights > 0]).all()
            _require(finite, where, "some labels are NaN or infinite")
        else:
            check_range(f"{where}: label", labels, 0, self.num_classes - 1, "num_classes")


def _require(holds: Any, where: str, fault: str) -> None:
    if not holds:
        raise DataError(f"{where}: {fault}")


def check_range(what: str, values: np.ndarray, low: int, high: int, bound: str) -> None:
    """Raises DataError if an integer lies outside low..high; `bound` is the field that sets these."""
    if values.size and (values.min() < low or values.max() > high):
        at = tuple(np.argwhere((values < low) | (values > high))[0])
        raise DataError(f"{what} {values[at]} of example {at[0]} is outside {low}..{high} (see the task's {bound})")
