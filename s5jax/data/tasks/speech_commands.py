"""Speech Commands: recordings of one second, each of one of 35 English words, as raw samples.

P. Warden, "Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition" (arXiv 1804.03209), version 0.02,
licensed CC BY 4.0. 16,000 samples per second, L = 16000, one channel, with the official split by speaker: 84,843 /
9,981 / 11,005 of 105,829 files. As published for S4 and S5, recordings shorter than a second are padded with zeros,
and the model does not know where they end. Noises (`_background_noise_`) are left out.

Labels are the words in alphabetical order.
"""

import functools
import pathlib
from collections.abc import Sequence

from s5jax.data.prepare import Plan, Request
from s5jax.data.readers import official, wav
from s5jax.data.store import Format

WORDS = (
    *("backward", "bed", "bird", "cat", "dog", "down", "eight", "five", "follow", "forward", "four", "go", "happy"),
    *("house", "learn", "left", "marvin", "nine", "no", "off", "on", "one", "right", "seven", "sheila", "six", "stop"),
    *("three", "tree", "two", "up", "visual", "wow", "yes", "zero"),
)

FOLDER = "speech_commands_v0.02"
FOLDERS = (FOLDER, f"SpeechCommands/{FOLDER}", "SpeechCommands")
"""As the archive is named, as torchaudio unpacks it, and as state-spaces/s4 does."""

ARCHIVE = f"{FOLDER}.tar.gz"
ADDRESS = f"http://download.tensorflow.org/data/{ARCHIVE}"
SHA256 = "af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58"
"""The sum of the archive, from tensorflow_datasets 4.9.10, datasets/speech_commands/checksums.tsv."""

LISTS = {"val": "validation_list.txt", "test": "testing_list.txt"}

FORMAT = Format(
    name="speech_commands",
    sizes={"train": 84_843, "val": 9_981, "test": 11_005},
    length=16_000,
    num_classes=len(WORDS),
    dtype="int16",
    files=f"{FOLDER}/{{{WORDS[0]},...,{WORDS[-1]}}}/*.wav, {', '.join(LISTS.values())} or {ARCHIVE}",
    address=ADDRESS,
    downloads={ARCHIVE: (ADDRESS, f"sha256:{SHA256}")},
)
load = functools.partial(wav.task, FORMAT)


def plan(request: Request) -> Plan:
    """Splits the files by the official lists."""
    root = find(FORMAT, request)
    listed = {
        name: split for split, file in LISTS.items() for name in (root / file).read_text(errors="replace").split()
    }
    splits: dict[str, list[tuple[pathlib.Path, int]]] = {"train": [], "val": [], "test": []}
    for file, label in recordings(root, WORDS):
        splits[listed.get(f"{file.parent.name}/{file.name}", "train")].append((file, label))
    return wav.plan(FORMAT, root, splits, {"classes": list(WORDS)}, [root / name for name in LISTS.values()])


def find(format: Format, request: Request) -> pathlib.Path:
    """Finds the folder with both lists. If there is none, unpacks the archive, whose members have no common folder."""
    return official.find(format, request.data_dir, FOLDERS, list(LISTS.values()), [ARCHIVE], unpack_to=FOLDER)


def recordings(root: pathlib.Path, words: Sequence[str]) -> list[tuple[pathlib.Path, int]]:
    """(file, label) of the recordings of some words, by word and then by name; the label is the word's index."""
    return [(file, label) for label, word in enumerate(words) for file in sorted((root / word).glob("*.wav"))]
