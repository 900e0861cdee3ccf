import jax.numpy as jnp
import numpy as np

from s5jax.data.tasks import digits


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
