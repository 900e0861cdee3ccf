"""enwik8: the first 100,000,000 bytes of an English Wikipedia dump (M. Mahoney, mattmahoney.net/dc/textdata.html).

Each byte is predicted from those before it. As published the first 90,000,000 bytes train, 5,000,000 validate and the
last 5,000,000 test; scores are in bits per byte (called bits per character, bpc, in papers).
"""

import dataclasses

from s5jax.data.language import mahoney_task
from s5jax.data.task import Task

SHA256 = "2b49720ec4d78c3c9fabaee6e4179a5e997302b3a70029f30f2d582218c024a8"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    path: str = "data/enwik8"
    """The file, its folder, or enwik8.zip."""
    context: int = 512
    """L, bytes of a sequence."""
    any_file: bool = False
    """Take a file that is not the official one, too: its first 90 % train, the next 5 % validate, the last 5 % test."""


def load(options: Options) -> Task:
    return mahoney_task("enwik8", options, "sha256", SHA256)
