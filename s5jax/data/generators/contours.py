"""Generates Pathfinder images: are two dots the two ends of one dashed contour?

The images follow Linsley et al. 2018 (arXiv 1805.08315) and, in their sizes, `curv_contour_length_14` of the Long Range
Arena (arXiv 2011.04006): two long contours of 14 dashes, which begin close together, and some short ones. No contour
crosses or touches itself or another. A contour is a chain of straight steps with a dash in the middle of each; from one
step to the next it turns by an angle t of density cos^2(c t), |c t| < pi/2. Contours keep a distance of one gap between
dashes, so that dashes belong together by direction, not by distance.

A dot lies at one end of a long contour. The other dot lies at the same contour's other end (label 1), or at an end of
the other long contour (label 0). There are eight choices of the first end and an end of the other contour; each gives a
pair of dots for either label. The generator takes the choice whose two pairs differ least in the distance of the dots
and the directions of the contours there; then the label decides between the pairs. So the contours say nothing about
the label, and the surroundings of the dots little: a model has to trace.

An example is a function of (style, seed, split, index).
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

SPLITS = ("train", "val", "test")

CELLS = 96  # along a side of the image; each is free or occupied
HEADINGS = 64  # directions of a step, from 0 to pi, in the stencils of occupied cells
TURNS = 4096  # possible angles of a turn
TRIES = 8  # turns that a step tries before the contour goes back
BACK = 3  # largest number of steps to go back
PATIENCE = 5  # steps taken for each step of a long contour before it is given up
SHORT_PATIENCE = 2  # the same for short contours, which can begin again elsewhere
SECONDS = 6  # second contours tried with a first one
SHORTS = 60  # short contours tried in an image
ATTEMPTS = 5000  # attempts at an image


@dataclasses.dataclass(frozen=True, kw_only=True)
class Style:
    """The look of the images; lengths are in pixels. Fewer dashes, smaller gaps and no distractors make them easy.

    size: side of the image.
    dash: length of a dash.
    gaps: lengths of the gaps between dashes; each image has one of them.
    width: of a dash.
    radius: of a dot.
    turn: largest angle between one step and the next, in degrees, at most 90.
    start: distance between the beginnings of the two long contours.
    distractors: number of short contours.
    dashes: number of dashes of a long contour.
    distractor_dashes: number of dashes of a short contour.
    contrast: of a dash; above 1, a partly covered pixel may be white.
    """

    size: int
    dash: float
    gaps: tuple[float, ...]
    width: float
    radius: float
    turn: float
    start: float
    distractors: int
    dashes: int = 14
    distractor_dashes: int = 4
    contrast: float = 1.0


PATHFINDER = Style(
    size=32, dash=2.0, gaps=(1.75,), width=0.8, contrast=1.6, radius=1.5, turn=90.0, start=7.0, distractors=3
)
PATHX = Style(size=128, dash=5.0, gaps=(4.0, 6.0), width=1.5, radius=3.0, turn=50.0, start=20.0, distractors=8)

_Line = list[tuple[float, float]]


class Scene(NamedTuple):
    """The contents of an image.

    contours: the points (x, y) between the steps of each contour, from end to end, in pixels from the upper left corner
      of the image; the two long contours come first.
    gap: length of the gap between two dashes, in pixels.
    dots: for each dot the number of its contour, and the index of its point there, 0 or -1.
    label: 1 if both dots are on the same contour.
    """

    contours: list[Float[np.ndarray, "points 2"]]
    gap: float
    dots: tuple[tuple[int, int], tuple[int, int]]
    label: int


def scene(style: Style, seed: int, split: str, index: int) -> Scene:
    """The contents of an example.

    Args:
      style: of the images.
      seed: 0 to 2^32 - 1.
      split: "train", "val" or "test".
      index: of the example in the split; even ones have label 0, odd ones label 1.

    Raises:
      ValueError: the image has no room for such contours.
    """
    uniform = _uniform(np.random.RandomState([seed, SPLITS.index(split), index]))
    return _scene(style, uniform, index % 2)


def examples(
    style: Style, seed: int, split: str, start: int, stop: int
) -> tuple[UInt8[np.ndarray, "N size size"], UInt8[np.ndarray, " N"]]:
    """Images and labels of the examples from `start` to `stop` - 1 of a split; see `scene` and `draw`."""
    random = np.random.RandomState()  # seeding it again is ten times faster than making another
    images = np.empty((stop - start, style.size, style.size), np.uint8)
    labels = np.arange(start, stop) % 2
    for first in range(start, stop, 64):  # few enough for the cache
        scenes = []
        for index in range(first, min(first + 64, stop)):
            random.seed([seed, SPLITS.index(split), index])
            scenes.append(_scene(style, _uniform(random), index % 2))
        images[first - start : first - start + len(scenes)] = draw(scenes, style)
    return images, labels.astype(np.uint8)


def draw(scenes: Sequence[Scene], style: Style) -> UInt8[np.ndarray, "N size size"]:
    """Draws scenes in white on black, with smooth edges."""
    lines = [line for s in scenes for line in s.contours]
    image = np.repeat(np.arange(len(scenes)), [sum(len(line) - 1 for line in s.contours) for s in scenes])
    begin, end = np.concatenate([line[:-1] for line in lines]), np.concatenate([line[1:] for line in lines])
    along = (end - begin) / np.hypot(*(end - begin).T)[:, None]

    def dash(x: Float[np.ndarray, "n 1 w"], y: Float[np.ndarray, "n w 1"]) -> Float[np.ndarray, "n w w"]:
        cos, sin = along[:, 0, None, None], along[:, 1, None, None]
        return _cover(np.abs(cos * x + sin * y), style.dash) * _cover(np.abs(cos * y - sin * x), style.width)

    def dot(x: Float[np.ndarray, "n 1 w"], y: Float[np.ndarray, "n w 1"]) -> Float[np.ndarray, "n w w"]:
        return _cover(np.hypot(x, y), 2 * style.radius)

    dots = np.array([s.contours[contour][point] for s in scenes for contour, point in s.dots])
    reach = math.ceil(max(math.hypot(style.dash + 1, style.width + 1) / 2, style.radius))
    shape = len(scenes), style.size + 2 * reach, style.size + 2 * reach
    ink = style.contrast * _stamp(image, (begin + end) / 2, dash, reach, shape)
    ink += _stamp(np.repeat(np.arange(len(scenes)), 2), dots, dot, reach, shape)
    return np.round(255 * np.minimum(ink, 1)).astype(np.uint8)[:, reach:-reach, reach:-reach]


def _cover(distance: Float[np.ndarray, "..."], width: float) -> Float[np.ndarray, "..."]:
    """The share of a pixel that a stripe of some width covers, by the distance of its middle."""
    return np.clip((width + 1) / 2 - distance, 0, min(width, 1))


def _stamp(
    image: Int[np.ndarray, " n"],
    middle: Float[np.ndarray, "n 2"],
    ink: Callable[..., Float[np.ndarray, "n w w"]],
    reach: int,
    shape: tuple[int, int, int],
) -> Float[np.ndarray, "N height width"]:
    """Adds up shapes, each drawn in a square of pixels around its middle, in images with a margin of `reach`."""
    pixel = np.floor(middle).astype(int)[:, :, None] + np.arange(-reach, reach + 1)
    x, y = np.moveaxis(pixel + 0.5 - middle[:, :, None], 1, 0)
    column, row = np.moveaxis(pixel + reach, 1, 0)
    _, height, width = shape
    where = ((image * height)[:, None, None] + row[:, :, None]) * width + column[:, None, :]
    return np.bincount(where.ravel(), ink(x[:, None, :], y[:, :, None]).ravel(), math.prod(shape)).reshape(shape)


def _uniform(random: np.random.RandomState) -> Callable[[], float]:
    """A function that returns the next number in [0, 1) of a stream that NumPy guarantees never to change."""
    blocks = (random.random_sample(512).tolist() for _ in itertools.count())
    return itertools.chain.from_iterable(blocks).__next__


def _scene(style: Style, uniform: Callable[[], float], label: int) -> Scene:
    gap = style.gaps[int(len(style.gaps) * uniform())]
    field = _Field(style, gap, uniform)
    for _ in range(ATTEMPTS):
        lines = field.fill()
        if lines is not None:
            return Scene([np.array(line) for line in lines], gap, _dots(lines, style.size, label), label)
    raise ValueError(f"no room for contours as in {style}")


def _dots(contours: Sequence[_Line], size: int, label: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Chooses the ends with dots so that the label makes the least difference to what is seen without tracing."""
    least, chosen = math.inf, ((0, 0), (0, 0))
    for one, end, far_end in itertools.product((0, 1), (0, -1), (0, -1)):
        here, same, other = (one, end), (one, -1 - end), (1 - one, far_end)
        distance, heading = _impression(contours, here, same)
        distance_other, heading_other = _impression(contours, here, other)
        difference = (10 * (distance - distance_other) / size) ** 2 + (heading - heading_other) ** 2
        if difference < least:
            least, chosen = difference, (here, same if label else other)
    return chosen


def _impression(contours: Sequence[_Line], *dots: tuple[int, int]) -> tuple[float, float]:
    """The distance of two dots, and the sum of two cosines: how far the contour at each points to the other."""
    (x, y), (other_x, other_y) = (contours[i][end] for i, end in dots)
    distance = math.hypot(other_x - x, other_y - y)
    towards = 0.0
    for (i, end), sign in zip(dots, (1, -1), strict=True):
        (x0, y0), (x1, y1) = contours[i][end], contours[i][-2 if end else 1]
        towards += sign * ((x1 - x0) * (other_x - x) + (y1 - y0) * (other_y - y)) / math.hypot(x1 - x0, y1 - y0)
    return distance, towards / distance


class _Stencils(NamedTuple):
    """Cells around a point as bits of integers, so that Python shifts and compares a whole image at once.

    Bit (r + reach) stride + c + reach of an image is the cell in row r and column c; bit 0 of a stencil is the cell
    `reach` above and left of the point's.

    cell: side of a cell, pixels.
    reach, stride: see above.
    step: for each heading the cells that a step with its middle at the point covers.
    around_step: for each heading the cells that it keeps free of other contours.
    dot, around_dot: the same of a dot.
    """

    cell: float
    reach: int
    stride: int
    step: list[int]
    around_step: list[int]
    dot: int
    around_dot: int


@functools.cache
def _stencils(size: int, length: float, gap: float, radius: float) -> _Stencils:
    cell = size / CELLS
    reach = math.ceil((max(length / 2, radius) + gap) / cell) + 1
    stride = CELLS + 2 * reach
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1] * cell

    def bits(distance: Float[np.ndarray, "w w"], limit: float) -> int:
        rows = np.zeros((2 * reach + 1, stride), bool)
        rows[:, : 2 * reach + 1] = distance <= limit + cell / 2
        return int.from_bytes(np.packbits(rows.ravel(), bitorder="little").tobytes(), "little")

    covered, around = [], []
    for angle in np.arange(HEADINGS) * np.pi / HEADINGS:
        along = np.clip(x * np.cos(angle) + y * np.sin(angle), -length / 2, length / 2)
        distance = np.hypot(x - along * np.cos(angle), y - along * np.sin(angle))
        covered.append(bits(distance, 0.0))
        around.append(bits(distance, gap))
    distance = np.hypot(x, y)
    return _Stencils(cell, reach, stride, covered, around, bits(distance, radius), bits(distance, radius + gap))


@functools.cache
def _turns(largest: float) -> list[float]:
    """Equally likely turns in radians, for a largest turn in degrees."""
    fine = np.linspace(-np.pi / 2, np.pi / 2, 2001)
    cumulative = 0.5 + (fine + np.sin(fine) * np.cos(fine)) / np.pi
    return (np.interp((np.arange(TURNS) + 0.5) / TURNS, cumulative, fine) * largest / 90).tolist()


class _Step(NamedTuple):
    """The state after a step.

    x, y: end of the step. heading: its direction, radians.
    occupied: cells that are occupied, except those in `recent`.
    recent: cells around the last two steps, which the next step may come close to.
    """

    x: float
    y: float
    heading: float
    occupied: int
    recent: tuple[int, ...]


class _Field:
    """An image in which contours grow."""

    def __init__(self, style: Style, gap: float, uniform: Callable[[], float]):
        self.style, self.uniform = style, uniform
        self.length = style.dash + gap
        self.low, self.high = style.radius, style.size - style.radius
        self.stencils = _stencils(style.size, self.length, gap, style.radius)
        self.turns = _turns(style.turn)

    def fill(self) -> list[_Line] | None:
        """All contours of an image; `None` if there was no room for one."""
        style, uniform = self.style, self.uniform
        x, y = style.size * (0.25 + 0.5 * uniform()), style.size * (0.25 + 0.5 * uniform())
        first = self.long(0, x, y)
        if first is None:
            return None
        for _ in range(SECONDS):
            angle = 2 * math.pi * uniform()
            second = self.long(first[0], x + style.start * math.cos(angle), y + style.start * math.sin(angle))
            if second is not None:
                shorts = self.shorts(second[0])
                return None if shorts is None else [first[1], second[1], *shorts]
        return None

    def long(self, occupied: int, x: float, y: float) -> tuple[int, _Line] | None:
        """The cells occupied after a long contour from a point, with room for dots at its ends, and the contour."""
        dot, around = self.stencils.dot, self.stencils.around_dot
        if not (self.low < x < self.high and self.low < y < self.high) or dot << self.shift(x, y) & occupied:
            return None
        start = _Step(x, y, 0.0, occupied, (around << self.shift(x, y),))
        return self.grow(start, self.style.dashes, PATIENCE, dot, around)

    def shorts(self, occupied: int) -> list[_Line] | None:
        """All short contours; `None` if there was no room for one."""
        cell, reach, stride, *_ = self.stencils
        count, lines = self.style.distractors, list[_Line]()
        if count == 0:
            return lines
        mask = np.frombuffer(occupied.to_bytes((stride * stride + 7) // 8, "little"), np.uint8)
        cells = np.unpackbits(mask, count=stride * stride, bitorder="little").reshape(stride, stride)
        edge = reach + math.ceil(self.style.radius / cell)
        rows, columns = np.nonzero(cells[edge:-edge, edge:-edge] == 0)
        for _ in range(SHORTS if len(rows) else 0):
            i = int(len(rows) * self.uniform())
            column, row = columns[i] + edge - reach, rows[i] + edge - reach
            start = _Step(float(column + 0.5) * cell, float(row + 0.5) * cell, 0.0, occupied, ())
            grown = self.grow(start, self.style.distractor_dashes, SHORT_PATIENCE)
            if grown is not None:
                occupied = grown[0]
                lines.append(grown[1])
                if len(lines) == count:
                    return lines
        return None

    def grow(
        self, start: _Step, steps: int, patience: int, dot: int = 0, around_dot: int = 0
    ) -> tuple[int, _Line] | None:
        """The cells occupied after a contour, and the contour; `None` if it found no way.

        Args:
          start: its beginning; the first step goes in any direction.
          steps: number of steps.
          patience: steps that may be tried for each of them; where there is no way ahead, the contour goes back.
          dot: stencil of cells that must be free at its end.
          around_dot: stencil of cells that are occupied there afterwards.
        """
        path = [start]
        for _ in range(patience * steps):
            step = self.step(path[-1], len(path) == 1, dot if len(path) == steps else None)
            if step is None:
                if len(path) == 1:
                    return None
                del path[max(1, len(path) - 1 - int(BACK * self.uniform())) :]
                continue
            path.append(step)
            if len(path) > steps:
                occupied = step.occupied | around_dot << self.shift(step.x, step.y)
                for mask in step.recent:
                    occupied |= mask
                return occupied, [(s.x, s.y) for s in path]
        return None

    def step(self, last: _Step, first: bool, dot: int | None) -> _Step | None:
        """The next step; `None` if no turn that was tried leads to free cells.

        Args:
          last: the step before.
          first: whether this is the first step, which goes in any direction.
          dot: for the contour's last step, stencil of cells that must be free at its end.
        """
        x, y, heading, occupied, recent = last
        covered, around = self.stencils.step, self.stencils.around_step
        low, high, turns, uniform = self.low, self.high, self.turns, self.uniform
        # Where contours cannot turn sharply, the step after this one needs room as well.
        ahead = self.length * (2 - self.style.turn / 90 if dot is None else 1)
        for _ in range(TRIES):
            angle = 2 * math.pi * uniform() if first else heading + turns[int(TURNS * uniform())]
            cos, sin = math.cos(angle), math.sin(angle)
            if not (low < x + ahead * cos < high and low < y + ahead * sin < high):
                continue
            i = round(angle * (HEADINGS / math.pi)) % HEADINGS
            middle = self.shift(x + self.length / 2 * cos, y + self.length / 2 * sin)
            if covered[i] << middle & occupied:
                continue
            end_x, end_y = x + self.length * cos, y + self.length * sin
            if dot and dot << self.shift(end_x, end_y) & occupied:
                continue
            if len(recent) == 2:
                occupied |= recent[0]
            return _Step(end_x, end_y, angle, occupied, (*recent[-1:], around[i] << middle))
        return None

    def shift(self, x: float, y: float) -> int:
        """The number of bits by which `<<` moves a stencil to a point."""
        return int(y / self.stencils.cell) * self.stencils.stride + int(x / self.stencils.cell)
