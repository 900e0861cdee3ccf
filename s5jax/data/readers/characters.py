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
    """The characters of tokens 3, 4, ...: the most frequent in the training texts first, then by code point.

    Of each text only the first L - 1 characters count. Those that occur less often than `min_frequency` are left out.
    Raises DataError if there are more than the format has tokens for.
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
    """The tokens of N texts, and the number of tokens of each.

    They are those of the first L - 1 characters and the end token, which counts; then comes padding to the length L.
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
