import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s5jax.data import batches, digits
from s5jax.data.task import DataError, Split, Task


def test_digits():
    task = digits.load()
    assert {name: len(split) for name, split in task.splits.items()} == {"train": 1257, "val": 180, "test": 360}
    images = np.concatenate([split.inputs for split in task.splits.values()])
    labels = np.concatenate([split.labels for split in task.splits.values()])
    assert images.shape == (1797, 64, 1) and images.min() == 0 and images.max() == 16
    # The class sizes that the source documents, and the sum of all grey levels.
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert images.sum(dtype=int) == 561718
    assert len(np.unique(images.reshape(1797, -1), axis=0)) == 1797  # so that no image is in two splits
    scaled = np.asarray(task.prepare(jnp.arange(17, dtype=jnp.uint8)))
    np.testing.assert_allclose(scaled, np.linspace(-1, 1, 17))
    assert scaled.dtype == np.float32


def test_an_epoch_has_each_example_once_and_depends_on_seed_and_epoch_alone():
    key = jax.random.key(3)
    order = batches.epoch_order(key, epoch=2, num_examples=50, batch_size=8)
    assert order.shape == (6, 8) and len(np.unique(order)) == 48 and order.max() < 50
    np.testing.assert_array_equal(order, batches.epoch_order(key, 2, 50, 8))
    for other_key, epoch in [(key, 1), (jax.random.key(4), 2)]:
        assert not np.array_equal(order, batches.epoch_order(other_key, epoch, 50, 8))
    left_out = [set(range(50)) - set(batches.epoch_order(key, e, 50, 8).ravel().tolist()) for e in range(30)]
    assert len(set.union(*left_out)) > 25  # not always the same


@pytest.mark.parametrize(("n", "size"), [(1, 4), (4, 4), (9, 4), (8, 1)])
def test_evaluation_counts_every_example_once(n, size):
    index, counted = batches.padded_batches(np.arange(n)[::-1], size)
    assert index.shape == counted.shape == (-(-n // size), size)
    assert index[counted].tolist() == list(range(n))[::-1]


def make_task(inputs=None, labels=(0, 1, 2), lengths=None, **fields):
    inputs = np.zeros((3, 5, 1)) if inputs is None else inputs
    split = Split(inputs, np.array(labels), None if lengths is None else np.array(lengths))
    return Task(
        name="mine", splits={"train": split, "val": split, "test": split}, **{"length": 5, "num_classes": 3, **fields}
    )


def test_a_task_of_each_shape_is_accepted():
    assert make_task().input_size == 1
    assert make_task(lengths=(1, 5, 2)).example_shape() == (5, 1)
    assert make_task(np.zeros((3, 5), np.uint8), num_tokens=7).input_size == 7
    assert make_task(np.zeros((3, 2, 5), np.uint8), num_tokens=7, pairs=True, lengths=[[1, 5]] * 3).pairs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": (0, 3, 1)}, r"label 3 of example 1 is outside 0\.\.2 \(see the task's num_classes\)"),
        ({"labels": (0, -1, 1)}, "label -1"),
        ({"inputs": np.zeros((3, 6, 1))}, "sequences of 6 steps, longer than the task's length 5"),
        ({"inputs": np.zeros((3, 6), int), "num_tokens": 4}, "sequences of 6 steps, longer"),
        ({"inputs": np.zeros((3, 2, 6), int), "num_tokens": 4, "pairs": True}, "sequences of 6 steps, longer"),
        ({"inputs": np.zeros((3, 4, 1))}, r"shape \(3, 4, 1\), not \(3, 5, 1\)"),
        ({"inputs": np.full((3, 5), 4), "num_tokens": 4}, r"token 4 of example 0 is outside 0\.\.3"),
        ({"labels": ((0,), (1,), (2,))}, r"labels must be integers of shape \(N,\), got int64 \(3, 1\)"),
        ({"labels": (0.0, 1.0, 2.0)}, "labels must be integers"),
        ({"inputs": np.zeros((3, 5)), "num_tokens": 4}, "token ids must be integers"),
        ({"inputs": np.full((3, 5, 1), np.nan)}, "some inputs are NaN"),
        ({"lengths": (5, 6, 1)}, r"length 6 of example 1 is outside 1\.\.5"),
        ({"lengths": (5, 0, 1)}, "length 0 of example 1"),
        ({"lengths": ((5, 5),) * 3}, "lengths have shape"),
        ({"inputs": np.zeros((0, 5, 1)), "labels": ()}, "no examples"),
    ],
)
def test_contradictions_are_named(arguments, message):
    if "labels" in arguments and not arguments["labels"]:
        arguments = arguments | {"labels": np.zeros(0, int)}
    with pytest.raises(DataError, match=f"mine, split train.*{message}"):
        make_task(**arguments)


@pytest.mark.parametrize("weight", [np.nan, np.inf, -1.0])
def test_weights_are_finite_and_not_negative(weight):
    split = Split(np.zeros((3, 5, 1)), np.arange(3), weights=np.array([1.0, weight, 0.0]))
    with pytest.raises(DataError, match="mine, split train: some weights are negative, NaN or infinite"):
        Task(name="mine", splits=dict.fromkeys(("train", "val", "test"), split), length=5, num_classes=3)


REGRESSION = {"num_classes": 0, "targets": 2, "tolerance": 0.1}


def test_a_regression_is_accepted():
    task = make_task(labels=np.zeros((3, 2), np.float32), **REGRESSION)
    assert (task.objective, task.judge) == ("regression", ("accuracy", "max"))
    assert (make_task().objective, make_task().judge) == ("classification", ("accuracy", "max"))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(3), r"labels must be floats of shape \(N, 2\), got float64 \(3,\)"),
        (np.zeros((3, 1)), r"labels must be floats of shape \(N, 2\), got float64 \(3, 1\)"),
        (np.zeros((3, 2), int), r"labels must be floats of shape \(N, 2\), got int64 \(3, 2\)"),
        (np.array([[0, 1], [np.nan, 0], [0, 0]]), "some labels are NaN or infinite"),
        (np.array([[0, 1], [np.inf, 0], [0, 0]]), "some labels are NaN or infinite"),
    ],
)
def test_contradictions_of_a_regression_are_named(labels, message):
    with pytest.raises(DataError, match=f"mine, split train: {message}"):
        make_task(labels=labels, **REGRESSION)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_classes": 0}, "either num_classes, of a classification, or targets, .* got 0 and 0"),
        ({"targets": 2, "tolerance": 0.1}, "either num_classes, .* got 3 and 2"),
        (REGRESSION | {"tolerance": -0.1}, "a tolerance is positive, and of a regression; got -0.1"),
        ({"tolerance": 0.1}, "a tolerance is positive, and of a regression; got 0.1"),
        ({"judge": ("accuracy", "most")}, 'judge must be a metric and "max" or "min"'),
    ],
)
def test_a_task_is_one_or_the_other(fields, message):
    with pytest.raises(DataError, match=f"mine: {message}"):
        make_task(**fields)


def test_splits_are_train_val_test():
    split = Split(np.zeros((1, 5, 1)), np.zeros(1, int))
    with pytest.raises(DataError, match="train, val and test"):
        Task(name="mine", splits={"train": split}, length=5, num_classes=1)
