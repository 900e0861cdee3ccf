"""Retrieval of the Long Range Arena: is one paper related to another by citation? (arXiv 2011.04006, section 2.2.3)

Pairs of documents from the ACL Anthology Network, character by character. L = 4000 each, the first 3,999 characters and
an end token. The vocabulary is that of the published code, all characters of the beginnings of the training documents:
98 tokens.
"""

import functools
import pathlib
from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from s5jax.data.prepare import Plan, Request
from s5jax.data.readers import lines, official
from s5jax.data.readers.characters import check_vocabulary, encode, vocabulary
from s5jax.data.store import Arrays, Format, Stored
from s5jax.data.task import DataError, Task

FORMAT = Format(
    name="retrieval",
    sizes={"train": 147_086, "val": 18_090, "test": 17_437},
    unverified=("val", "test"),
    length=4000,
    num_classes=2,
    num_tokens=98,
    characters=95,
    pairs=True,
    padded=True,
    dtype="uint8",
    files="lra_release/lra_release/tsv_data/new_aan_pairs.{train,eval,test}.tsv or lra_release.gz",
    address=official.LRA_ADDRESS,
)
FOLDERS = (*(f"{folder}/tsv_data" for folder in official.LRA_FOLDERS), "aan", ".")
FILES = {"train": "new_aan_pairs.train.tsv", "val": "new_aan_pairs.eval.tsv", "test": "new_aan_pairs.test.tsv"}
COLUMNS = ("label", "id1", "id2", "text1", "text2")
LABELS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}


def plan(request: Request) -> Plan:
    """Reads the official files, and counts the characters of the training documents.

    Raises:
      DataError: files are missing or damaged, or hold other characters.
    """
    folder = official.find(FORMAT, request.data_dir, FOLDERS, list(FILES.values()), official.LRA_ARCHIVES)
    files = {split: folder / name for split, name in FILES.items()}
    characters = vocabulary(_training_documents(files["train"]), FORMAT.length)
    check_vocabulary(characters, FORMAT)
    return Plan(
        jobs={
            split: [functools.partial(_encode_lines, file, *some, characters) for some in lines.ranges(file)]
            for split, file in files.items()
        },
        origin=f"documents of the ACL Anthology Network from {folder}, {len(characters)} characters",
        sources=list(files.values()),
        facts={"characters": "".join(characters)},
    )


def load(stored: Stored) -> Task:
    """The task from its store."""
    return Task(
        name="retrieval",
        splits=stored.splits,
        length=FORMAT.length,
        num_classes=2,
        num_tokens=FORMAT.num_tokens,
        pairs=True,
    )


def _training_documents(file: pathlib.Path) -> Iterator[str]:
    for some in tqdm(lines.ranges(file), "vocabulary", unit=" parts", disable=None, leave=False):
        for _, *texts in _pairs(file, *some):
            yield from texts


def _encode_lines(file: pathlib.Path, begin: int, end: int, characters: list[str]) -> Arrays:
    """The pairs on the lines that begin in a range of bytes."""
    pairs = list(_pairs(file, begin, end))
    tokens, lengths = encode([text for _, *texts in pairs for text in texts], characters, FORMAT.length)
    labels = np.array([label for label, *_ in pairs], np.int32)
    return Arrays(tokens.reshape(-1, 2, FORMAT.length), labels, lengths.reshape(-1, 2))


def _pairs(file: pathlib.Path, begin: int, end: int) -> Iterator[tuple[int, str, str]]:
    """Label and texts of each line."""
    for position, line in lines.lines(file, begin, end):
        try:
            pair = _parse(line)
        except ValueError as error:
            where = f"{file}, line {lines.line_number(file, position)}"
            raise DataError(f"{where}: {error}; the file is cut off or damaged, get it again") from error
        yield pair


def _parse(line: bytes) -> tuple[int, str, str]:
    """Label and texts. Quotes are ordinary characters, as in the published code."""
    fields = line.decode().rstrip("\r\n").split("\t")
    if len(fields) != len(COLUMNS):
        raise DataError(f"{len(fields)} columns instead of {', '.join(COLUMNS)}")
    if fields[0] not in LABELS:
        raise DataError(f"label {fields[0]!r} is not one of {', '.join(LABELS)}")
    return LABELS[fields[0]], fields[3], fields[4]
