import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.ndimage
from flax import nnx

from s5jax.data.generators import contours
from s5jax.data.generators.contours import PATHFINDER, PATHX

EASY = dataclasses.replace(PATHFINDER, dashes=6, distractors=0, start=12.0)
STYLES = [
    pytest.param(PATHFINDER, 16, id="32"),
    pytest.param(dataclasses.replace(PATHFINDER, distractors=0), 12, id="32-no-distractors"),
    pytest.param(EASY, 12, id="32-easy"),
    pytest.param(PATHX, 6, id="128"),
    pytest.param(dataclasses.replace(PATHX, distractors=0, dashes=9), 4, id="128-no-distractors"),
]


def distance(segments, x, y):
    """From points to the nearest of some segments (n, 2, 2), by projection."""
    begin, end = segments[:, 0, :, None], segments[:, 1, :, None]
    along = np.einsum("nik,nik->nk", end - begin, np.stack([x, y])[None] - begin) / ((end - begin) ** 2).sum(1)
    nearest = begin + np.clip(along, 0, 1)[:, None] * (end - begin)
    return np.hypot(nearest[:, 0] - x, nearest[:, 1] - y).min(0)


def steps_of(line):
    return np.stack([line[:-1], line[1:]], axis=1)


def dashes_of(scene, style):
    """Both ends of each dash, from the description of a scene."""
    steps = np.concatenate([steps_of(line) for line in scene.contours])
    length = np.hypot(*(steps[:, 1] - steps[:, 0]).T)
    np.testing.assert_allclose(length, style.dash + scene.gap)
    inset = (steps[:, 1] - steps[:, 0]) * (scene.gap / 2 / length)[:, None]
    return steps + np.stack([inset, -inset], axis=1)


def dots_of(scene):
    return np.array([scene.contours[contour][end] for contour, end in scene.dots])


@pytest.mark.parametrize(("style", "count"), STYLES)
def test_labels_agree_with_a_flood_fill_along_the_contours(style, count):
    """Contours drawn thick, with the gaps closed: the dots are in one region if, and only if, the label is 1."""
    side = 4 * style.size if style.size < 100 else 2 * style.size
    y, x = (np.mgrid[:side, :side].reshape(2, -1) + 0.5) * style.size / side
    for index in range(count):
        scene = contours.scene(style, 7, "train", index)
        dots = dots_of(scene)
        ink = np.min([np.hypot(x - dot[0], y - dot[1]) for dot in dots], axis=0) < style.radius
        for line in scene.contours:
            ink |= distance(steps_of(line), x, y) < 0.25 * scene.gap
        regions, number = scipy.ndimage.label(ink.reshape(side, side), np.ones((3, 3)))
        column, row = (dots * side / style.size).astype(int).T
        one, other = regions[row, column]
        assert one > 0 and other > 0
        assert (one == other) == scene.label == index % 2
        assert number == len(scene.contours) == 2 + style.distractors  # none touches another


@pytest.mark.parametrize(("style", "count"), STYLES)
def test_contours_keep_their_distance_and_turn_smoothly(style, count):
    for index in range(count):
        scene = contours.scene(style, 8, "test", index)
        lengths = [len(line) - 1 for line in scene.contours]
        assert lengths == [style.dashes] * 2 + [style.distractor_dashes] * style.distractors
        assert scene.gap in style.gaps
        for i, line in enumerate(scene.contours):
            assert line.min() > 0 and line.max() < style.size
            turns = np.diff(np.arctan2(*np.diff(line, axis=0).T[::-1]))
            turns = (turns + np.pi) % (2 * np.pi) - np.pi
            assert np.abs(turns).max() <= np.radians(style.turn) + 1e-9
            fine = np.concatenate([np.linspace(a, b, 12) for a, b in steps_of(line)])
            for other in scene.contours[:i]:
                assert distance(steps_of(other), *fine.T).min() > 0.85 * scene.gap
            for k in range(lengths[i] - 3):  # nor does it come near itself
                assert distance(steps_of(line[k + 3 :]), *fine[12 * k : 12 * k + 12].T).min() > 0.85 * scene.gap
        (one, end), (other, other_end) = scene.dots
        assert {one, other} <= {0, 1} and {end, other_end} <= {0, -1} and (one == other) == scene.label
        assert one != other or end != other_end
        for dot, (i, _) in zip(dots_of(scene), scene.dots, strict=True):
            others = np.concatenate([steps_of(line) for j, line in enumerate(scene.contours) if j != i])
            assert distance(others, *dot[:, None]).min() > style.radius + 0.7 * scene.gap


@pytest.mark.parametrize(("style", "count"), STYLES)
def test_images_show_dashes_and_dots_and_nothing_else(style, count):
    scenes = [contours.scene(style, 9, "val", index) for index in range(count)]
    images = contours.draw(scenes, style)
    y, x = np.mgrid[: style.size, : style.size].reshape(2, -1) + 0.5
    for scene, image in zip(scenes, images, strict=True):
        dashes, dots = dashes_of(scene, style), dots_of(scene)
        from_dot = np.min([np.hypot(x - dot[0], y - dot[1]) for dot in dots], axis=0)
        from_dash = distance(dashes, x, y)
        flat = image.ravel()
        assert (flat[from_dot < style.radius - 0.5] == 255).all()
        nothing = (from_dot > style.radius + 0.5) & (from_dash > np.hypot(0.5, style.width / 2 + 0.5))
        assert nothing.mean() > 0.3 and not flat[nothing].any()
        middle = np.floor(dashes.mean(1)).astype(int)
        assert image[middle[:, 1], middle[:, 0]].min() > 80
        # The ink of a dash, pixels and their parts together, is its area.
        alone = flat[from_dot > style.radius + 0.5].sum(dtype=float) / 255
        area = style.dash * min(style.width * style.contrast, style.width + 0.5) * len(dashes)
        assert 0.75 * area < alone < 1.1 * area


def test_examples_depend_on_seed_split_and_index_alone():
    images, labels = contours.examples(PATHFINDER, 5, "train", 0, 70)
    np.testing.assert_array_equal(labels, np.arange(70) % 2)
    for start, stop in ((0, 1), (60, 70), (33, 34)):
        again, _ = contours.examples(PATHFINDER, 5, "train", start, stop)
        np.testing.assert_array_equal(again, images[start:stop])
    for seed, split in ((6, "train"), (5, "val"), (5, "test")):
        others, _ = contours.examples(PATHFINDER, seed, split, 0, 2)
        assert (others != images[:2]).any((1, 2)).all()
    assert len(np.unique(images.reshape(70, -1), axis=0)) == 70


@pytest.mark.parametrize(
    ("style", "dots"),
    [(PATHFINDER, [[13.938, 15.995], [23.87, 22.365]]), (PATHX, [[72.591, 21.068], [76.486, 124.75]])],
)
def test_the_generator_is_the_same_in_every_version(style, dots):
    """Stores that were made from one seed at different times go together."""
    np.testing.assert_allclose(dots_of(contours.scene(style, 0, "train", 1)), dots, atol=1e-3)


def test_both_classes_look_the_same():
    """Mean, deviation and dots of both, and where grey levels lie, within four standard errors."""
    style = dataclasses.replace(PATHFINDER, distractors=1)
    count = 200
    scenes = [contours.scene(style, 1, "train", index) for index in range(count)]
    images, labels = contours.draw(scenes, style), np.array([scene.label for scene in scenes])
    assert labels.mean() == 0.5
    apart = np.array([np.hypot(*np.diff(dots_of(scene), axis=0)[0]) for scene in scenes])
    middle = images[:, 8:24, 8:24].mean((1, 2))
    for value in (images.mean((1, 2)), images.std((1, 2)), (images == 255).mean((1, 2)), middle, apart):
        zero, one = value[labels == 0], value[labels == 1]
        assert abs(zero.mean() - one.mean()) < 4 * np.hypot(zero.std(), one.std()) / np.sqrt(count / 2)


def test_an_impossible_style_is_an_error(monkeypatch):
    monkeypatch.setattr(contours, "ATTEMPTS", 5)
    with pytest.raises(ValueError, match="no room for contours"):
        contours.scene(dataclasses.replace(PATHFINDER, dashes=60), 0, "train", 0)


@pytest.mark.slow
def test_a_small_model_separates_the_classes_of_an_easy_style():
    style = dataclasses.replace(PATHFINDER, dashes=4, gaps=(1.0,), start=14.0, distractors=0)
    images, labels = contours.examples(style, 0, "train", 0, 6000)
    rngs = nnx.Rngs(0)
    widths = zip((1, 16, 32, 32), (16, 32, 32, 32), strict=True)
    convolutions = [nnx.Conv(*ends, (3, 3), strides=2, rngs=rngs) for ends in widths]
    layers = [layer for convolution in convolutions for layer in (convolution, nnx.relu)]
    dense = (nnx.Linear(128, 64, rngs=rngs), nnx.relu, nnx.Linear(64, 2, rngs=rngs))
    model = nnx.Sequential(*layers, lambda x: x.reshape(len(x), 128), *dense)
    graphdef, params = nnx.split(model, nnx.Param)
    optimizer = optax.adamw(1e-3)

    def logits(params, images):
        return nnx.merge(graphdef, params)(images[..., None].astype(jnp.float32) / 255)

    @jax.jit
    def step(params, state, images, labels):
        def loss(params):
            return optax.softmax_cross_entropy_with_integer_labels(logits(params, images), labels).mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    random, state = np.random.RandomState(0), optimizer.init(params)
    for _ in range(10):
        for chosen in random.permutation(len(images)).reshape(-1, 60):
            seen = images[chosen][:, :: random.choice((1, -1)), :: random.choice((1, -1))]  # mirrored
            seen = seen.swapaxes(1, 2) if random.choice(2) else seen
            with jax.numpy_dtype_promotion("standard"):  # optax counts in integers
                params, state = step(params, state, seen, labels[chosen].astype(np.int32))
    images, labels = contours.examples(style, 0, "test", 0, 1000)
    accuracy = float(np.mean(np.asarray(logits(params, images)).argmax(1) == labels))
    assert accuracy > 0.7, accuracy  # 0.5 by chance, with a standard error of 0.016
