"""Objectives against their formulas in NumPy, float64: values, gradients, and sums over parts of a batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from everyday import variants
from numerics import relative_error
from small_models import double_precision

from s5jax.data.task import Split, Task
from s5jax.objectives import classification, gaussian, regression, weights

B, L, CLASSES, TARGETS = 7, 5, 4, 2


def batch_of(per_step, parts, labels_of):
    """Labels and what says which of them count, in float64; and the weight of each label, by a loop."""
    rng = np.random.default_rng(per_step + 2 * len(parts))
    shape = (B, L) if per_step else (B,)
    everything = {
        "weights": rng.uniform(0.1, 2, shape) * (rng.random(shape) < 0.8),
        "lengths": rng.integers(1, L + 1, B).astype(np.int32),
        "counted": rng.random(B) < 0.7,
    }
    batch = {"labels": labels_of(rng, shape), **{name: everything[name] for name in parts}}
    weight = np.ones(shape)
    for index in np.ndindex(shape):
        if "weights" in batch:
            weight[index] = batch["weights"][index]
        if per_step and "lengths" in batch and index[1] >= batch["lengths"][index[0]]:
            weight[index] = 0
        if "counted" in batch and not batch["counted"][index[0]]:
            weight[index] = 0
    return batch, weight


PARTS = [(), ("weights",), ("lengths", "counted"), ("weights", "lengths", "counted")]


def check(objective, outputs, batch, expected, gradient):
    """Sums and weights in both precisions, the gradient of the loss, and sums over random parts of the batch."""
    order = np.random.default_rng(1).permutation(B)

    @jax.jit
    def everything(x, batch):
        def loss(x):
            metrics = objective(x, batch)
            return metrics["loss"][0], metrics

        parts = [
            objective(x[index], {name: v[index] for name, v in batch.items()})
            for index in np.split(order, [1, 1 + B // 2])
        ]
        return *jax.grad(loss, has_aux=True)(x), jax.tree.map(lambda *sums: sum(sums), *parts)

    for double, tolerance in ((True, 1e-12), (False, 1e-5)):
        with double_precision(double):
            kind = np.float64 if double else np.float32
            given = {name: np.asarray(v, kind if v.dtype == np.float64 else v.dtype) for name, v in batch.items()}
            grad, metrics, together = everything(np.asarray(outputs, kind), given)
            assert metrics.keys() == expected.keys()
            assert all(v.dtype == kind for pair in metrics.values() for v in pair)
            for name, pair in expected.items():
                np.testing.assert_allclose(metrics[name], pair, rtol=tolerance, atol=tolerance, err_msg=name)
            assert relative_error(grad, gradient) < 10 * tolerance
            np.testing.assert_allclose(jax.tree.leaves(together), jax.tree.leaves(metrics), rtol=tolerance, atol=1e-7)


def differences(f, x, h=1e-6):
    """The gradient of a sum, by central differences in float64."""
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        moved = [x.copy(), x.copy()]
        moved[0][index] += h
        moved[1][index] -= h
        gradient[index] = (f(moved[0]) - f(moved[1])) / (2 * h)
    return gradient


@variants(
    [
        (False, (), (False, 0.0)),
        (False, ("weights",), (True, 0.3)),
        (True, PARTS[2], (False, 0.3)),
        (True, PARTS[3], (True, 0.3)),
    ],
    per_step=[False, True],
    parts=PARTS,
    options=[(False, 0.0), (False, 0.3), (True, 0.3)],
)
def test_classification(per_step, parts, options):
    """The formula in the documentation of PyTorch's CrossEntropyLoss, with class weights and label smoothing."""
    weighted, smoothing = options
    batch, weight = batch_of(per_step, parts, lambda rng, shape: rng.integers(0, CLASSES, shape).astype(np.int32))
    of_classes = np.array([0.5, 0.0, 2.0, 1.0]) if weighted else np.ones(CLASSES)
    logits = 2 * np.random.default_rng(5).normal(size=(*weight.shape, CLASSES))
    labels = batch["labels"]

    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    target = (1 - smoothing) * np.eye(CLASSES)[labels] + smoothing / CLASSES
    loss = -(weight[..., None] * of_classes * target * np.log(p)).sum()
    pull = weight[..., None] * of_classes * target
    correct = (p.argmax(-1) == labels) * weight
    expected = {"loss": (loss, (weight * of_classes[labels]).sum()), "accuracy": (correct.sum(), weight.sum())}

    def objective(outputs, batch):
        numbers = {"label_smoothing": smoothing}
        if weighted:
            numbers["class_weights"] = jnp.asarray(of_classes, outputs.dtype)
        return classification.objective(outputs, batch, **numbers)

    check(objective, logits, batch, expected, p * pull.sum(-1, keepdims=True) - pull)


@variants(
    [(False, ("weights",), None), (True, PARTS[3], 1.2)],
    per_step=[False, True],
    parts=PARTS,
    tolerance=[None, 1.2],
)
def test_regression(per_step, parts, tolerance):
    batch, weight = batch_of(per_step, parts, lambda rng, shape: rng.normal(size=(*shape, TARGETS)))
    outputs = np.random.default_rng(5).normal(size=(*weight.shape, TARGETS))
    errors = outputs - batch["labels"]
    expected = {
        "loss": ((weight * (errors**2).mean(-1)).sum(), weight.sum()),
        "absolute_error": ((weight * np.abs(errors).mean(-1)).sum(), weight.sum()),
    }
    if tolerance:
        close = (np.abs(errors) <= tolerance).all(-1)
        assert 0 < close.sum() < close.size
        expected["accuracy"] = ((close * weight).sum(), weight.sum())
    batch["labels"][weight == 0] = np.nan
    gradient = weight[..., None] * 2 * errors / TARGETS
    check(lambda x, b: regression.objective(x, b, tolerance=tolerance), outputs, batch, expected, gradient)


@variants([(True, PARTS[3])], per_step=[False, True], parts=PARTS)
def test_gaussian(per_step, parts):
    batch, weight = batch_of(per_step, parts, lambda rng, shape: rng.normal(size=(*shape, TARGETS)))
    outputs = 2 * np.random.default_rng(5).normal(size=(*weight.shape, 2 * TARGETS))
    labels = batch["labels"].copy()

    def surprise(outputs):
        mean, v = outputs[..., :TARGETS], outputs[..., TARGETS:]
        deviation = np.sqrt(np.where(v < 0, np.exp(v), v + 1))
        return -(weight[..., None] * scipy.stats.norm.logpdf(labels, mean, deviation)).sum()

    mse = (weight * ((outputs[..., :TARGETS] - labels) ** 2).mean(-1)).sum()
    expected = {"loss": (surprise(outputs), weight.sum()), "mse": (mse, weight.sum())}
    batch["labels"][weight == 0] = np.nan
    gradient = differences(surprise, outputs)
    analytic = jax.jit(jax.grad(lambda x, b: gaussian.objective(x, b)["loss"][0]))
    with double_precision():
        exact = np.asarray(analytic(outputs, batch))
    assert relative_error(exact, gradient) < 1e-8
    check(gaussian.objective, outputs, batch, expected, exact)


def test_variance_is_smooth_at_zero_and_never_zero():
    v = jnp.array([-1e4, -20.0, -1.0, -1e-6, 0.0, 1e-6, 3.0])
    np.testing.assert_allclose(gaussian.variance(v), [1e-6, 1e-6, np.exp(-1), 1, 1, 1, 4], rtol=1e-5)
    slope = jax.vmap(jax.grad(gaussian.variance))(v)
    np.testing.assert_allclose(slope, [0, 0, np.exp(-1), 1, 1, 1, 1], rtol=1e-5)


def test_weights_of_labels():
    batch = {
        "lengths": jnp.array([3, 1, 2], jnp.int8),
        "counted": jnp.array([True, True, False]),
        "weights": jnp.array([[1, 2, 3, 4], [5, 6, 7, 8], [9, 9, 9, 9]]),
    }
    np.testing.assert_array_equal(
        weights(batch, (3, 4), jnp.dtype("float32")), [[1, 2, 3, 0], [5, 0, 0, 0], [0, 0, 0, 0]]
    )
    of_sequences = {**batch, "weights": jnp.array([1, 2, 3])}
    np.testing.assert_array_equal(weights(of_sequences, (3,), jnp.dtype("float32")), [1, 2, 0])


def task(**fields):
    labels = np.zeros((2, 1), np.float32) if "targets" in fields else np.zeros(2, int)
    split = Split(np.zeros((2, L, 1), np.float32), labels)
    return Task(name="task", splits=dict.fromkeys(("train", "val", "test"), split), length=L, **fields)


def test_what_objectives_say_of_a_task():
    assert classification.outputs(task(num_classes=3)) == 3
    assert regression.outputs(task(targets=1)) == 1
    assert gaussian.outputs(task(targets=1)) == 2
    assert regression.hyper(task(targets=1), None) == {}
    assert regression.hyper(task(targets=1, tolerance=0.5), None) == {"tolerance": 0.5}
    numbers = classification.hyper(task(num_classes=2), classification.Options(label_smoothing=0.25))
    assert numbers["label_smoothing"] == 0.25
    np.testing.assert_array_equal(numbers["class_weights"], [1, 1])
    with pytest.raises(ValueError, match="class_weights has 3 numbers for 2 classes"):
        classification.hyper(task(num_classes=2), classification.Options(class_weights=(1.0, 2.0, 3.0)))
    for wrong in ({"label_smoothing": 1.0}, {"class_weights": (-1.0, 2.0)}, {"class_weights": (0.0, 0.0)}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            classification.Options(**wrong)


@pytest.mark.parametrize("per_step", [False, True])
def test_nan_and_labels_that_do_not_count_do_not_matter_to_a_classification(per_step):
    shape = (B, L) if per_step else (B,)
    rng = np.random.default_rng(0)
    outputs = jnp.asarray(rng.normal(size=(*shape, CLASSES)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, CLASSES, shape), jnp.int32)
    counts = jnp.asarray(rng.random(shape) < 0.5)
    batch = {"labels": labels, "weights": counts.astype(jnp.float32)}
    spoiled = {**batch, "labels": jnp.where(counts, labels, -100)}
    smoothed = {"label_smoothing": 0.1, "class_weights": jnp.arange(1.0, CLASSES + 1)}

    @jax.jit
    @jax.value_and_grad
    def loss(outputs, batch):
        return classification.objective(outputs, batch, **smoothed)["loss"][0]

    expected = loss(outputs, batch)
    actual = loss(jnp.where(counts[..., None], outputs, jnp.nan), spoiled)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)
