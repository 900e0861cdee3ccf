"""Texts as sequences of tokens, for language modelling."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Integer

from s5jax.data.task import DataError, Split, Task

__all__ = ["UNKNOWN", "blank", "decode", "encode", "language_task"]

UNKNOWN = "\ufffd"
"""What a character outside the vocabulary is shown as: token 0."""


def language_task(
    name: str,
    texts: Mapping[str, Integer[np.ndarray, " tokens"]],
    context: int,
    vocabulary: Sequence[str] | None,
    *,
    unit: str,
    sha256: str,
) -> Task:
    """The task of predicting each token of some texts.

    Args:
      name: of the task.
      texts: token ids of the splits train, val and test.
      context: L, tokens of a sequence.
      vocabulary: what each token stands for; `None`: tokens are bytes.
      unit: what a token is: "byte", "character" or "word".
      sha256: of the files that the texts were read from.
    """
    num_tokens = 256 if vocabulary is None else len(vocabulary)
    splits = {split: _cut(texts[split], context, num_tokens) for split in ("train", "val", "test")}
    facts: dict[str, Any] = {"sha256": sha256, "unit": unit, "num_tokens": num_tokens}
    facts["examples"] = {split: len(examples) for split, examples in splits.items()}
    if vocabulary is not None:
        facts["vocabulary"] = "".join(vocabulary) if unit == "character" else list(vocabulary)
    return _task(name, splits, context, facts)


def blank(name: str, context: int, facts: Mapping[str, Any]) -> Task:
    """A task with the `facts` of another, whose texts are zeros and take no memory: enough to build its model."""
    zeros = {split: np.broadcast_to(np.uint8(0), (size, context)) for split, size in facts["examples"].items()}
    return _task(name, {split: Split(zero, zero) for split, zero in zeros.items()}, context, facts)


def _task(name: str, splits: Mapping[str, Split], context: int, facts: Mapping[str, Any]) -> Task:
    return Task(
        name=name,
        splits=splits,
        length=context,
        num_classes=facts["num_tokens"],
        num_tokens=facts["num_tokens"],
        per_step=True,
        consecutive=True,
        objective="next_token",
        judge=("loss", "min"),
        facts=facts,
    )


def _cut(tokens: Integer[np.ndarray, " tokens"], L: int, num_tokens: int) -> Split:
    """Consecutive sequences of L tokens with the tokens that follow as labels; the last one may be padded."""
    kind = np.uint8 if num_tokens <= 256 else np.uint16 if num_tokens <= 65536 else np.int32
    steps = len(tokens) - 1
    count = -(-steps // L)
    inputs, labels = np.zeros((2, count * L), kind)
    inputs[:steps], labels[:steps] = tokens[:-1], tokens[1:]
    lengths = np.full(count, L, np.int32)
    lengths[-1] = steps - (count - 1) * L
    return Split(inputs.reshape(count, L), labels.reshape(count, L), None if steps == count * L else lengths)


def encode(text: str, facts: Mapping[str, Any]) -> Integer[np.ndarray, " tokens"]:
    """Token ids of a text, by the `facts` of a task.

    Raises:
      DataError: a character is not in the vocabulary.
    """
    vocabulary = facts.get("vocabulary")
    if vocabulary is None:
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32)
    numbers = {character: i for i, character in enumerate(vocabulary) if i}
    unknown = sorted(set(text) - numbers.keys())
    if unknown:
        raise DataError(f"the character {unknown[0]!r} is not in the vocabulary of the run, which has {len(numbers)}")
    return np.array([numbers[character] for character in text], np.int32)


def decode(tokens: Integer[np.ndarray, " tokens"], facts: Mapping[str, Any]) -> str:
    """The text that tokens stand for; bytes that are not UTF-8 are shown as \\ufffd."""
    vocabulary = facts.get("vocabulary")
    if vocabulary is None:
        return np.asarray(tokens, np.uint8).tobytes().decode(errors="replace")
    return "".join(vocabulary[token] for token in tokens)
