"""Writes text with a trained language model."""

import argparse
import sys

from s5jax.train import launch
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
    parser = launch.make_parser(__doc__, EXAMPLES)
    launch.add_workdir(parser)
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
    launch.add_checkpoint(parser)
    return launch.call(run, parser.parse_args())


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
    model = load_language_model(arguments.workdir, arguments.checkpoint)
    prompts = [text for text in arguments.prompt or ["\n"] for _ in range(arguments.samples)]
    settings = {name: getattr(arguments, name) for name in ("seed", "temperature", "top_p")}
    pieces = model.go_on(prompts, arguments.tokens, **settings)
    if len(prompts) == 1:  # shown as it comes
        print(prompts[0], end="", flush=True)
        for (piece,) in pieces:
            print(piece, end="", flush=True)
        print()
        return
    for number, texts in enumerate(zip(prompts, *pieces, strict=True), 1):
        print(f"--- {number}", "".join(texts), sep="\n")


if __name__ == "__main__":
    sys.exit(main())
