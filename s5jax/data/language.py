"""Texts as sequences of tokens, for language modelling."""

import hashlib
import pathlib
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Integer

from s5jax.data.task import DataError, Split, Task

UNKNOWN = "\ufffd"
"""The sign that stands for characters outside the vocabulary: token 0."""


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
    if vocabulary is not None:
        facts["vocabulary"] = vocabulary if isinstance(vocabulary, str) else list(vocabulary)
    sizes: dict[str, Any] = {"length": context, "num_classes": num_tokens, "num_tokens": num_tokens}
    kind: dict[str, Any] = {"per_step": True, "consecutive": True, "objective": "next_token", "judge": ("loss", "min")}
    return Task(name, splits, facts=facts, **sizes, **kind)


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
    """Token ids of a text, by the `facts` of a task. If tokens are words, the text is split at white space.

    Raises:
      DataError: a character or word is not in the vocabulary.
    """
    vocabulary, unit = facts.get("vocabulary"), facts["unit"]
    if vocabulary is None:
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32)
    numbers = {token: i for i, token in enumerate(vocabulary) if token != UNKNOWN}
    parts: Sequence[str] = text.split() if unit == "word" else text
    for part in parts:
        if part not in numbers:
            raise DataError(f"the {unit} {part!r} is not in the vocabulary of the run, which has {len(numbers):,}")
    return np.array([numbers[part] for part in parts], np.int32)


def decode(tokens: Integer[np.ndarray, " tokens"], facts: Mapping[str, Any]) -> str:
    """The text that tokens stand for; bytes that are not UTF-8 are shown as \\ufffd."""
    vocabulary = facts.get("vocabulary")
    if vocabulary is None:
        return np.asarray(tokens, np.uint8).tobytes().decode(errors="replace")
    return "".join(f" {vocabulary[i]}" if facts["unit"] == "word" else vocabulary[i] for i in tokens)


def mahoney_task(name: str, options: Any, algorithm: str, digest: str, vocabulary: str | None = None) -> Task:
    """enwik8 or text8, with a hash of the official file: 90 % of it train, 5 % validate, 5 % test.

    Without a vocabulary, tokens are bytes. Raises DataError: see `read_official`; or other characters occur.
    """
    text = read_official(options, name, f"{name}.zip", f"http://mattmahoney.net/dc/{name}.zip", algorithm, digest)
    tokens, unit = np.frombuffer(text, np.uint8), "byte"
    if vocabulary is not None:
        table, unit = np.zeros(256, np.uint8), "character"
        table[list(vocabulary[1:].encode())] = np.arange(1, len(vocabulary))
        tokens = table[tokens]
        if not tokens.all():
            raise DataError(f"{options.path} has other characters than a to z and space")
    parts = np.split(tokens, [len(text) * 90 // 100, len(text) * 95 // 100])
    texts = dict(zip(("train", "val", "test"), parts, strict=True))
    return language_task(name, texts, options.context, vocabulary, unit=unit, sha256=hashlib.sha256(text).hexdigest())


def read_official(options: Any, name: str, archive: str, where: str, algorithm: str, digest: str) -> bytes:
    """A published text, from the file itself or from its zip archive.

    Args:
      options: `path` is the file, the archive, or the folder of either; with `any_file` any file is taken.
      name: of the file within the archive; outside of it, its last part.
      archive, where: name of the archive, and its address.
      algorithm, digest: a hash of the official file, by its name in hashlib.

    Raises:
      DataError: it is not there, cannot be read, or is not the official one.
    """
    given, short = pathlib.Path(options.path).expanduser(), pathlib.Path(name).name
    places = [given, given / short, given / archive, given.with_name(archive)]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise DataError(f"{options.path} holds neither {short} nor {archive}: get the archive from {where}")
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as stored:
                text = stored.read(name)
        else:
            text = file.read_bytes()
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    if not options.any_file and hashlib.new(algorithm, text).hexdigest() != digest:
        fault = f"{file} is not the official {short}: {len(text):,} bytes, whose {algorithm.upper()} differs"
        raise DataError(f"{fault} (--config.task.any_file=true takes it nevertheless)")
    return text
