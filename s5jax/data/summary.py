"""Checks of the examples of a split, and what is counted of them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from s5jax.data.store import Format
from s5jax.data.task import DataError, Split, check_range


class Summary:
    """Counts the examples of a split: classes, lengths, sums of values."""

    def __init__(self, format: Format):
        self.format = format
        self.classes = np.zeros(format.num_classes, np.int64)
        self.lengths: list[np.ndarray] = []
        self.sums, self.squares = np.zeros((2, format.channels), np.int64)

    @property
    def examples(self) -> int:
        return int(self.classes.sum())

    def add(self, some: Split, where: str) -> None:
        """Counts examples. Raises DataError, which begins with `where`, if they do not fit the format."""
        inputs, labels, lengths, format = some.inputs, some.labels, some.lengths, self.format
        shape = (len(labels), *format.example_shape())
        if inputs.dtype != format.dtype or inputs.shape != shape:
            raise DataError(f"{where}: inputs are {inputs.dtype} {inputs.shape}, not {format.dtype} {shape}")
        if (lengths is not None) != format.padded:
            raise DataError(f"{where}: lengths are {'missing' if format.padded else 'given, but nothing is padded'}")
        check_range(f"{where}: label", labels, 0, format.num_classes - 1, "number of classes")
        self.classes += np.bincount(labels, minlength=format.num_classes)
        if lengths is not None:
            check_range(f"{where}: length", lengths, 1, format.length, "length")
            self.lengths.append(lengths.ravel())
        if format.num_tokens is not None:
            check_range(f"{where}: token", inputs, 0, format.num_tokens - 1, "vocabulary")
        else:
            self.sums += inputs.sum((0, 1), dtype=np.int64)
            self.squares += np.einsum("nlc,nlc->c", inputs, inputs, dtype=np.int64)  # takes no memory for the squares

    def statistics(self) -> dict[str, Any]:
        """Mean and standard deviation of values as stored, padding included; lists where there are several channels.

        Empty for tokens.
        """
        if self.format.num_tokens is not None:
            return {}
        steps = self.examples * self.format.length
        mean = self.sums / steps
        std = np.sqrt(self.squares / steps - mean**2)
        single = self.format.channels == 1
        return {name: float(x[0]) if single else x.tolist() for name, x in (("mean", mean), ("std", std))}

    def describe(self, split: str) -> str:
        """The counts in one line."""
        least, most = self.classes.min(), self.classes.max()
        line = f"{split}: {self.examples:,} examples, {least:,}{f' to {most:,}' * bool(most > least)} of each class"
        if self.lengths:
            lengths = np.concatenate(self.lengths)
            line += f", lengths {lengths.min()} to {lengths.max()}, mean {lengths.mean():.1f}"
        for name, value in self.statistics().items():
            line += f", {name} " + " ".join(f"{x:.4g}" for x in np.atleast_1d(value))
        return line


def unexpected(format: Format, summaries: Mapping[str, Summary], facts: Mapping[str, Any]) -> list[str]:
    """The differences from what the official files hold, a line for each. `facts`: of the plan."""
    wrong = []
    for split, expected in format.sizes.items():
        found, classes = summaries[split].examples, summaries[split].classes.tolist()
        if found != expected and split not in format.unverified:
            wrong.append(
                f"{split} has {found:,} examples, the official files {expected:,}: files are missing or cut off"
                f" (--subset accepts fewer; {format.address})"
            )
        elif split in format.classes and classes != list(format.classes[split]):
            fault = f"examples of each class, the official files {list(format.classes[split])}: these are other data"
            wrong.append(f"{split} has {classes} {fault}")
    characters = len(facts.get("characters", ""))
    if format.characters is not None and characters != format.characters:
        fault = f"different characters, the official ones {format.characters}: these are other data"
        wrong.append(f"the texts have {characters} {fault}")
    return wrong
