"""Models at the edge of what they take: nothing that counts, everything dropped, rates in the padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from small_models import build, quick_key, split, values

B, L = 3, 6


def finite(tree):
    return all(np.isfinite(x).all() for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact))


def gradients(model, x, **given):
    graphdef, params, stats = split(model)

    def loss(params):
        model = nnx.merge(graphdef, params, stats)
        return jnp.sum(model(x, train=True, **given) ** 2), nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)


def test_a_batch_in_which_nothing_counts_spoils_no_statistics():
    model = build("s5", head="step")
    assert finite(gradients(model, values(B, L, 2), mask=jnp.ones((B, L), bool)))


def test_everything_may_be_dropped():
    model = build("s5", dropout=0.5)
    assert finite(gradients(model, values(B, L, 2), key=quick_key(0), dropout=1.0))


def test_dropout_without_an_activation():
    model = build("s5", dropout=0.9, activation="none", norm="layer")
    x = values(B, L, 2)
    dropped, whole = jax.jit(lambda x, key: (model(x, key=key), model(x)))(x, quick_key(0))
    assert np.abs(dropped - whole).max() > 1e-3


def test_rates_in_the_padding_do_not_matter_where_padding_enters():
    model = build("s5-two", mask_padding=False)
    lengths = np.array([6, 4, 2], np.int32)
    rate = np.where(np.arange(L)[None] < lengths[:, None], 1.5, np.nan).astype(np.float32)
    run = jax.jit(lambda rate: model(values(B, L, 2), jnp.asarray(lengths), rate=rate))
    np.testing.assert_array_equal(run(rate), run(np.nan_to_num(rate, nan=1.0)))


@pytest.mark.parametrize("shape", [(B, 1), (B, B)])
def test_a_step_takes_one_rate_for_a_sequence(shape):
    model = build("s5")
    with pytest.raises(ValueError, match=r"rate must have the shape \(\) or \(3,\), got"):
        model.step(model.init_state(B), values(B, 2), rate=jnp.ones(shape))


def test_the_pair_head_computes_gelu_as_asked():
    x = values(B, 2, L, 2)
    models = [build("leaky", head="pair", activation="none", gelu=gelu) for gelu in ("tanh", "exact")]
    tanh, exact = (jax.jit(model)(x) for model in models)
    assert 0 < np.abs(tanh - exact).max() < 1e-2
