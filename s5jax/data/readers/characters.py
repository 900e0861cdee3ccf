"""Texts as sequences of characters, numbered by a vocabulary as the published S4 and S5 code makes it."""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int, UInt8, UInt32

from s5jax.data.prepare import batched
from s5jax.data.store import Format
from s5jax.data.task import DataError

CODE_POINTS = 0x110000

PAD, UNKNOWN, EOS = 0, 1, 2
"""Tokens before those of the characters: padding, characters outside the vocabulary, the end of a text."""


def vocabulary(texts: Iterable[str], format: Format, min_frequency: int = 1) -> str:
    """Counts the characters of the training texts of a task; of each text only the first L - 1 count.

    Args:
      texts: the texts.
      format: of the task; it has L, the length of the sequences, and the number of tokens.
      min_frequency: characters that occur less often are left out.

    Returns:
      The characters of tokens 3, 4, ...: the most frequent first, then by code point.

    Raises:
      DataError: there are more characters than tokens.
    """
    counts = np.zeros(CODE_POINTS, np.int64)
    for some in batched((text[: format.length - 1] for text in texts), 1024):
        counts += np.bincount(_code_points("".join(some)), minlength=CODE_POINTS)
    kept = np.flatnonzero(counts >= min_frequency)
    room = (format.num_tokens or 0) - EOS - 1
    if len(kept) > room:
        fault = f"{len(kept)} different characters in training, more than the {room} of the official files"
        raise DataError(f"{format.name}: {fault}; get these from {format.address}")
    return "".join(map(chr, kept[np.argsort(-counts[kept], kind="stable")]))


def encode(
    texts: Sequence[str], characters: str, length: int
) -> tuple[UInt8[np.ndarray, "N L"], Int[np.ndarray, " N"]]:
    """Encodes N texts.

    Args:
      texts: of each, the first L - 1 characters are taken; then comes the end token, then padding.
      characters: of tokens 3, 4, ...
      length: L.

    Returns:
      The tokens, and the number of tokens of each text, its end included.
    """
    tokens = np.full((len(texts), length), PAD, np.uint8)
    lengths = np.empty(len(texts), np.int32)
    number = np.full(CODE_POINTS, UNKNOWN, np.uint8)
    number[_code_points(characters)] = np.arange(EOS + 1, EOS + 1 + len(characters))
    for i, text in enumerate(texts):
        points = _code_points(text[: length - 1])
        tokens[i, : len(points)] = number[points]
        tokens[i, len(points)] = EOS
        lengths[i] = len(points) + 1
    return tokens, lengths


def _code_points(text: str) -> UInt32[np.ndarray, " characters"]:
    return np.frombuffer(text.encode("utf-32-le"), "<u4")
