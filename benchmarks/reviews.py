"""Film reviews as plain text, for language models: 10 MB to train on, and 1 MB each to validate and to test.

    python -m benchmarks.reviews --data_dir=data --out=data/reviews

The reviews are those of `data/aclImdb` (the Large Movie Review Dataset), in a fixed random order. The training and
validation texts are from the training reviews, the test text is from the test reviews. "<br />" becomes a line break,
and a line break separates two reviews.
"""

import argparse
import pathlib
import random
import sys

SIZES = {"train": ("train", 0, 10_000_000), "val": ("train", 10_000_000, 1_000_000), "test": ("test", 0, 1_000_000)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=pathlib.Path, required=True, metavar="DIR", help="folder with aclImdb")
    parser.add_argument(
        "--out", type=pathlib.Path, required=True, metavar="DIR", help="folder for train.txt, val.txt and test.txt"
    )
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, (part, start, size) in SIZES.items():
        files = sorted((arguments.data_dir / "aclImdb" / part).glob("[np][eo][gs]/*.txt"))
        if not files:
            print(f"error: {arguments.data_dir}/aclImdb/{part} has no reviews", file=sys.stderr)
            return 1
        random.Random(0).shuffle(files)
        text, needed = bytearray(), start + size
        for file in files:
            text += file.read_bytes().replace(b"<br />", b"\n").strip() + b"\n"
            if len(text) >= needed:
                break
        (arguments.out / f"{name}.txt").write_bytes(text[start:needed])
        print(f"{arguments.out / name}.txt: {len(text[start:needed]):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
