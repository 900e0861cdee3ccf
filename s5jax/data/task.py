"""What a data set is to the rest of the program."""

import dataclasses
from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Num, Shaped

__all__ = ["DataError", "Split", "Task", "check_range"]


class DataError(ValueError):
    """The data are not what the task says they are."""


PER_STEP = ("mask", "reset", "rate")
"""Arrays of a split with a number for each step, besides inputs, and labels and their weights where these are."""


@dataclasses.dataclass(frozen=True)
class Split:
    """Examples as stored: small integers where possible, since a split stays whole on the device.

    N examples, or with an axis of 2 documents after N where examples are pairs.

    inputs: values (N, L, C) or token ids (N, L).
    labels: integers (N,), or (N, L), one a step; of a regression floats with one more axis, the targets.
    lengths: (N,), valid steps of each sequence; `None` where all have the full length.
    mask: (N, L), true where a sample is missing.
    reset: (N, L), true where a new sequence starts.
    rate: (N, L), the time before each sample, in units of the model's step sizes.
    weights: of the labels, in their shape without targets; `None`: all 1.
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
        """Those that there are, by name."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def select(self, index: Num[np.ndarray, " n"]) -> "Split":
        """Some of the examples."""
        return Split(**{name: array[index] for name, array in self.arrays.items()})


@dataclasses.dataclass(frozen=True)
class Task:
    """A data set with its splits "train", "val" and "test", checked.

    name: as in the config.
    splits: the three splits.
    length: L, the steps of every sequence, padding included.
    num_classes: labels run from 0 to num_classes - 1; 0 in a regression.
    num_tokens: inputs are token ids from 0 to num_tokens - 1; `None`: they are values.
    channels: C, values per step.
    pairs: an example is a pair of documents.
    per_step: labels are one for each step, not one for a sequence.
    preprocess: inputs as stored to inputs as the model takes them; runs on the device, inside the jitted step. Default:
      values become float32, tokens stay as they are.
    targets: numbers to predict, a regression, best scaled to order one; 0: a classification.
    tolerance: of a regression: predictions no further off than this, in the unit of the labels, count as accurate.
    objective: what a model is trained on, a module of `s5jax.objectives`; "": classification or regression.
    judge: the metric on the validation split that says which checkpoint is best, and whether it is to be "max" or
      "min"; of equals the one with less loss. Default: accuracy where there is one, otherwise loss.

    Raises:
      DataError: a split that contradicts the above.
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

    def __post_init__(self) -> None:
        if min(self.num_classes, self.targets) != 0 or max(self.num_classes, self.targets) < 1:
            raise DataError(
                f"{self.name}: either num_classes, of a classification, or targets, of a regression, must be positive;"
                f" got {self.num_classes} and {self.targets}"
            )
        if self.tolerance < 0 or (self.tolerance and not self.targets):
            raise DataError(f"{self.name}: a tolerance is positive, and of a regression; got {self.tolerance}")
        if self.pairs and self.per_step:
            raise DataError(f"{self.name}: labels of pairs cannot be per_step")
        if not self.objective:
            object.__setattr__(self, "objective", "classification" if self.num_classes else "regression")
        if self.judge == ("", ""):
            accurate = self.num_classes or self.tolerance
            object.__setattr__(self, "judge", ("accuracy", "max") if accurate else ("loss", "min"))
        if len(self.judge) != 2 or self.judge[1] not in ("min", "max"):
            raise DataError(f'{self.name}: judge must be a metric and "max" or "min", got {self.judge}')
        if set(self.splits) != {"train", "val", "test"}:
            raise DataError(f"{self.name}: the splits must be train, val and test, got {', '.join(self.splits)}")
        for split_name, split in self.splits.items():
            self._check(f"task {self.name}, split {split_name}", split)

    @property
    def input_size(self) -> int:
        """Width of the encoder's input: tokens or channels."""
        return self.channels if self.num_tokens is None else self.num_tokens

    def limited(self, examples: int) -> "Task":
        """The task with no more than so many examples in a split, always the same random ones."""
        splits = {}
        for name, split in self.splits.items():
            index = np.sort(np.random.RandomState(0).permutation(len(split))[:examples])
            splits[name] = split if len(split) <= examples else split.select(index)
        return dataclasses.replace(self, splits=splits)

    def prepare(self, inputs: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
        """Applies `preprocess`, or what stands for it."""
        if self.preprocess is not None:
            return self.preprocess(inputs)
        return inputs.astype(jnp.float32) if self.num_tokens is None else inputs

    def example_shape(self) -> tuple[int, ...]:
        pair = (2,) if self.pairs else ()
        return (*pair, self.length) if self.num_tokens is not None else (*pair, self.length, self.channels)

    def _check(self, where: str, split: Split) -> None:
        if len(split) == 0:
            raise DataError(f"{where}: no examples")
        expected = self.example_shape()
        time = 1 + self.pairs
        if split.inputs.ndim > time and split.inputs.shape[time] > self.length:
            raise DataError(
                f"{where}: sequences of {split.inputs.shape[time]} steps, longer than the task's length {self.length};"
                " truncate them or raise the length"
            )
        if split.inputs.shape != (len(split), *expected):
            raise DataError(
                f"{where}: inputs have shape {split.inputs.shape}, not {(len(split), *expected)} as the task says"
            )
        for name in PER_STEP:
            array = split.arrays.get(name)
            if array is None:
                continue
            if array.shape != (len(split), *expected[:time]):
                raise DataError(f"{where}: {name} has shape {array.shape}, not {(len(split), *expected[:time])}")
            if name != "rate" and array.dtype != bool:
                raise DataError(f"{where}: {name} must be of booleans, got {array.dtype}")
        if split.weights is not None and split.weights.shape != split.labels.shape[: 1 + self.per_step]:
            raise DataError(f"{where}: weights have shape {split.weights.shape} for labels of {split.labels.shape}")
        self._check_labels(where, split.labels, split.weights)
        if self.num_tokens is not None and not np.issubdtype(split.inputs.dtype, np.integer):
            raise DataError(f"{where}: token ids must be integers, got {split.inputs.dtype}")
        there = split.inputs if split.mask is None else split.inputs[~split.mask]
        if np.issubdtype(there.dtype, np.floating) and not np.isfinite(there).all():
            raise DataError(f"{where}: some inputs are NaN or infinite")
        if self.num_tokens is not None:
            check_range(f"{where}: token", split.inputs, 0, self.num_tokens - 1, "num_tokens")
        if split.lengths is not None:
            if split.lengths.shape != (len(split), *expected[: int(self.pairs)]):
                raise DataError(f"{where}: lengths have shape {split.lengths.shape} for {len(split)} examples")
            check_range(f"{where}: sequence length", split.lengths, 1, self.length, "length")

    def _check_labels(self, where: str, labels: np.ndarray, weights: np.ndarray | None) -> None:
        given, steps = f"{labels.dtype} {labels.shape}", (self.length,) if self.per_step else ()
        words = ", ".join(["N", *map(str, steps)])
        if self.targets:
            if labels.shape != (len(labels), *steps, self.targets) or not np.issubdtype(labels.dtype, np.floating):
                raise DataError(f"{where}: labels must be floats of shape ({words}, {self.targets}), got {given}")
            if not np.isfinite(labels if weights is None else labels[weights > 0]).all():
                raise DataError(f"{where}: some labels are NaN or infinite")
        else:
            if labels.shape != (len(labels), *steps) or not np.issubdtype(labels.dtype, np.integer):
                words += "" if steps else ","
                raise DataError(f"{where}: labels must be integers of shape ({words}), got {given}")
            check_range(f"{where}: label", labels, 0, self.num_classes - 1, "num_classes")


def check_range(what: str, values: np.ndarray, low: int, high: int, bound: str) -> None:
    """Raises DataError where an integer lies outside low..high, which follow from the task's `bound`."""
    if values.size and (values.min() < low or values.max() > high):
        at = tuple(np.argwhere((values < low) | (values > high))[0])
        raise DataError(f"{what} {values[at]} of example {at[0]} is outside {low}..{high} (see the task's {bound})")
