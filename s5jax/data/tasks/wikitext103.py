"""WikiText-103: 103 million words of good Wikipedia articles (Merity, Xiong, Bradbury, Socher 2016, arXiv 1609.07843).

Each word is predicted from those before it. Words are what blanks separate, and <eos> ends each line, as in the
Transformer-XL code; the vocabulary is that of the training text, 267,735 words, the most frequent first. Scores are
perplexities of the three official files. Reading them takes a minute or two; the result is kept in tokens.npz beside
them.
"""

import dataclasses
import hashlib
import os
import pathlib
from collections import Counter

import numpy as np
from tqdm import tqdm

from s5jax.data.language import language_task, read_official
from s5jax.data.task import Task

SHA1 = {
    "train": "b7497e2dfe77e72cfef5e3dbc61b7b53712ac211",
    "valid": "c326ac59dc587676d58c422eb8a03e119582f92b",
    "test": "8a5befc548865cec54ed4273cf87dbbad60d1e47",
}
UNKNOWN, END = "<unk>", "<eos>"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    path: str = "data/wikitext-103"
    """The folder of wiki.train.tokens, wiki.valid.tokens and wiki.test.tokens, or of wikitext-103-v1.zip."""
    context: int = 512
    """L, words of a sequence."""
    any_file: bool = False
    """Take files that are not the official ones, too."""


def load(options: Options) -> Task:
    path, texts = pathlib.Path(options.path).expanduser(), {}
    for part, sha1 in SHA1.items():
        places = f"wikitext-103/wiki.{part}.tokens", "wikitext-103-v1.zip", "a copy, as its first address is gone"
        texts[part] = read_official(options, *places, "sha1", sha1)
    digest = hashlib.sha256(b"".join(hashlib.sha256(text).digest() for text in texts.values())).hexdigest()
    kept, found = (path if path.is_dir() else path.parent) / "tokens.npz", {}
    if kept.is_file():
        with np.load(kept) as stored:
            found = dict(stored) if str(stored["sha256"]) == digest else {}
    if not found:
        found = {**_tokens(texts), "sha256": np.array(digest)}
        temporary = kept.with_name(f".{os.getpid()}.tokens.npz")
        np.savez(temporary, **found)
        temporary.replace(kept)
    tokens = {"train": found["train"], "val": found["valid"], "test": found["test"]}
    return language_task("wikitext103", tokens, options.context, found["words"].tolist(), unit="word", sha256=digest)


def _tokens(texts: dict[str, bytes]) -> dict[str, np.ndarray]:
    """Token ids of each text, and the "words" that they stand for."""
    lines = {name: text.decode().splitlines() for name, text in texts.items()}
    counts: Counter[str] = Counter({UNKNOWN: 0, END: len(lines["train"])})
    for line in tqdm(lines["train"], desc="vocabulary", unit=" lines", disable=None, leave=False):
        counts.update(line.split())
    words = sorted(counts, key=lambda word: (-counts[word], word))
    number, tokens = {word: i for i, word in enumerate(words)}, {"words": np.array(words)}
    unknown, end = number[UNKNOWN], number[END]
    for name, some in lines.items():
        read = tqdm(some, desc=name, unit=" lines", disable=None, leave=False)
        parts = [np.array([*(number.get(word, unknown) for word in line.split()), end], np.int32) for line in read]
        tokens[name] = np.concatenate(parts)
    return tokens
