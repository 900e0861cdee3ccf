"""Speech Commands with ten words, and without recordings that are not exactly one second long.

The 34,975 recordings and the split 70/15/15 are those of state-spaces/s4 (`src/dataloaders/sc.py`), which has them from
CKConv (arXiv 2102.02611) and Neural CDEs (arXiv 2005.08926): scikit-learn's `train_test_split`, stratified, with seeds
0 and 1. It is drawn here in the same way, so the sizes, of each class too, are the published ones. Which file is in
which split also depends on the order in which a file system lists a folder, which was not recorded; here it is that
of the names. The official split by speaker is not used: a speaker may be in more than one split.

Labels are the words in the published order.
"""

import math

import numpy as np
from jaxtyping import Float, Int

from s5jax.data import speech_commands, wav
from s5jax.data.preparation import Plan, Request
from s5jax.data.store import Format, Stored
from s5jax.data.task import DataError, Task

__all__ = ["FORMAT", "WORDS", "load", "plan"]

WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")

FORMAT = Format(
    name="sc10",
    sizes={"train": 24_482, "val": 5_246, "test": 5_247},
    length=speech_commands.RATE,
    num_classes=len(WORDS),
    dtype="int16",
    files=speech_commands.FILES,
    address=speech_commands.ADDRESS,
    tfds=("speech_commands", "."),
)


def plan(request: Request) -> Plan:
    """Reads all headers, to know which recordings are one second long.

    Raises:
      DataError: files are missing or damaged.
    """
    root, rate = speech_commands.find(FORMAT, request), speech_commands.RATE
    names = speech_commands.recordings(root, WORDS, request.subset)
    headers = [wav.header(root / name) for name in names]
    whole = [i for i, header in enumerate(headers) if header.samples_at(rate) == FORMAT.length]
    if not whole:
        raise DataError(f"{root}: none of {len(names)} recordings is one second long")
    files = [root / names[i] for i in whole]
    labels = np.array([WORDS.index(speech_commands.word(names[i])) for i in whole])
    counts = wav.survey([headers[i] for i in whole], rate, FORMAT.length)
    dropped = len(names) - len(whole)
    return Plan(
        pieces={
            split: wav.pieces(FORMAT, rate, [files[i] for i in part], labels[part].tolist())
            for split, part in split(labels).items()
        },
        origin=f"{counts['files']:,} recordings of {len(WORDS)} words in {root}: {dropped:,} that are not one second"
        f" long left out, {counts['resampled']:,} of another rate resampled",
        sources=files,
        facts={"classes": list(WORDS), "recordings": counts | {"dropped": dropped}},
    )


def load(stored: Stored) -> Task:
    """The task, samples standardized by mean and standard deviation of the training samples."""
    return wav.task(FORMAT, stored)


def split(labels: Int[np.ndarray, " N"]) -> dict[str, Int[np.ndarray, " _"]]:
    """Indices of each split, in order: 70 % for training, and half of the rest for each of the others."""
    train, rest = _stratified(labels, math.floor(0.7 * len(labels)), np.random.RandomState(0))
    val, test = _stratified(labels[rest], len(rest) // 2, np.random.RandomState(1))
    return {"train": np.sort(train), "val": np.sort(rest[val]), "test": np.sort(rest[test])}


def _stratified(
    labels: Int[np.ndarray, " N"], size: int, random: np.random.RandomState
) -> tuple[Int[np.ndarray, " size"], Int[np.ndarray, " rest"]]:
    """Indices of a part of a given size that has each class in proportion, and of the rest, both shuffled.

    Draws the same random numbers as `StratifiedShuffleSplit` of scikit-learn, which is behind `train_test_split`.
    """
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    counts = np.array([len(member) for member in members])
    taken = _in_proportion(counts, size, random)
    _in_proportion(counts - taken, len(labels) - size, random)  # all that is left, but ties were drawn for it
    part, rest = [], []
    for member, share in zip(members, taken, strict=True):
        shuffled = random.permutation(member)
        part.append(shuffled[:share])
        rest.append(shuffled[share:])
    return random.permutation(np.concatenate(part)), random.permutation(np.concatenate(rest))


def _in_proportion(
    counts: Int[np.ndarray, " classes"], size: int, random: np.random.RandomState
) -> Int[np.ndarray, " classes"]:
    """Whole numbers of the given sum in proportion to others: the largest remainders are rounded up, ties drawn."""
    exact: Float[np.ndarray, " classes"] = counts / counts.sum() * size
    shares = np.floor(exact).astype(int)
    remainder = exact - shares
    while (missing := size - shares.sum()) > 0:
        tied = np.flatnonzero(remainder == remainder.max())
        shares[random.choice(tied, min(missing, len(tied)), replace=False)] += 1
        remainder[tied] = -1
    return shares
