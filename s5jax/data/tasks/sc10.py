"""Speech Commands with ten words, and without recordings that are not exactly one second long.

The 34,975 recordings, split 70/15/15 and stratified by word, are those of state-spaces/s4 (`src/dataloaders/sc.py`),
which has them from CKConv (arXiv 2102.02611) and Neural CDEs (arXiv 2005.08926). The sizes are the published ones. The
recordings in each split are not: there they depend on the order in which a file system lists a folder. The official
split by speaker is not used, so a speaker may be in more than one split.

Labels are the words in the published order.
"""

import dataclasses
import functools

import numpy as np

from s5jax.data.prepare import Plan, Request
from s5jax.data.readers import wav
from s5jax.data.splits import stratified_split
from s5jax.data.tasks import speech_commands

WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
FORMAT = dataclasses.replace(
    speech_commands.FORMAT, name="sc10", sizes={"train": 24_482, "val": 5_246, "test": 5_247}, num_classes=len(WORDS)
)
load = functools.partial(wav.task, FORMAT)


def plan(request: Request) -> Plan:
    """Reads all files to find the recordings of one second, and splits these by `stratified_split` with seed 0."""
    root = speech_commands.find(FORMAT, request)
    files = speech_commands.recordings(root, WORDS)
    kept = [(file, label) for file, label in files if wav.resampled_length(file, FORMAT.length)[1] == FORMAT.length]
    train = int(0.7 * len(kept))
    val = (len(kept) - train) // 2
    labels = np.array([label for _, label in kept], np.int32)
    parts = stratified_split(labels, [train, val, len(kept) - train - val], seed=0)
    splits = {split: [kept[i] for i in part] for split, part in zip(FORMAT.sizes, parts, strict=True)}
    facts = {"classes": list(WORDS), "not one second long": len(files) - len(kept)}
    return wav.plan(FORMAT, root, splits, facts)
