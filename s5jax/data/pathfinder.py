"""Pathfinder of Long Range Arena (arXiv 2011.04006): are two dots the ends of one dashed contour? Read row by row.

32 x 32 pixels, L = 1024, one channel, two classes. Grey levels x in 0..255 become (x / 255 - 0.5) / 0.5, as published.

The published models were trained on the hardest part of the official files alone, `curv_contour_length_14`, split by
torch's random_split with seed 42. (The empty image that published code leaves out, curv_baseline/imgs/0/sample_172.png,
is in another part.) `pathx` is the same with 128 x 128 pixels.
"""

import functools
import pathlib
from collections.abc import Callable

import numpy as np
from jaxtyping import Array, Float, Shaped, UInt8

from s5jax.data import contours, official
from s5jax.data.preparation import Plan, Request
from s5jax.data.random_split import random_split
from s5jax.data.store import Arrays, Format, Stored
from s5jax.data.task import DataError, Task

__all__ = ["FORMAT", "load", "make_format", "make_plan", "make_task", "plan"]

PART = "curv_contour_length_14"
PLACES = ("lra_release/lra_release", "lra_release", ".")
ARCHIVES = ("lra_release.gz", "lra_release.tar.gz")

SIZES = {"train": 160_000, "val": 20_000, "test": 20_000}
SPLIT_SEED = 42

PIECE_FILES = 5000
"""Images that a piece reads."""

PIECE_DRAWINGS = 2000
"""Images that a piece generates."""


def make_format(name: str, size: int) -> Format:
    """Of a task with images of a size, pixels."""
    return Format(
        name=name,
        sizes=SIZES,
        length=size**2,
        num_classes=2,
        dtype="uint8",
        generator=True,
        files=f"lra_release/lra_release/pathfinder{size}/{PART}/{{metadata,imgs}}/, or lra_release.gz",
        address="https://github.com/google-research/long-range-arena (lra_release.gz)",
    )


FORMAT = make_format("pathfinder", contours.PATHFINDER.size)


def plan(request: Request) -> Plan:
    return make_plan(request, FORMAT, contours.PATHFINDER)


def load(stored: Stored) -> Task:
    return make_task(stored, FORMAT)


def make_plan(request: Request, format: Format, style: contours.Style) -> Plan:
    """The official files if they are there, else the generator.

    Raises:
      DataError: some of the official files are missing, or are something else.
    """
    places = [f"{place}/pathfinder{style.size}" for place in PLACES]
    folder = None if request.generate else official.find(request.data_dir, places, ARCHIVES)
    return _generated(request, format, style) if folder is None else _official(request, format, style, folder / PART)


def make_task(stored: Stored, format: Format) -> Task:
    return Task(
        name=format.name,
        splits=stored.splits,
        length=format.length,
        num_classes=format.num_classes,
        preprocess=_normalize,
    )


def _normalize(grey: Shaped[Array, "..."]) -> Float[Array, "..."]:
    return (grey.astype("float32") / 255 - 0.5) / 0.5


def _generated(request: Request, format: Format, style: contours.Style) -> Plan:
    if not 0 <= request.seed < 2**32:
        raise DataError(f"{format.name}: seed {request.seed} is outside 0..{2**32 - 1}")
    pieces: dict[str, list[Callable[[], Arrays]]] = {}
    for split, size in (request.sizes or format.sizes).items():
        starts = range(0, size, PIECE_DRAWINGS)
        ends = [min(start + PIECE_DRAWINGS, size) for start in starts]
        pieces[split] = [
            functools.partial(_draw, style, request.seed, split, *x) for x in zip(starts, ends, strict=True)
        ]
    origin = f"generated in the manner of the official images, which these are not, from seed {request.seed}"
    return Plan(pieces=pieces, origin=origin, generated=True, distinct=True)


def _draw(style: contours.Style, seed: int, split: str, start: int, stop: int) -> Arrays:
    return _arrays(*contours.examples(style, seed, split, start, stop))


def _official(request: Request, format: Format, style: contours.Style, folder: pathlib.Path) -> Plan:
    metadata, samples = _listing(folder, format)
    expected = sum(format.sizes.values())
    if len(samples) != expected and not request.subset:
        raise DataError(
            f"{folder}/metadata lists {len(samples):,} images, not {expected:,}: files are missing or cut off"
            f" (--subset accepts fewer; {format.address})"
        )
    tenth = len(samples) // 10
    if tenth == 0:
        raise DataError(
            f"{folder}/metadata lists {len(samples)} images, of which a tenth is to validate: 10 are needed"
        )
    pieces: dict[str, list[Callable[[], Arrays]]] = {}
    parts = random_split(len(samples), [len(samples) - 2 * tenth, tenth, tenth], SPLIT_SEED)
    for split, part in zip(format.sizes, parts, strict=True):
        chosen = [samples[i] for i in part]
        pieces[split] = [
            functools.partial(_read, folder, chosen[start : start + PIECE_FILES], style.size)
            for start in range(0, len(chosen), PIECE_FILES)
        ]
    sources = metadata + [folder / name for name, _ in samples]
    return Plan(pieces=pieces, origin=f"official files of {folder}", sources=sources)


def _listing(folder: pathlib.Path, format: Format) -> tuple[list[pathlib.Path], list[tuple[str, int]]]:
    """The metadata files in their order, and the path and label of each image they list."""
    metadata = list((folder / "metadata").glob("*.npy"))
    if not metadata:
        raise DataError(f"{folder}/metadata/*.npy are missing: get them from {format.address}, or use --generate")
    for file in metadata:
        if not file.stem.isdecimal():
            raise DataError(f"{file} is none of the official files, whose names are numbers: remove it")
    metadata.sort(key=lambda file: int(file.stem))
    return metadata, [sample for file in metadata for sample in _parse(file)]


def _parse(file: pathlib.Path) -> list[tuple[str, int]]:
    """What a metadata file lists. In spite of its name it is text, a line an image."""
    try:
        text = file.read_text("utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{file} is not text, as the official metadata are") from None
    samples = []
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split()
        if len(fields) < 4:
            raise DataError(
                f"{file}, line {number}: {len(fields)} fields, too few for folder, name, number and label;"
                " is the file cut off?"
            )
        subfolder, name, _, label, *_ = fields
        if label not in ("0", "1"):
            raise DataError(f"{file}, line {number}: the label must be 0 or 1, not {label!r}")
        samples.append((f"{subfolder}/{name}", int(label)))
    return samples


def _read(folder: pathlib.Path, samples: list[tuple[str, int]], size: int) -> Arrays:
    images = np.stack([_image(folder / name, size) for name, _ in samples])
    return _arrays(images, np.array([label for _, label in samples], np.uint8))


def _image(path: pathlib.Path, size: int) -> UInt8[np.ndarray, "{size} {size}"]:
    from PIL import Image  # needed for the official files alone

    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path} is empty: get the official files again")
        with Image.open(path, formats=["PNG"]) as image:
            if image.mode != "L":
                raise DataError(
                    f"{path} is an image of mode {image.mode}, not 8-bit grey (L): this is no official file"
                )
            if image.size != (size, size):
                raise DataError(f"{path} has {image.width} x {image.height} pixels, not {size} x {size}")
            return np.asarray(image)
    except FileNotFoundError:
        raise DataError(f"{path} is missing, though the metadata list it") from None
    except (DataError, PermissionError):
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is no PNG image, or a damaged one: get the official files again") from error


def _arrays(images: UInt8[np.ndarray, "N size size"], labels: UInt8[np.ndarray, " N"]) -> Arrays:
    """Images as they are stored."""
    return Arrays(images.reshape(len(images), -1, 1), labels.astype(np.int32))
