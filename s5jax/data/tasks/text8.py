"""text8: 100,000,000 characters of English Wikipedia, a to z and space (M. Mahoney, mattmahoney.net/dc/textdata.html).

Each character is predicted from those before it. As published the first 90,000,000 train, 5,000,000 validate and the
last 5,000,000 test; scores are in bits per character.
"""

import dataclasses

from s5jax.data.language import UNKNOWN, mahoney_task
from s5jax.data.task import Task

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
    return mahoney_task("text8", options, "md5", MD5, VOCABULARY)
