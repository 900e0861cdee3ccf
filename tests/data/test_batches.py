import jax
import numpy as np
import pytest

from s5jax.data import batches


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
