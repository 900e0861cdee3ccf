"""Speech Commands: recordings of one second, each of one of 35 English words, as raw samples.

P. Warden, "Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition" (arXiv 1804.03209), version 0.02,
licensed CC BY 4.0. 16,000 samples per second, L = 16000, one channel, with the official split by speaker: 84,843 /
9,981 / 11,005 of 105,829 files. As published for S4 and S5, recordings shorter than a second are padded with zeros,
and the model does not know where they end. Noises (`_background_noise_`) are left out.

Labels are the words in alphabetical order.
"""

import pathlib
from collections.abc import Sequence

from s5jax.data.prepare import Plan, Request
from s5jax.data.readers import official, wav
from s5jax.data.store import Format, Stored
from s5jax.data.task import DataError, Task

__all__ = ["ADDRESS", "DOWNLOADS", "FILES", "FORMAT", "RATE", "WORDS", "find", "load", "plan", "recordings"]

RATE = 16_000
"""Samples per second."""

WORDS = (
    *("backward", "bed", "bird", "cat", "dog", "down", "eight", "five", "follow", "forward", "four", "go", "happy"),
    *("house", "learn", "left", "marvin", "nine", "no", "off", "on", "one", "right", "seven", "sheila", "six", "stop"),
    *("three", "tree", "two", "up", "visual", "wow", "yes", "zero"),
)

FOLDER = "speech_commands_v0.02"
FOLDERS = (FOLDER, f"SpeechCommands/{FOLDER}", "SpeechCommands")
"""As the archive is named, as torchaudio unpacks it, and as state-spaces/s4 does."""

ARCHIVE = f"{FOLDER}.tar.gz"
LISTS = {"val": "validation_list.txt", "test": "testing_list.txt"}

FILES = f"{FOLDER}/{{{WORDS[0]},...,{WORDS[-1]}}}/*.wav, {', '.join(LISTS.values())} or {ARCHIVE}"
ADDRESS = f"http://download.tensorflow.org/data/{ARCHIVE}"
DOWNLOADS = {  # sum: tensorflow_datasets 4.9.10, datasets/speech_commands/checksums.tsv
    ARCHIVE: (ADDRESS, "sha256:af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58")
}

FORMAT = Format(
    name="speech_commands",
    sizes={"train": 84_843, "val": 9_981, "test": 11_005},
    length=RATE,
    num_classes=len(WORDS),
    dtype="int16",
    files=FILES,
    address=ADDRESS,
    downloads=DOWNLOADS,
)


def plan(request: Request) -> Plan:
    """Reads the lists and all headers.

    Raises:
      DataError: files are missing or damaged, or a list contradicts them.
    """
    root = find(FORMAT, request)
    splits = _splits(root, recordings(root, WORDS, request.subset), request.subset)
    return wav.plan(
        FORMAT,
        RATE,
        root,
        files={split: [root / name for name in names] for split, names in splits.items()},
        labels={split: [WORDS.index(name.partition("/")[0]) for name in names] for split, names in splits.items()},
        facts={"classes": list(WORDS)},
        lists=[root / name for name in LISTS.values()],
    )


def load(stored: Stored) -> Task:
    """The task, its samples standardized by mean and standard deviation of the training samples."""
    return wav.task(FORMAT, stored)


def find(format: Format, request: Request) -> pathlib.Path:
    """Finds the folder that has a folder for each word, and unpacks the archive if there is none.

    Raises:
      DataError: it is not there, or the archive is damaged.
    """
    archive, folder = request.data_dir / ARCHIVE, request.data_dir / FOLDER
    if archive.is_file() and not any((request.data_dir / place).is_dir() for place in FOLDERS):
        official.unpack(archive, request.data_dir, folder=FOLDER)  # the archive has no folder of its own
        return folder
    return official.find(format, request.data_dir, FOLDERS)


def recordings(root: pathlib.Path, words: Sequence[str], subset: bool) -> list[str]:
    """Lists the files "word/file.wav" of some words, in the order of the words, and by name.

    Args:
      root: the folder that has a folder for each word.
      words: which words.
      subset: words may be missing.

    Raises:
      DataError: there are no recordings of a word, or none at all.
    """
    names = [[f"{word}/{file.name}" for file in sorted((root / word).glob("*.wav"))] for word in words]
    absent = [word for word, files in zip(words, names, strict=True) if not files]
    if absent and (not subset or len(absent) == len(words)):
        fault = f"no recordings (.wav) of {len(absent)} of the {len(words)} words: {', '.join(absent)}"
        raise DataError(f"{root}: {fault}; get all of them from {ADDRESS}")
    return [name for files in names for name in files]


def _splits(root: pathlib.Path, names: list[str], subset: bool) -> dict[str, list[str]]:
    """The recordings of each split: those of the two lists, and the rest for training."""
    listed: dict[str, str] = {}
    for split, file in LISTS.items():
        try:
            lines = (root / file).read_text().split()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{root / file}: cannot be read ({error}); get it from {ADDRESS}") from error
        absent = sorted(set(lines) - set(names))
        if absent and not subset:
            fault = f"{len(absent)} of {len(lines)} recordings do not exist, such as {absent[0]}"
            raise DataError(f"{root / file}: {fault}; get all files from {ADDRESS}")
        listed |= dict.fromkeys(lines, split)
    splits: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for name in names:
        splits[listed.get(name, "train")].append(name)
    return splits
