import numpy as np
import pytest

from s5jax.data.task import DataError, Split, Task


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
        ({"inputs": np.zeros((3, 6, 1))}, r"inputs must be numbers of shape \(3, 5, 1\), got float64 \(3, 6, 1\)"),
        ({"inputs": np.zeros((3, 6), int), "num_tokens": 4}, r"inputs must be integers of shape \(3, 5\), got"),
        ({"inputs": np.zeros((3, 2, 6), int), "num_tokens": 4, "pairs": True}, r"of shape \(3, 2, 5\), got int64"),
        ({"inputs": np.full((3, 5), 4), "num_tokens": 4}, r"token 4 of example 0 is outside 0\.\.3"),
        ({"labels": ((0,), (1,), (2,))}, r"labels must be integers of shape \(3,\), got int64 \(3, 1\)"),
        ({"labels": (0.0, 1.0, 2.0)}, "labels must be integers"),
        ({"inputs": np.zeros((3, 5)), "num_tokens": 4}, "inputs must be integers"),
        ({"inputs": np.full((3, 5, 1), np.nan)}, "some values of inputs are NaN"),
        ({"lengths": (5, 6, 1)}, r"length 6 of example 1 is outside 1\.\.5"),
        ({"lengths": (5, 0, 1)}, "length 0 of example 1"),
        ({"lengths": ((5, 5),) * 3}, r"lengths must be numbers of shape \(3,\), got int64 \(3, 2\)"),
        ({"inputs": np.zeros((0, 5, 1)), "labels": ()}, "no examples"),
    ],
)
def test_contradictions_are_named(arguments, message):
    if "labels" in arguments and not arguments["labels"]:
        arguments = arguments | {"labels": np.zeros(0, int)}
    with pytest.raises(DataError, match=f"mine, split train.*{message}"):
        make_task(**arguments)


@pytest.mark.parametrize(
    ("weight", "fault"), [(np.nan, "values of weights"), (np.inf, "values of weights"), (-1.0, "weights are negative")]
)
def test_weights_are_finite_and_not_negative(weight, fault):
    split = Split(np.zeros((3, 5, 1)), np.arange(3), weights=np.array([1.0, weight, 0.0]))
    with pytest.raises(DataError, match=f"mine, split train: some {fault}"):
        Task(name="mine", splits=dict.fromkeys(("train", "val", "test"), split), length=5, num_classes=3)


REGRESSION = {"num_classes": 0, "targets": 2, "tolerance": 0.1}


def test_a_regression_is_accepted():
    task = make_task(labels=np.zeros((3, 2), np.float32), **REGRESSION)
    assert (task.objective, task.judge) == ("regression", ("accuracy", "max"))
    assert (make_task().objective, make_task().judge) == ("classification", ("accuracy", "max"))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(3), r"labels must be floats of shape \(3, 2\), got float64 \(3,\)"),
        (np.zeros((3, 1)), r"labels must be floats of shape \(3, 2\), got float64 \(3, 1\)"),
        (np.zeros((3, 2), int), r"labels must be floats of shape \(3, 2\), got int64 \(3, 2\)"),
        (np.array([[0, 1], [np.nan, 0], [0, 0]]), "some values of labels are NaN or infinite"),
        (np.array([[0, 1], [np.inf, 0], [0, 0]]), "some values of labels are NaN or infinite"),
    ],
)
def test_contradictions_of_a_regression_are_named(labels, message):
    with pytest.raises(DataError, match=f"mine, split train: {message}"):
        make_task(labels=labels, **REGRESSION)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"num_classes": 0},
            r"either num_classes \(classification\) or targets \(regression\) .* got 0 and 0",
        ),
        ({"targets": 2, "tolerance": 0.1}, "either num_classes .* got 3 and 2"),
        (REGRESSION | {"tolerance": -0.1}, "tolerance must be positive, and is for regressions only; got -0.1"),
        ({"tolerance": 0.1}, "tolerance must be positive, and is for regressions only; got 0.1"),
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
