"""text8: 100,000,000 characters of English Wikipedia, a to z and space (M. Mahoney, mattmahoney.net/dc/textdata.html).

Each character is predicted from those before it. As published the first 90,000,000 train, 5,000,000 validate and the
last 5,000,000 test; scores are in bits per character.
"""

import dataclasses
import hashlib

import numpy as np

from s5jax.data.language import UNKNOWN, language_task, read_official
from s5jax.data.task import DataError, Task

MD5 = "3bea1919949baf155f99411df5fada7e"
VOCABULARY = UNKNOWN + " abcdefghijklmnopqrstuvwxyz"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    path: str = "data/text8"
    """The file, its folder, or text8.zip."""
    context: int = 512
    """L, characters of a sequence."""
    any_file: bool = False
    """Take a file that is not the official one, too: its first 90 % train, the next 5 % validate, the last 5 % test."""


def load(options: Options) -> Task:
    places = "text8", "text8.zip", "http://mattmahoney.net/dc/text8.zip"
    text = read_official(options.path, *places, algorithm="md5", digest=MD5, any_file=options.any_file)
    table = np.zeros(256, np.uint8)
    table[list(VOCABULARY[1:].encode())] = np.arange(1, len(VOCABULARY))
    tokens = table[np.frombuffer(text, np.uint8)]
    if not tokens.all():
        raise DataError(f"{options.path} has other characters than a to z and space")
    train, val, test = np.split(tokens, [len(text) * 90 // 100, len(text) * 95 // 100])
    digest = hashlib.sha256(text).hexdigest()
    texts = {"train": train, "val": val, "test": test}
    return language_task("text8", texts, options.context, VOCABULARY, unit="character", sha256=digest)
