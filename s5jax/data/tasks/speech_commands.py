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
from s5jax.data.task import DataError

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
"""Of the archive: tensorflow_datasets 4.9.10, datasets/speech_commands/checksums.tsv."""

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
    """Reads the lists and all files.

    Raises:
      DataError: files are missing or damaged, or a list contradicts them.
    """
    root = find(FORMAT, request)
    splits: dict[str, list[tuple[pathlib.Path, int]]] = {"train": [], "val": [], "test": []}
    files = recordings(root, WORDS, request.subset)
    listed = _listed(root, {f"{file.parent.name}/{file.name}" for file, _ in files}, request.subset)
    for file, label in files:
        splits[listed.get(f"{file.parent.name}/{file.name}", "train")].append((file, label))
    return wav.plan(FORMAT, root, splits, {"classes": list(WORDS)}, [root / name for name in LISTS.values()])


def find(format: Format, request: Request) -> pathlib.Path:
    """Finds the folder that has a folder for each word, and unpacks the archive, which has none, if it is not there."""
    return official.find(format, request.data_dir, FOLDERS, archives=[ARCHIVE], unpack_to=FOLDER)


def recordings(root: pathlib.Path, words: Sequence[str], subset: bool) -> list[tuple[pathlib.Path, int]]:
    """Lists the recordings of some words, and the place of each one's word, in the order of the words, and by name.

    Args:
      root: the folder that has a folder for each word.
      words: which words.
      subset: words may be missing.

    Raises:
      DataError: there are no recordings of a word, or none at all.
    """
    files = [sorted((root / word).glob("*.wav")) for word in words]
    absent = [word for word, found in zip(words, files, strict=True) if not found]
    if absent and (not subset or len(absent) == len(words)):
        fault = f"no recordings (.wav) of {len(absent)} of the {len(words)} words: {', '.join(absent)}"
        raise DataError(f"{root}: {fault}; get all of them from {ADDRESS}")
    return [(file, label) for label, found in enumerate(files) for file in found]


def _listed(root: pathlib.Path, names: set[str], subset: bool) -> dict[str, str]:
    """The split of the recordings, "word/file.wav", that are not for training."""
    listed: dict[str, str] = {}
    for split, file in LISTS.items():
        try:
            lines = (root / file).read_text().split()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{root / file}: cannot be read ({error}); get it from {ADDRESS}") from error
        absent = sorted(set(lines) - names)
        if absent and not subset:
            fault = f"{len(absent)} of {len(lines)} recordings do not exist, such as {absent[0]}"
            raise DataError(f"{root / file}: {fault}; get all files from {ADDRESS}")
        listed |= dict.fromkeys(lines, split)
    return listed
