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

FOLDERS = (
    *("fsdd/recordings", "free-spoken-digit-dataset/recordings", "free-spoken-digit-dataset-master/recordings"),
    "recordings",
)
NAME = re.compile(r"(?P<digit>\d)_(?P<speaker>[^_]+)_(?P<index>\d+)\.wav")

FORMAT = Format(
    name="spoken_digits",
    sizes={"train": 2_400, "val": 300, "test": 300},
    length=8_000,
    num_classes=10,
    dtype="int16",
    files="fsdd/recordings/{digit}_{speaker}_{index}.wav",
    address="https://github.com/Jakobovski/free-spoken-digit-dataset",
    padded=True,
)


def plan(request: Request) -> Plan:
    """Splits the files by the numbers in their names."""
    root = official.find(FORMAT, request.data_dir, FOLDERS, archives=["free-spoken-digit-dataset-master.zip"])
    recordings: dict[str, list[tuple[pathlib.Path, int]]] = {"train": [], "val": [], "test": []}
    for file in sorted(root.glob("*.wav")):
        name = NAME.fullmatch(file.name)
        if name is None:
            raise DataError(f"{file}: not named digit_speaker_index.wav, such as 7_jackson_32.wav; move it away")
        index = int(name["index"])
        split = "test" if index < 5 else "val" if index < 10 else "train"
        recordings[split].append((file, int(name["digit"])))
    return wav.plan(FORMAT, root, recordings)


def load(stored: Stored) -> Task:
    """The task, its samples standardized by mean and standard deviation of the training samples, padding included."""
    return wav.task(FORMAT, stored)
