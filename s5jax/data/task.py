"""What a data set is: splits of examples, and what a model needs to know about them."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Num, Shaped


class DataError(ValueError):
    """The data are missing, damaged, or not what the task says."""


PER_STEP = ("mask", "reset", "rate")
"""Arrays of a split with a value for each step; inputs always have one, labels and weights may."""

KINDS = {"numbers": np.generic, "integers": np.integer, "floats": np.floating, "booleans": np.bool_}


@dataclasses.dataclass(frozen=True)
class Split:
    """Examples as stored: small integers where possible, since a split up to `resident_gib` is kept on the device.

    Shapes have N examples; where examples are pairs, an axis of 2 documents comes after N.

    inputs: values (N, L, C) or token ids (N, L).
    labels: integers (N,), or (N, L) with one per step; in a regression floats with one more axis, the targets.
    lengths: (N,), number of valid steps of each sequence; default: the full length.
    mask: (N, L), true where a sample is missing; default: nowhere.
    reset: (N, L), true where a new sequence starts; default: nowhere.
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
        _require((classes > 0) != (targets > 0), name, f"{kinds}; got {classes} and {targets}")
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
        _require({*self.splits} == {"train", "val", "test"}, name, f"splits must be train, val and test, got {names}")
        for split_name, split in self.splits.items():
            self._check(f"task {name}, split {split_name}", split)

    @property
    def input_size(self) -> int:
        """Width of the encoder's input: tokens or channels."""
        return self.channels if self.num_tokens is None else self.num_tokens

    def limited(self, examples: int) -> "Task":
        """The task with at most `examples` random examples in each split, always the same."""
        splits = dict(self.splits)
        for name, split in splits.items():
            if len(split) > examples:
                splits[name] = split.select(np.sort(np.random.RandomState(0).permutation(len(split))[:examples]))
        return dataclasses.replace(self, splits=splits)

    def prepare(self, inputs: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
        """Applies `preprocess` or its default."""
        if self.preprocess is not None:
            return self.preprocess(inputs)
        return inputs.astype(jnp.float32) if self.num_tokens is None else inputs

    def example_shape(self) -> tuple[int, ...]:
        """Shape of the inputs of one example."""
        return (2,) * self.pairs + (self.length,) + (self.channels,) * (self.num_tokens is None)

    def _check(self, where: str, split: Split) -> None:
        lengths, weights = split.lengths, split.weights
        _require(len(split) > 0, where, "no examples")
        shape, time = (len(split), *self.example_shape()), 1 + self.pairs
        steps, labelled = shape[: 1 + time], shape[: 1 + self.per_step]
        needed = dict.fromkeys(("mask", "reset"), (steps, "booleans")) | {
            "inputs": (shape, "numbers" if self.num_tokens is None else "integers"),
            "labels": ((*labelled, self.targets), "floats") if self.targets else (labelled, "integers"),
            "lengths": (shape[:time], "numbers"),
            "rate": (steps, "numbers"),
            "weights": (labelled, "numbers"),
        }
        for name, array in split.arrays.items():
            fits, kind = needed[name]
            good = array.shape == fits and np.issubdtype(array.dtype, KINDS[kind])
            _require(good, where, f"{name} must be {kind} of shape {fits}, got {array.dtype} {array.shape}")
        if self.num_tokens is not None:
            check_range(f"{where}: token", split.inputs, 0, self.num_tokens - 1, "num_tokens")
        if not self.targets:
            check_range(f"{where}: label", split.labels, 0, self.num_classes - 1, "num_classes")
        if lengths is not None:
            check_range(f"{where}: sequence length", lengths, 1, self.length, "length")
        if split.mask is not None and not self.per_step:
            some = "all samples of some sequences are missing, and nothing is left to pool"
            _require(counted_of_last(split, self.length).any(-1).all(), where, some)
        # Floats must be finite, except missing inputs, labels of weight 0, and rates after the end of a sequence.
        counted: dict[str, Any] = {
            "inputs": ... if split.mask is None else ~split.mask,
            "labels": ... if weights is None else weights > 0,
            "rate": ... if lengths is None else np.arange(self.length) < lengths[..., None],
            "weights": ...,
        }
        for name, array in split.arrays.items():
            if name in counted and np.issubdtype(array.dtype, np.floating):
                _require(np.isfinite(array[counted[name]]).all(), where, f"some values of {name} are NaN or infinite")
        _require(weights is None or (weights >= 0).all(), where, "some weights are negative")


def counted_of_last(split: Split, L: int) -> np.ndarray:
    """True at samples of the last sequence of each row that are not missing, see `Sequences.counted_of_last`."""
    steps, mask = np.arange(L), np.asarray(split.mask)
    valid = np.broadcast_to(True if split.lengths is None else steps < split.lengths[..., None], mask.shape)
    starts = 0 if split.reset is None else np.where(split.reset & valid, steps, 0).max(-1, keepdims=True)
    return valid & ~mask & (steps >= starts)


def _require(holds: Any, where: str, fault: str) -> None:
    if not holds:
        raise DataError(f"{where}: {fault}")


def check_range(what: str, values: np.ndarray, low: int, high: int, bound: str) -> None:
    """Raises DataError if an integer lies outside low..high; `bound` is the field that sets these."""
    if values.size and (values.min() < low or values.max() > high):
        at = tuple(np.argwhere((values < low) | (values > high))[0])
        raise DataError(f"{what} {values[at]} of example {at[0]} is outside {low}..{high} (see the task's {bound})")
