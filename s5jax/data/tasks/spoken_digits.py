"""Spoken digits: 3,000 recordings of the digits zero to nine by six speakers, as raw samples.

The Free Spoken Digit Dataset (Z. Jackson et al., github.com/Jakobovski/free-spoken-digit-dataset), licensed CC BY-SA
4.0. 8,000 samples per second, one channel; L = 8000, a second, which all but 20 recordings fit into: those are cut.
Shorter ones are padded with zeros, and their lengths are stored.

The official test set is recordings 0 to 4 of each digit and speaker. Recordings 5 to 9 are this project's validation
set: 2,400 / 300 / 300.
"""

import pathlib
import re

from s5jax.data.prepare import Plan, Request
from s5jax.data.readers import official, wav
from s5jax.data.store import Format, Stored
from s5jax.data.task import DataError, Task

__all__ = ["FORMAT", "load", "plan"]

RATE = 8_000
"""Samples per second."""

FOLDERS = (
    "fsdd/recordings",
    "free-spoken-digit-dataset/recordings",
    "free-spoken-digit-dataset-master/recordings",
    "recordings",
)
ARCHIVES = ("free-spoken-digit-dataset-master.zip",)
NAME = re.compile(r"(?P<digit>\d)_(?P<speaker>[^_]+)_(?P<index>\d+)\.wav")

FORMAT = Format(
    name="spoken_digits",
    sizes={"train": 2_400, "val": 300, "test": 300},
    length=RATE,
    num_classes=10,
    dtype="int16",
    files="fsdd/recordings/{digit}_{speaker}_{index}.wav",
    address="https://github.com/Jakobovski/free-spoken-digit-dataset",
    padded=True,
)


def plan(request: Request) -> Plan:
    """Reads the names of the files and all headers.

    Raises:
      DataError: files are missing or damaged, or have other names.
    """
    root = official.find(FORMAT, request.data_dir, FOLDERS, archives=ARCHIVES)
    files: dict[str, list[pathlib.Path]] = {"train": [], "val": [], "test": []}
    labels: dict[str, list[int]] = {split: [] for split in files}
    for file in sorted(root.glob("*.wav")):
        name = NAME.fullmatch(file.name)
        if name is None:
            raise DataError(f"{file}: not named digit_speaker_index.wav, such as 7_jackson_32.wav; move it away")
        index = int(name["index"])
        split = "test" if index < 5 else "val" if index < 10 else "train"
        files[split].append(file)
        labels[split].append(int(name["digit"]))
    if not any(files.values()):
        raise DataError(f"{root}: no recordings (.wav); get them from {FORMAT.address}")
    return wav.plan(FORMAT, RATE, root, files, labels)


def load(stored: Stored) -> Task:
    """The task, its samples standardized by mean and standard deviation of the training samples, padding included."""
    return wav.task(FORMAT, stored)
