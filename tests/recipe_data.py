"""Random examples in the form of a recipe's data, for the recorded losses in tests/reference/recipes_losses.json.

Nothing here depends on what the program calls a task: the facts of each are written down beside the losses.
"""

from collections.abc import Mapping

import numpy as np

STEPS = 24
"""Length of the sequences, whatever the recipe's own is."""


def examples(
    *,
    sizes: Mapping[str, int],
    dtype: str,
    length: int = STEPS,
    channels: int = 1,
    num_tokens: int | None = None,
    num_classes: int = 0,
    targets: int = 0,
    pairs: bool = False,
    lengths: bool = False,
) -> dict[str, dict[str, np.ndarray]]:
    """The same examples every time, split by split: "inputs", "labels" and, if sequences are padded, "lengths".

    Args:
      sizes: examples of each split, in the order in which they are drawn.
      dtype: of the stored inputs. Integers lie in 0..99, or are token ids; floats have a normal distribution.
      length: L, steps of each sequence.
      channels: values of each step. Token ids have no such axis.
      num_tokens: inputs are token ids below it; `None`: they are values.
      num_classes: labels are integers below it; 0: a regression.
      targets: numbers that a regression predicts, in 0..1; labels are float32 (N, targets).
      pairs: an example is a pair of sequences: inputs (N, 2, L[, channels]), lengths (N, 2).
      lengths: sequences are padded: 1..L steps of each are valid. (What comes after them is as random.)
    """
    random = np.random.RandomState(0)  # a stream that NumPy promises never to change
    splits = {}
    for name, size in sizes.items():
        sequences = (size, 2) if pairs else (size,)
        shape = (*sequences, length) if num_tokens is not None else (*sequences, length, channels)
        if np.issubdtype(dtype, np.floating):
            inputs = random.standard_normal(shape)
        else:
            inputs = random.randint(0, num_tokens or 100, shape, np.int64)
        split = {"inputs": inputs.astype(dtype)}
        if lengths:
            split["lengths"] = random.randint(1, length + 1, sequences, np.int64)
        if targets:
            split["labels"] = random.uniform(size=(size, targets)).astype(np.float32)
        else:
            split["labels"] = random.randint(0, num_classes, size, np.int64)
        splits[name] = split
    return splits
