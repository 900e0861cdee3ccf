"""Retrieval of the Long Range Arena: is one paper related to another by citation? (arXiv 2011.04006, section 2.2.3)

Pairs of documents from the ACL Anthology Network, character by character. L = 4000 each, the first 3,999 characters and
an end token. The vocabulary is that of the published code, all characters of the training documents' beginnings: 98
tokens.
"""

import functools
import pathlib
from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from s5jax.data import official
from s5jax.data.characters import check_vocabulary, encode, vocabulary
from s5jax.data.preparation import Plan, Request
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
    files="lra_release/lra_release/tsv_data/new_aan_pairs.{train,eval,test}.tsv, or lra_release.gz",
    address="https://github.com/google-research/long-range-arena",
)
PLACES = ("lra_release/lra_release/tsv_data", "lra_release/tsv_data", "tsv_data")
FILES = {"train": "new_aan_pairs.train.tsv", "val": "new_aan_pairs.eval.tsv", "test": "new_aan_pairs.test.tsv"}
COLUMNS = ("label", "id1", "id2", "text1", "text2")
LABELS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}
PIECE = 32 * 2**20
"""Bytes of a file that make a piece."""


def plan(request: Request) -> Plan:
    folder = official.find(request.data_dir, PLACES, ["lra_release.gz"])
    if folder is None:
        raise official.missing(FORMAT, request.data_dir)
    files = {split: folder / name for split, name in FILES.items()}
    for file in files.values():
        if not file.is_file():
            raise official.missing(FORMAT, request.data_dir, f"{file} is missing; not all")
    characters = vocabulary(_training_documents(files["train"]), FORMAT.length)
    check_vocabulary(characters, FORMAT)
    return Plan(
        pieces={
            split: [
                functools.partial(_encode_lines, file, start, characters)
                for start in range(0, file.stat().st_size, PIECE)
            ]
            for split, file in files.items()
        },
        origin=f"documents of the ACL Anthology Network from {folder}, {len(characters)} characters",
        sources=list(files.values()),
        facts={"characters": "".join(characters)},
    )


def load(stored: Stored) -> Task:
    return Task(
        name="retrieval",
        splits=stored.splits,
        length=FORMAT.length,
        num_classes=2,
        num_tokens=FORMAT.num_tokens,
        pairs=True,
    )


def _training_documents(file: pathlib.Path) -> Iterator[str]:
    with tqdm(
        total=file.stat().st_size, desc="vocabulary", unit="B", unit_scale=True, disable=None, leave=False
    ) as bar:
        for start in range(0, file.stat().st_size, PIECE):
            for _, *texts in _pairs(file, start):
                yield from texts
            bar.update(PIECE)


def _encode_lines(file: pathlib.Path, start: int, characters: list[str]) -> Arrays:
    """The pairs on the lines that begin in the piece of a file from `start` on."""
    pairs = list(_pairs(file, start))
    tokens, lengths = encode([text for _, *texts in pairs for text in texts], characters, FORMAT.length)
    labels = np.array([label for label, *_ in pairs], np.int32)
    return Arrays(tokens.reshape(-1, 2, FORMAT.length), labels, lengths.reshape(-1, 2))


def _pairs(file: pathlib.Path, start: int) -> Iterator[tuple[int, str, str]]:
    """Label and texts of each line. Quotes are characters like others, as for the authors of the data."""
    for position, line in official.lines(file, start, start + PIECE):
        where = f"{file}, line at byte {position}"
        try:
            fields = line.decode().rstrip("\r\n").split("\t")
        except UnicodeDecodeError as error:
            raise DataError(f"{where} is no UTF-8 text ({error}): the file is damaged") from error
        if len(fields) != len(COLUMNS):
            raise DataError(
                f"{where} has {len(fields)} columns, not the {len(COLUMNS)} columns {', '.join(COLUMNS)}:"
                " the file is cut off or damaged"
            )
        if fields[0] not in LABELS:
            raise DataError(f"{where}: label {fields[0]!r} is none of {', '.join(LABELS)}")
        yield LABELS[fields[0]], fields[3], fields[4]
