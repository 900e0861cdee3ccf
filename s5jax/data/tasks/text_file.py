"""Language modelling on any text file: each token is predicted from those before it.

    --config.task.path=book.txt

Tokens are the file's bytes, or its characters (UTF-8). The first part of the text trains, the next one validates, the
last one tests, unless other files are given for these. Each split is cut into consecutive sequences of L = `context`
tokens: tokens k L to k L + L - 1 are the inputs of sequence k, tokens k L + 1 to k L + L are its labels. The last
sequence may be shorter; it is padded.

The vocabulary of characters is that of the training text, the most frequent first, behind token 0, which stands for any
other character of a validation or test text.
"""

import dataclasses
import hashlib
import pathlib
from typing import Any, Literal

import numpy as np
from jaxtyping import Integer

from s5jax.data.language import UNKNOWN, language_task
from s5jax.data.task import DataError, Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    path: str = ""
    """The text."""
    tokens: Literal["bytes", "characters"] = "bytes"
    context: int = 256
    """L, tokens of a sequence."""
    val_share: float = 0.05
    """Share of the text that validates; unused with `val_path`."""
    test_share: float = 0.05
    """Share of the text, its end, that tests; unused with `test_path`."""
    val_path: str = ""
    """Another text that validates."""
    test_path: str = ""
    """Another text that tests."""

    def __post_init__(self) -> None:
        if self.context < 1:
            raise ValueError(f"context must be at least 1, got {self.context}")
        for name in ("val_share", "test_share"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must lie between 0 and 1, got {getattr(self, name)}")
        if self.val_share + self.test_share >= 1:
            raise ValueError(f"val_share {self.val_share} and test_share {self.test_share} leave nothing to train on")


def load(options: Options) -> Task:
    """The task of a text.

    Raises:
      DataError: a file is missing; its characters are not UTF-8; or a split has no more tokens than the context.
    """
    if not options.path:
        raise DataError("task text_file needs a text: --config.task.path=FILE")
    paths = {"train": options.path, "val": options.val_path, "test": options.test_path}
    raw = {name: _read(path) for name, path in paths.items() if path}
    digest = hashlib.sha256(b"".join(hashlib.sha256(text).digest() for text in raw.values())).hexdigest()
    texts: dict[str, Any] = {name: np.frombuffer(text, np.uint8) for name, text in raw.items()}
    if options.tokens == "characters":
        texts = {name: _code_points(text, paths[name]) for name, text in raw.items()}
    total = rest = len(texts["train"])
    for name, share in (("test", options.test_share), ("val", options.val_share)):
        if name not in texts:
            kept = rest - round(share * total)
            texts[name], rest = texts["train"][kept:rest], kept
    texts["train"] = texts["train"][:rest]
    vocabulary = None
    if options.tokens == "characters":
        points, counts = np.unique(texts["train"], return_counts=True)
        points = points[np.argsort(-counts, kind="stable")]
        vocabulary = UNKNOWN + "".join(map(chr, points))
        table = np.zeros(0x110000, np.int32)
        table[points] = np.arange(1, len(points) + 1)
        texts = {name: table[text] for name, text in texts.items()}
    for name, text in texts.items():
        if len(text) <= options.context:
            where = paths[name] or f"{options.path}, the part for {name}"
            fault = f"{len(text):,} {options.tokens}, not more than the context of {options.context}"
            raise DataError(f"{where} has {fault}: give a longer text, or a smaller --config.task.context")
    unit = options.tokens.removesuffix("s")
    return language_task("text_file", texts, options.context, vocabulary, unit=unit, sha256=digest)


def _read(path: str) -> bytes:
    try:
        return pathlib.Path(path).expanduser().read_bytes()
    except OSError as error:
        raise DataError(f"text {path} cannot be read: {error.strerror}") from error


def _code_points(text: bytes, path: str) -> Integer[np.ndarray, " characters"]:
    try:
        return np.frombuffer(text.decode().encode("utf-32-le"), np.uint32)
    except UnicodeDecodeError as error:
        raise DataError(f"text {path} is not UTF-8 ({error}): use --config.task.tokens=bytes") from error
