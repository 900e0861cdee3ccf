"""Checks of examples that were read, and counts of them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from s5jax.data.store import Arrays, Format
from s5jax.data.task import DataError, check_range

__all__ = ["Summary", "unexpected", "validate"]


class Summary:
    """Counts of the examples of a split: classes, lengths, sums of values."""

    def __init__(self, format: Format):
        self.format = format
        self.classes = np.zeros(format.num_classes, np.int64)
        self.lengths: list[np.ndarray] = []
        self.sums = np.zeros(format.channels, np.int64)
        self.squares = np.zeros(format.channels, np.int64)

    @property
    def examples(self) -> int:
        return int(self.classes.sum())

    def add(self, arrays: Arrays) -> None:
        """Counts more examples."""
        self.classes += np.bincount(arrays.labels, minlength=self.format.num_classes)
        if arrays.lengths is not None:
            self.lengths.append(arrays.lengths.ravel())
        if self.format.num_tokens is None:
            for example in arrays.inputs:  # one by one: squares of all at once would take eight times their memory
                self.sums += example.sum(0, dtype=np.int64)
                self.squares += np.square(example, dtype=np.int64).sum(0)

    def statistics(self) -> dict[str, Any]:
        """Mean and standard deviation of values as stored, padding included; lists where there are several channels.

        Empty for tokens.
        """
        if self.format.num_tokens is not None:
            return {}
        steps = max(self.examples, 1) * self.format.length
        mean = self.sums / steps
        std = np.sqrt(self.squares / steps - mean**2)
        single = self.format.channels == 1
        return {name: float(x[0]) if single else x.tolist() for name, x in (("mean", mean), ("std", std))}

    def describe(self, split: str) -> str:
        """The counts in one line."""
        least, most = self.classes.min(), self.classes.max()
        line = f"{split}: {self.examples:,} examples, {least:,}"
        line += f" to {most:,} of each class" if most > least else " of each class"
        if self.lengths:
            lengths = np.concatenate(self.lengths)
            line += f", lengths {lengths.min()} to {lengths.max()}, mean {lengths.mean():.1f}"
        if self.format.num_tokens is None:
            for name, value in self.statistics().items():
                line += f", {name} " + " ".join(f"{x:.4g}" for x in np.atleast_1d(value))
        return line


def validate(arrays: Arrays, format: Format, where: str) -> None:
    """Checks arrays against a format.

    Args:
      arrays: some examples.
      format: of their task.
      where: beginning of the error message.

    Raises:
      DataError: a shape, a type or a value does not fit.
    """
    inputs, labels, lengths = arrays
    shape = (len(labels), *format.example_shape())
    if inputs.dtype != format.dtype or inputs.shape != shape:
        raise DataError(f"{where}: inputs are {inputs.dtype} {inputs.shape}, not {format.dtype} {shape}")
    if (lengths is not None) != format.padded:
        raise DataError(f"{where}: lengths are {'missing' if format.padded else 'given, but nothing is padded'}")
    check_range(f"{where}: label", labels, 0, format.num_classes - 1, "number of classes")
    if format.num_tokens is not None:
        check_range(f"{where}: token", inputs, 0, format.num_tokens - 1, "vocabulary")
    if lengths is not None:
        check_range(f"{where}: length", lengths, 1, format.length, "length")


def unexpected(format: Format, summaries: Mapping[str, Summary], facts: Mapping[str, Any]) -> list[str]:
    """Compares examples with what the official files hold.

    Args:
      format: says what the official files hold.
      summaries: of each split.
      facts: of the plan; "characters" is a text's vocabulary.

    Returns:
      A line for each difference.
    """
    wrong = []
    for split, expected in format.sizes.items():
        found = summaries[split].examples if split in summaries else 0
        if found != expected and (split not in format.unverified or not found):
            wrong.append(
                f"{split} has {found:,} examples, the official files {expected:,}: files are missing or cut off"
                f" (--subset accepts fewer; {format.address})"
            )
        elif split in format.classes and summaries[split].classes.tolist() != list(format.classes[split]):
            wrong.append(
                f"{split} has {summaries[split].classes.tolist()} examples of each class, the official files"
                f" {list(format.classes[split])}: these are other data"
            )
    characters = len(facts.get("characters", ""))
    if format.characters is not None and characters != format.characters:
        wrong.append(
            f"the texts have {characters} different characters, the official ones {format.characters}:"
            " these are other data"
        )
    return wrong
