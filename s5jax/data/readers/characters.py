"""Texts as sequences of characters, numbered by a vocabulary as the published S4 and S5 code makes it."""

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int, UInt8, UInt32

from s5jax.data.store import Format
from s5jax.data.task import DataError

__all__ = ["EOS", "PAD", "UNKNOWN", "check_vocabulary", "encode", "vocabulary"]

CODE_POINTS = 0x110000

PAD, UNKNOWN, EOS = 0, 1, 2
"""Tokens before those of the characters: padding, characters outside the vocabulary, the end of a text."""


def vocabulary(texts: Iterable[str], length: int, min_frequency: int = 1) -> list[str]:
    """Counts the characters of texts.

    Args:
      texts: the training texts.
      length: L, of the sequences; only the first L - 1 characters of a text count.
      min_frequency: characters that occur less often are left out.

    Returns:
      The characters of tokens 3, 4, ...: the most frequent first, then by code point.
    """
    counts = np.zeros(CODE_POINTS, np.int64)
    beginnings = (text[: length - 1] for text in texts)
    while some := list(itertools.islice(beginnings, 1024)):
        counts += np.bincount(_code_points("".join(some)), minlength=CODE_POINTS)
    kept = np.flatnonzero(counts >= max(min_frequency, 1))
    return [chr(point) for point in kept[np.argsort(-counts[kept], kind="stable")]]


def check_vocabulary(characters: Sequence[str], format: Format) -> None:
    """Checks that a task has a token for each character.

    Raises:
      DataError: there are too many characters.
    """
    assert format.num_tokens is not None
    if EOS + 1 + len(characters) > format.num_tokens:
        fault = f"{len(characters)} different characters in training, more than the {format.num_tokens - EOS - 1}"
        raise DataError(f"{format.name}: {fault} of the official files; get these from {format.address}")


def encode(
    texts: Sequence[str], characters: Sequence[str], length: int
) -> tuple[UInt8[np.ndarray, "N L"], Int[np.ndarray, " N"]]:
    """Encodes texts.

    Args:
      texts: N texts.
      characters: of tokens 3, 4, ...
      length: L; of each text the first L - 1 characters are taken, then comes the end token, then padding.

    Returns:
      The tokens, and the number of tokens of each text, its end included.
    """
    tokens = np.full((len(texts), length), PAD, np.uint8)
    lengths = np.empty(len(texts), np.int32)
    number = np.full(CODE_POINTS, UNKNOWN, np.uint8)
    number[[ord(character) for character in characters]] = np.arange(EOS + 1, EOS + 1 + len(characters))
    for i, text in enumerate(texts):
        points = _code_points(text[: length - 1])
        tokens[i, : len(points)] = number[points]
        tokens[i, len(points)] = EOS
        lengths[i] = len(points) + 1
    return tokens, lengths


def _code_points(text: str) -> UInt32[np.ndarray, " characters"]:
    return np.frombuffer(text.encode("utf-32-le"), "<u4")
