"""Retrieval of the Long Range Arena: is one paper related to another by citation? (arXiv 2011.04006, section 2.2.3)

Pairs of documents from the ACL Anthology Network, character by character. L = 4000 each, the first 3,999 characters and
an end token. The vocabulary is that of the published code, all characters of the beginnings of the training documents:
98 tokens.
"""

import functools

import numpy as np
from tqdm import tqdm

from s5jax.data.prepare import Plan, Request, batched
from s5jax.data.readers import lines, official
from s5jax.data.readers.characters import encode, vocabulary
from s5jax.data.store import Format, Stored
from s5jax.data.task import Split, Task

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
PAIRS_PER_PART = 1000
LABELS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}


def plan(request: Request) -> Plan:
    """Reads the official files, and counts the characters of the training documents."""
    folder = official.find(FORMAT, request.data_dir, FOLDERS, list(FILES.values()), official.LRA_ARCHIVES)
    pairs = {split: functools.partial(lines.parsed, folder / name, _parse) for split, name in FILES.items()}
    training = tqdm(pairs["train"](), "vocabulary", unit=" pairs", disable=None, leave=False)
    characters = vocabulary((text for _, *texts in training for text in texts), FORMAT)
    encode_some = functools.partial(_encode, characters)
    return Plan(
        parts={split: map(encode_some, batched(read(), PAIRS_PER_PART)) for split, read in pairs.items()},
        origin=f"documents of the ACL Anthology Network from {folder}, {len(characters)} characters",
        sources=[folder / name for name in FILES.values()],
        facts={"characters": characters},
    )


def load(stored: Stored) -> Task:
    return FORMAT.task(stored.splits)


def _encode(characters: str, pairs: list[tuple[int, str, str]]) -> Split:
    tokens, lengths = encode([text for _, *texts in pairs for text in texts], characters, FORMAT.length)
    labels = np.array([label for label, *_ in pairs], np.int32)
    return Split(tokens.reshape(-1, 2, FORMAT.length), labels, lengths.reshape(-1, 2))


def _parse(line: bytes) -> tuple[int, str, str]:
    """Label and texts. Quotes are ordinary characters, as in the published code."""
    fields = line.decode().rstrip("\r\n").split("\t")
    if len(fields) != len(COLUMNS):
        raise ValueError(f"{len(fields)} columns instead of {', '.join(COLUMNS)}")
    if fields[0] not in LABELS:
        raise ValueError(f"label {fields[0]!r} is not one of {', '.join(LABELS)}")
    return LABELS[fields[0]], fields[3], fields[4]
