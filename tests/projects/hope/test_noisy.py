import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from everyday import variants
from numerics import relative_error

from projects.hope import noisy_cifar, noisy_digits, pooled
from s5jax.data.store import Stored
from s5jax.data.task import Split
from s5jax.data.tasks import digits
from s5jax.objectives import classification
from s5jax.train import build, resolve


def test_noisy_digits():
    task, clean = noisy_digits.load(noisy_digits.Options(noise_steps=20)), digits.load()
    assert task.example_shape() == (84, 1) and task.per_step
    noises = []
    for name, split in task.splits.items():
        x = np.asarray(task.prepare(jnp.asarray(split.inputs)))
        np.testing.assert_array_equal(x[:, :64], clean.prepare(jnp.asarray(clean.splits[name].inputs)))
        assert (split.labels == clean.splits[name].labels[:, None]).all()
        assert (split.weights == np.r_[np.zeros(64), np.ones(20)]).all()
        noises.append(x[:, 64:].ravel())
    noise = np.concatenate(noises)
    assert noise.min() > 0 and noise.max() < 1
    assert noise.mean() == pytest.approx(0.5, abs=0.01) and noise.std() == pytest.approx(12**-0.5, abs=0.01)
    assert abs(np.corrcoef(noise[:-20], noise[20:])[0, 1]) < 0.03  # another one for each example


def test_noisy_cifar():
    rng = np.random.default_rng(0)
    split = Split(rng.integers(0, 256, (2, 1024, 3), np.uint8), np.array([3, 9]))
    task = noisy_cifar.load(Stored(dict.fromkeys(("train", "val", "test"), split), {}))
    assert task.example_shape() == (2048, 3) and task.num_classes == 10
    x = task.prepare(jnp.asarray(task.splits["test"].inputs))
    assert x.shape == (2, 2048, 3) and x[:, 1024:].min() > 0 and x[:, 1024:].max() < 1 and x[:, :1024].min() < -1


def test_the_objective_pools_features_over_the_steps_that_count():
    rng = np.random.default_rng(0)
    features, W, b = (rng.normal(size=shape).astype(np.float32) for shape in [(3, 6, 4), (4, 5), (5,)])
    labels = np.array([1, 4, 0])
    counts = np.broadcast_to(np.arange(6) >= 2, (3, 6)).astype(np.uint8)
    outputs = features @ W + b
    outputs[:, 0] = np.nan
    batch = {"labels": np.repeat(labels[:, None], 6, 1), "weights": counts, "counted": np.array([True, True, False])}
    found = pooled.objective(jnp.asarray(outputs), {n: jnp.asarray(v) for n, v in batch.items()})
    pooled_by_hand = jnp.asarray(features[:2, 2:].mean(1) @ W + b)
    expected = classification.objective(pooled_by_hand, {"labels": jnp.asarray(labels[:2])})
    for name in ("loss", "accuracy"):
        assert relative_error(found[name], np.stack(expected[name])) < 1e-6


@variants(
    ["noisy_digits.py:s5-short"],
    recipe=["noisy_digits.py:s5-short", "noisy_digits.py:hope", "noisy_cifar.py:hope-published"],
)
def test_recipes_build(recipe):
    config = resolve.resolve(resolve.load_config(f"{tiny.ROOT}/projects/hope/configs/{recipe}"))
    task = tiny.load_blank_task(config) if "cifar" in recipe else build.load_task(config)
    state = build.build(config, task)[1]
    assert state.params["encoder"]["layers"][0]["seq"]["log_step"].shape[0] == 4
