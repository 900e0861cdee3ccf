"""Text of the Long Range Arena: film reviews of IMDB, good or bad, character by character (arXiv 2011.04006, 2.2.2).

The Large Movie Review Dataset (A. Maas et al., 2011), 25,000 reviews for training and 25,000 for testing. L = 4096, the
first 4,095 characters and an end token. The vocabulary is that of the published code: the characters that occur at
least 15 times in training. Its one-hot input is 135 wide, one more than are used.

The published models were selected on the test set. Here a tenth of the training reviews, drawn by torch's random_split
with seed 42, is the validation split; `val_split=0` does as published. (The vocabulary counts all training reviews.)

Reviews are in the order of their official file names, negative ones first. From a TFDS directory they are in its order,
and other reviews validate.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator

import numpy as np
from tqdm import tqdm

from s5jax.data.prepare import Plan, Request, batched
from s5jax.data.readers import official, tfds
from s5jax.data.readers.characters import encode, vocabulary
from s5jax.data.splits import random_split
from s5jax.data.store import Format, Stored
from s5jax.data.task import DataError, Split, Task

FORMAT = Format(
    name="text",
    sizes={"train": 25_000, "test": 25_000},
    length=4096,
    num_classes=2,
    num_tokens=135,
    padded=True,
    dtype="uint8",
    files="aclImdb/{train,test}/{neg,pos}/*.txt or aclImdb_v1.tar.gz",
    address="https://ai.stanford.edu/~amaas/data/sentiment/",
    downloads={  # sum: tensorflow_datasets 4.9.10, datasets/imdb_reviews/checksums.tsv
        "aclImdb_v1.tar.gz": (
            "http://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
            "sha256:c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe",
        )
    },
    tfds="imdb_reviews/plain_text",
    classes={"train": (12_500, 12_500), "test": (12_500, 12_500)},
    characters=131,
)
MIN_FREQUENCY = 15
REVIEWS_PER_PART = 2500


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    val_split: float = 0.1
    """Share of the training reviews in the validation split; 0: the test split validates, as published."""

    def __post_init__(self) -> None:
        if not 0 <= self.val_split < 1:
            raise ValueError(f"val_split must lie in [0, 1), got {self.val_split}")


def plan(request: Request) -> Plan:
    """Reads the official files or a TFDS directory, and counts the characters of the training reviews."""
    reads: dict[str, Callable[[], Iterator[tuple[str, int]]]]
    files: dict[str, list[pathlib.Path]] = {"train": [], "test": []}
    if request.tfds_dir:
        where = f"TFDS directory {request.tfds_dir / 'imdb_reviews'}"
        reads = {split: functools.partial(_read_tfds, request.tfds_dir, split) for split in files}
    else:
        folders = [f"{split}/{label}" for split in files for label in ("neg", "pos")]
        root = official.find(FORMAT, request.data_dir, ["aclImdb"], folders, ["aclImdb_v1.tar.gz"])
        where = str(root)
        for folder in folders:
            found = sorted((root / folder).glob("*.txt"))
            if not found:
                raise official.missing(FORMAT, request.data_dir, f"{root / folder} has no *.txt")
            files[folder.partition("/")[0]] += found
        reads = {split: functools.partial(_read_files, some) for split, some in files.items()}
    training = tqdm(reads["train"](), "vocabulary", unit=" reviews", disable=None, leave=False)
    characters = vocabulary((review for review, _ in training), FORMAT, MIN_FREQUENCY)
    encode_some = functools.partial(_encode, characters)
    return Plan(
        parts={split: map(encode_some, batched(read(), REVIEWS_PER_PART)) for split, read in reads.items()},
        origin=f"IMDB reviews from {where}, {len(characters)} characters",
        sources=files["train"] + files["test"],
        facts={"characters": characters, "classes": ["neg", "pos"]},
    )


def load(stored: Stored, options: Options) -> Task:
    """The task from its store."""
    train, test = stored.splits["train"], stored.splits["test"]
    if options.val_split == 0:
        return FORMAT.task({"train": train, "val": test, "test": test})
    kept = round(len(train) * (1 - options.val_split))
    if kept in (0, len(train)):
        raise DataError(f"text: val_split {options.val_split} of {len(train)} reviews leaves a split empty")
    parts = random_split(len(train), [kept, len(train) - kept], seed=42)
    return FORMAT.task({"train": train.select(parts[0]), "val": train.select(parts[1]), "test": test})


def _encode(characters: str, reviews: list[tuple[str, int]]) -> Split:
    tokens, lengths = encode([text for text, _ in reviews], characters, FORMAT.length)
    return Split(tokens, np.array([label for _, label in reviews], np.int32), lengths)


def _read_files(files: list[pathlib.Path]) -> Iterator[tuple[str, int]]:
    for file in files:
        try:
            yield file.read_bytes().decode(), file.parent.name == "pos"
        except UnicodeDecodeError as error:
            raise DataError(f"{file}: not UTF-8 text ({error}); get the official files again") from error


def _read_tfds(tfds_dir: pathlib.Path, split: str) -> Iterator[tuple[str, int]]:
    for example in tfds.examples(tfds_dir, "imdb_reviews/plain_text", split):
        yield example["text"].decode(), int(example["label"])
