"""Text of the Long Range Arena: film reviews of IMDB, good or bad, character by character (arXiv 2011.04006, 2.2.2).

The Large Movie Review Dataset (A. Maas et al., 2011), 25,000 reviews for training and 25,000 for testing. L = 4096, the
first 4,095 characters and an end token. The vocabulary is that of the published code: the characters that occur at
least 15 times in training. Its one-hot input is 135 wide, one more than are used.

The published models were selected on the test set. Here a tenth of the training reviews validates instead, drawn by
torch's random_split with seed 42; `val_split=0` does as published. (The vocabulary counts all training reviews.)
"""

import dataclasses
import functools
import pathlib

import numpy as np
from tqdm import tqdm

from s5jax.data import official
from s5jax.data.characters import check_vocabulary, encode, vocabulary
from s5jax.data.preparation import Plan, Request
from s5jax.data.random_split import random_split
from s5jax.data.store import Arrays, Format, Stored
from s5jax.data.task import DataError, Task

FORMAT = Format(
    name="text",
    sizes={"train": 25_000, "test": 25_000},
    length=4096,
    num_classes=2,
    num_tokens=135,
    padded=True,
    dtype="uint8",
    files="aclImdb/{train,test}/{neg,pos}/*.txt, or aclImdb_v1.tar.gz",
    address="https://ai.stanford.edu/~amaas/data/sentiment/",
    tfds=("imdb_reviews", "."),
    classes={"train": (12_500, 12_500), "test": (12_500, 12_500)},
    characters=131,
)
MIN_FREQUENCY = 15
PIECE = 2500


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    val_split: float = 0.1
    """Share of the training reviews that validates instead; 0: the test set does, as published."""

    def __post_init__(self) -> None:
        if not 0 <= self.val_split < 1:
            raise ValueError(f"val_split must lie in [0, 1), got {self.val_split}")


def plan(request: Request) -> Plan:
    folder = official.find(request.data_dir, ["aclImdb"], ["aclImdb_v1.tar.gz"])
    if folder is None:
        raise official.missing(FORMAT, request.data_dir)
    reviews: dict[str, list[pathlib.Path]] = {}
    for split in ("train", "test"):
        for label in ("neg", "pos"):
            found = sorted((folder / split / label).glob("*.txt"))
            if not found:
                raise official.missing(FORMAT, request.data_dir, f"{folder / split / label} has no *.txt; not all")
            reviews.setdefault(split, []).extend(found)
    training = tqdm(reviews["train"], desc="vocabulary", unit=" reviews", disable=None, leave=False)
    characters = vocabulary(map(_read, training), FORMAT.length, MIN_FREQUENCY)
    check_vocabulary(characters, FORMAT)
    return Plan(
        pieces={
            split: [
                functools.partial(_encode_files, paths[i : i + PIECE], characters) for i in range(0, len(paths), PIECE)
            ]
            for split, paths in reviews.items()
        },
        origin=f"IMDB reviews from {folder}, {len(characters)} characters",
        sources=reviews["train"] + reviews["test"],
        facts={"characters": "".join(characters), "classes": ["neg", "pos"]},
    )


def load(stored: Stored, options: Options) -> Task:
    train, test = stored.splits["train"], stored.splits["test"]
    if options.val_split == 0:
        splits = {"train": train, "val": test, "test": test}
    else:
        kept = round(len(train) * (1 - options.val_split))
        if kept in (0, len(train)):
            raise DataError(f"text: val_split {options.val_split} of {len(train)} reviews leaves one part without any")
        parts = random_split(len(train), [kept, len(train) - kept], seed=42)
        splits = {"train": train.select(parts[0]), "val": train.select(parts[1]), "test": test}
    return Task(name="text", splits=splits, length=FORMAT.length, num_classes=2, num_tokens=FORMAT.num_tokens)


def _encode_files(paths: list[pathlib.Path], characters: list[str]) -> Arrays:
    tokens, lengths = encode([_read(path) for path in paths], characters, FORMAT.length)
    labels = np.array([path.parent.name == "pos" for path in paths], np.int32)
    return Arrays(tokens, labels, lengths)


def _read(path: pathlib.Path) -> str:
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text ({error}): get the official files anew") from error
