"""Pathfinder of Long Range Arena (arXiv 2011.04006): are two dots the ends of one dashed contour? Read row by row.

32 x 32 pixels, L = 1024, one channel, two classes. Grey levels x in 0..255 become (x / 255 - 0.5) / 0.5, as published.

The published models were trained on the hardest part of the official files alone, `curv_contour_length_14`, split by
torch's random_split with seed 42. (The empty image that published code leaves out, curv_baseline/imgs/0/sample_172.png,
is in another part.) `pathx` is the same with 128 x 128 pixels.
"""

import functools
import pathlib
from collections.abc import Iterator

import numpy as np
from jaxtyping import Array, Float, Shaped, UInt8

from s5jax.data.generators import contours
from s5jax.data.prepare import Plan, Request, batched
from s5jax.data.readers import lines, official
from s5jax.data.splits import random_split
from s5jax.data.store import Format, Stored
from s5jax.data.task import DataError, Split, Task

PART = "curv_contour_length_14"
FOLDERS = (*official.LRA_FOLDERS, "pathfinder")
SPLIT_SEED = 42
IMAGES_PER_PART = 2000


def make_format(name: str, size: int) -> Format:
    """The format of a task with images of `size` x `size` pixels."""
    return Format(
        name=name,
        sizes={"train": 160_000, "val": 20_000, "test": 20_000},
        length=size**2,
        num_classes=2,
        dtype="uint8",
        generator=True,
        files=f"lra_release/lra_release/pathfinder{size}/{PART}/{{metadata,imgs}}/ or lra_release.gz",
        address=official.LRA_ADDRESS,
    )


def make_plan(format: Format, style: contours.Style, request: Request) -> Plan:
    """Reads the official files, or generates images in their manner and in a style."""
    if request.generate:
        sizes = request.sizes or format.sizes
        drawn = {split: _draw(style, request.seed, split, size) for split, size in sizes.items()}
        origin = f"generated in the manner of the official images, which these are not, from seed {request.seed}"
        return Plan(parts=drawn, origin=origin)
    folders = [f"{folder}/pathfinder{style.size}" for folder in FOLDERS]
    folder = official.find(format, request.data_dir, folders, [f"{PART}/metadata"], official.LRA_ARCHIVES) / PART
    metadata = [file for file in (folder / "metadata").glob("*.npy") if file.stem.isdecimal()]
    if not metadata:
        raise official.missing(format, request.data_dir, f"{folder / 'metadata'} has no files 0.npy, 1.npy, ...")
    metadata.sort(key=lambda file: int(file.stem))
    samples = [sample for file in metadata for sample in lines.parsed(file, _parse)]
    tenth = len(samples) // 10
    split = random_split(len(samples), [len(samples) - 2 * tenth, tenth, tenth], SPLIT_SEED)
    chosen = zip(format.sizes, ([samples[i] for i in part] for part in split), strict=True)
    read_some = functools.partial(_read, folder, style.size)
    parts = {name: map(read_some, batched(some, IMAGES_PER_PART)) for name, some in chosen}
    sources = metadata + [folder / name for name, _ in samples]
    return Plan(parts=parts, origin=f"official files of {folder}", sources=sources)


def make_task(format: Format, stored: Stored) -> Task:
    """The task of a format from its store."""
    return format.task(stored.splits, preprocess=_normalize)


FORMAT = make_format("pathfinder", contours.PATHFINDER.size)
plan = functools.partial(make_plan, FORMAT, contours.PATHFINDER)
load = functools.partial(make_task, FORMAT)


def _normalize(grey: Shaped[Array, "..."]) -> Float[Array, "..."]:
    return (grey.astype("float32") / 255 - 0.5) / 0.5


def _draw(style: contours.Style, seed: int, split: str, size: int) -> Iterator[Split]:
    for start in range(0, size, IMAGES_PER_PART):
        images, labels = contours.examples(style, seed, split, start, min(start + IMAGES_PER_PART, size))
        yield Split(images.reshape(len(images), -1, 1), labels.astype(np.int32))


def _parse(line: bytes) -> tuple[str, int]:
    """Path and label of an image."""
    fields = line.decode().split()
    if len(fields) < 4:
        raise ValueError(f"{len(fields)} fields, but folder, name, number and label are needed")
    if fields[3] not in ("0", "1"):
        raise ValueError(f"the label must be 0 or 1, not {fields[3]!r}")
    return f"{fields[0]}/{fields[1]}", int(fields[3])


def _read(folder: pathlib.Path, size: int, samples: list[tuple[str, int]]) -> Split:
    images = np.stack([_image(folder / name, size) for name, _ in samples])
    return Split(images.reshape(len(images), -1, 1), np.array([label for _, label in samples], np.int32))


def _image(path: pathlib.Path, size: int) -> UInt8[np.ndarray, "{size} {size}"]:
    from PIL import Image  # only the official files need it

    try:
        with Image.open(path, formats=["PNG"]) as image:
            pixels = np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path}: missing or damaged ({error}); get the official files again") from error
    if image.mode != "L" or image.size != (size, size):
        fault = f"{image.width} x {image.height} pixels of mode {image.mode}, not {size} x {size} of mode L"
        raise DataError(f"{path}: {fault}; get the official files again")
    return pixels
