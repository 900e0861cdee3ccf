"""Writes text with a trained language model."""

import argparse
import codecs
import os
import pathlib
import sys

import jax
import numpy as np

from s5jax.data import language
from s5jax.data.task import DataError
from s5jax.models.generate import generate
from s5jax.train.config import UserError
from s5jax.train.trained import load_language_model

EXAMPLES = """examples:
  python scripts/train.py --config=configs/lm/text_file.py:s5 --config.task.path=book.txt --workdir=runs/book
  python scripts/generate.py --workdir=runs/book --prompt="It was"
  python scripts/generate.py --workdir=runs/book --prompt="It was" --temperature=0.8 --top_p=0.9 --seed=1
  python scripts/generate.py --workdir=runs/book --prompt="It was" --prompt="He said" --samples=3
  python scripts/generate.py --workdir=runs/book --temperature=0 --tokens=100    # the likeliest, token by token

The text goes on from the prompt; only the run's directory is needed, not the text that it was trained on.
"""


def main() -> int:
    sys.path.insert(0, os.getcwd())  # for modules of the user's
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--workdir", type=pathlib.Path, required=True, metavar="DIR", help="the run's directory")
    parser.add_argument(
        "--prompt", action="append", metavar="TEXT", help="text to go on from; may be repeated (default: a new line)"
    )
    parser.add_argument("--tokens", type=int, default=500, metavar="N", help="tokens to write (default: 500)")
    parser.add_argument("--samples", type=int, default=1, metavar="N", help="texts for each prompt (default: 1)")
    parser.add_argument(
        "--temperature", type=float, default=1.0, metavar="T", help="below 1: likelier tokens more often; 0: always"
    )
    parser.add_argument(
        "--top_p", type=float, default=1.0, metavar="P", help="draw from the likeliest tokens of this total probability"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the random draws (default: 0)")
    parser.add_argument(
        "--checkpoint",
        choices=("best", "latest"),
        default="best",
        help="best: of least validation loss (default); latest: the newest",
    )
    arguments = parser.parse_args()
    try:
        run(arguments)
    except (UserError, DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def run(arguments: argparse.Namespace) -> None:
    checks = {
        "tokens must be at least 1": arguments.tokens >= 1,
        "samples must be at least 1": arguments.samples >= 1,
        "temperature must be a number of at least 0": 0 <= arguments.temperature < float("inf"),
        "top_p must lie in (0, 1]": 0 < arguments.top_p <= 1,
        "seed must lie in 0..2^32 - 1": 0 <= arguments.seed < 2**32,
    }
    for fault in (f"--{words}" for words, holds in checks.items() if not holds):
        raise UserError(fault)
    model, facts = load_language_model(arguments.workdir, arguments.checkpoint)
    texts = [text for text in arguments.prompt or ["\n"] for _ in range(arguments.samples)]
    prompts = [language.encode(text, facts) for text in texts]
    if not all(map(len, prompts)):
        raise UserError("--prompt must have at least one character")
    lengths = np.array([len(prompt) for prompt in prompts], np.int32)
    padded = np.stack([np.pad(prompt, (0, int(lengths.max()) - len(prompt))) for prompt in prompts])
    key, settings = jax.random.key(arguments.seed), {"temperature": arguments.temperature, "top_p": arguments.top_p}
    pieces = generate(model, padded, lengths, arguments.tokens, key, **settings)
    if len(texts) == 1:  # shown as it comes
        print(texts[0], end="", flush=True)
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        for piece in pieces:
            is_bytes = "vocabulary" not in facts
            text = decoder.decode(bytes(piece[0].tolist())) if is_bytes else language.decode(piece[0], facts)
            print(text, end="", flush=True)
        print()
        return
    made = np.concatenate(list(pieces), axis=1)
    for number, (text, tokens) in enumerate(zip(texts, made, strict=True), 1):
        print(f"--- {number}\n{text}{language.decode(tokens, facts)}")


if __name__ == "__main__":
    sys.exit(main())
