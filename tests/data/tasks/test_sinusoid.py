import numpy as np
import pytest

from s5jax.data.tasks import sinusoid


def test_sinusoids():
    """The labels of each example against a least-squares fit to its samples."""
    task = sinusoid.load()
    t = 0.02 * np.arange(256)
    assert task.targets == 2 and task.example_shape() == (256, 1)
    for name, end in (("train", 80), ("val", 80), ("test", 100)):
        split = task.splits[name]
        a, s = split.labels[:, 0].astype(np.float64), 100 * split.labels[:, 1].astype(np.float64)
        np.testing.assert_allclose(s, np.arange(len(split)) * end / (len(split) - 1), atol=1e-5)
        assert a.min() > 0.5 and a.max() < 1.5 and abs(a.mean() - 1) < 0.05
        for i in np.random.default_rng(0).integers(len(split) // 10, len(split), 20):
            basis = np.stack([np.cos(s[i] * t), np.sin(s[i] * t)], axis=1)
            c, residual, *_ = np.linalg.lstsq(basis, split.inputs[i, :, 0].astype(np.float64), rcond=None)
            assert np.hypot(*c) == pytest.approx(a[i], rel=1e-4) and residual < 1e-6
    first = np.concatenate([split.inputs[:, 0, 0] for split in task.splits.values()])
    assert first.min() < -1.2 and first.max() > 1.2 and abs(first.mean()) < 0.05  # any phase
    again = sinusoid.load().splits["test"]
    np.testing.assert_array_equal(again.inputs, task.splits["test"].inputs)
