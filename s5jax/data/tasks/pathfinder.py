"""Pathfinder of Long Range Arena (arXiv 2011.04006): are two dots the ends of one dashed contour? Read row by row.

32 x 32 pixels, L = 1024, one channel, two classes. Grey levels x in 0..255 become (x / 255 - 0.5) / 0.5, as published.

The published models were trained on the hardest part of the official files alone, `curv_contour_length_14`, split by
torch's random_split with seed 42. (The empty image that published code leaves out, curv_baseline/imgs/0/sample_172.png,
is in another part.) `pathx` is the same with 128 x 128 pixels.
"""

import functools
import pathlib

import numpy as np
from jaxtyping import Array, Float, Shaped, UInt8

from s5jax.data.generators import contours
from s5jax.data.prepare import Job, Plan, Request
from s5jax.data.readers import official
from s5jax.data.splits import random_split
from s5jax.data.store import Arrays, Format, Stored
from s5jax.data.task import DataError, Task

__all__ = ["FORMAT", "load", "make_format", "make_plan", "make_task", "plan"]

PART = "curv_contour_length_14"
FOLDERS = (*official.LRA_FOLDERS, "pathfinder")

SIZES = {"train": 160_000, "val": 20_000, "test": 20_000}
SPLIT_SEED = 42

READ_PER_JOB = 5000
DRAWN_PER_JOB = 2000


def make_format(name: str, size: int) -> Format:
    """The format of a task with images of `size` x `size` pixels."""
    return Format(
        name=name,
        sizes=SIZES,
        length=size**2,
        num_classes=2,
        dtype="uint8",
        generator=True,
        files=f"lra_release/lra_release/pathfinder{size}/{PART}/{{metadata,imgs}}/ or lra_release.gz",
        address=official.LRA_ADDRESS,
    )


FORMAT = make_format("pathfinder", contours.PATHFINDER.size)


def plan(request: Request) -> Plan:
    """Reads the official files or generates images; see `make_plan`."""
    return make_plan(request, FORMAT, contours.PATHFINDER)


def load(stored: Stored) -> Task:
    """The task from its store."""
    return make_task(stored, FORMAT)


def make_plan(request: Request, format: Format, style: contours.Style) -> Plan:
    """Reads the official files, or generates images in their manner.

    Args:
      request: where the data are, or what to generate.
      format: of the task.
      style: of the images.

    Raises:
      DataError: official files are missing, or are something else.
    """
    if request.generate:
        return _generated(request, format, style)
    folders = [f"{folder}/pathfinder{style.size}" for folder in FOLDERS]
    folder = official.find(format, request.data_dir, folders, [f"{PART}/metadata"], official.LRA_ARCHIVES)
    return _official(request, format, style, folder / PART)


def make_task(stored: Stored, format: Format) -> Task:
    """The task of a format from its store."""
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
    jobs: dict[str, list[Job]] = {}
    for split, size in (request.sizes or format.sizes).items():
        starts = range(0, size, DRAWN_PER_JOB)
        ends = [min(start + DRAWN_PER_JOB, size) for start in starts]
        jobs[split] = [
            functools.partial(_draw, style, request.seed, split, *some) for some in zip(starts, ends, strict=True)
        ]
    origin = f"generated in the manner of the official images, which these are not, from seed {request.seed}"
    return Plan(jobs=jobs, origin=origin)


def _draw(style: contours.Style, seed: int, split: str, start: int, stop: int) -> Arrays:
    return _arrays(*contours.examples(style, seed, split, start, stop))


def _official(request: Request, format: Format, style: contours.Style, folder: pathlib.Path) -> Plan:
    metadata, samples = _listing(folder, format)
    expected = sum(format.sizes.values())
    if len(samples) != expected and not request.subset:
        fault = f"{len(samples):,} images, not {expected:,}; files are missing or cut off"
        raise DataError(f"{folder}/metadata: {fault} (--subset accepts fewer; {format.address})")
    tenth = len(samples) // 10
    if tenth == 0:
        raise DataError(f"{folder}/metadata: {len(samples)} images; at least 10 are needed to split them")
    jobs: dict[str, list[Job]] = {}
    parts = random_split(len(samples), [len(samples) - 2 * tenth, tenth, tenth], SPLIT_SEED)
    for split, part in zip(format.sizes, parts, strict=True):
        chosen = [samples[i] for i in part]
        jobs[split] = [
            functools.partial(_read, folder, chosen[start : start + READ_PER_JOB], style.size)
            for start in range(0, len(chosen), READ_PER_JOB)
        ]
    sources = metadata + [folder / name for name, _ in samples]
    return Plan(jobs=jobs, origin=f"official files of {folder}", sources=sources)


def _listing(folder: pathlib.Path, format: Format) -> tuple[list[pathlib.Path], list[tuple[str, int]]]:
    """The metadata files in their order, and the path and label of each image that they list."""
    metadata = list((folder / "metadata").glob("*.npy"))
    if not metadata:
        raise DataError(f"{folder}/metadata: no *.npy; get the official files from {format.address}")
    for file in metadata:
        if not file.stem.isdecimal():
            raise DataError(f"{file}: not an official file, whose names are numbers; remove it")
    metadata.sort(key=lambda file: int(file.stem))
    return metadata, [sample for file in metadata for sample in _parse(file)]


def _parse(file: pathlib.Path) -> list[tuple[str, int]]:
    """Paths and labels in a metadata file, which is text in spite of its name, with a line for each image."""
    try:
        text = file.read_text("utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{file}: not text, as the official metadata are; get it again") from None
    samples = []
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split()
        if len(fields) < 4:
            fault = f"{len(fields)} fields, but folder, name, number and label are needed"
            raise DataError(f"{file}, line {number}: {fault}; is the file cut off?")
        subfolder, name, _, label, *_ = fields
        if label not in ("0", "1"):
            raise DataError(f"{file}, line {number}: the label must be 0 or 1, not {label!r}; get the file again")
        samples.append((f"{subfolder}/{name}", int(label)))
    return samples


def _read(folder: pathlib.Path, samples: list[tuple[str, int]], size: int) -> Arrays:
    images = np.stack([_image(folder / name, size) for name, _ in samples])
    return _arrays(images, np.array([label for _, label in samples], np.uint8))


def _image(path: pathlib.Path, size: int) -> UInt8[np.ndarray, "{size} {size}"]:
    from PIL import Image  # only the official files need it

    try:
        with Image.open(path, formats=["PNG"]) as image:
            if image.mode != "L" or image.size != (size, size):
                fault = f"{image.width} x {image.height} pixels of mode {image.mode}, not {size} x {size} of mode L"
                raise DataError(f"{path}: {fault}; get the official files again")
            return np.asarray(image)
    except FileNotFoundError:
        raise DataError(f"{path}: missing, but listed in the metadata; get the official files again") from None
    except (DataError, PermissionError):
        raise
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path}: not a PNG image, or damaged ({error}); get the official files again") from error


def _arrays(images: UInt8[np.ndarray, "N size size"], labels: UInt8[np.ndarray, " N"]) -> Arrays:
    """Converts images to the stored arrays."""
    return Arrays(images.reshape(len(images), -1, 1), labels.astype(np.int32))
