import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s5jax.ssm import s5
from s5jax.training import optimizer as optimizers
from s5jax.training.config import Optim

PARAMS = {
    "encoder": {
        "encoder": {"kernel": jnp.ones(2)},
        "layers_0": {
            "norm": {"scale": jnp.ones(2)},
            "seq": {name: jnp.ones(2) for name in ("Lambda_re", "Lambda_im", "B", "C1", "C2", "D", "log_step")},
        },
    },
    "decoder": {"B": jnp.ones(2)},  # the name of an SSM's leaf outside an SSM
}

# The published table: (Lambda_re, B, C1, D, log_step) of each grouping.
TABLE = {
    "standard": ("ssm", "ssm", "regular", "regular", "ssm"),
    "BandCdecay": ("ssm", "ssm_decay", "regular", "regular", "ssm"),
    "BfastandCdecay": ("ssm", "regular", "regular", "regular", "ssm"),
    "noBCdecay": ("ssm", "ssm", "ssm", "ssm", "ssm"),
    "plain": ("regular",) * 5,
}


@pytest.mark.parametrize("dt_global", [False, True])
@pytest.mark.parametrize("grouping", TABLE)
def test_groups_follow_the_published_table(grouping, dt_global):
    labels = optimizers.label(PARAMS, Optim(grouping=grouping, dt_global=dt_global), s5.SSM_PARAMS)
    seq = labels["encoder"]["layers_0"]["seq"]
    expected = (*TABLE[grouping][:-1], "regular" if dt_global else TABLE[grouping][-1])
    assert tuple(seq[name] for name in ("Lambda_re", "B", "C1", "D", "log_step")) == expected
    assert seq["Lambda_im"] == seq["Lambda_re"] and seq["C2"] == seq["C1"]
    assert labels["encoder"]["layers_0"]["norm"]["scale"] == "regular"
    assert labels["encoder"]["encoder"]["kernel"] == labels["decoder"]["B"] == "regular"


def test_one_step_of_each_group_against_adamw_by_hand():
    optim = Optim(lr=0.1, ssm_lr=0.01, weight_decay=0.5, grouping="BandCdecay")
    labels = optimizers.label(PARAMS, optim, s5.SSM_PARAMS)
    optimizer = optimizers.make_optimizer(optim, labels, 0, 10)
    updates, _ = optimizer.update(jax.tree.map(lambda x: 3 * x, PARAMS), optimizer.init(PARAMS), PARAMS)
    seq = updates["encoder"]["layers_0"]["seq"]
    # Adam's first update is the gradient's sign; decay adds the parameter, 1, times weight_decay.
    np.testing.assert_allclose(seq["Lambda_re"], -0.01, rtol=1e-5)
    np.testing.assert_allclose(seq["B"], -0.01 * 1.5, rtol=1e-5)
    np.testing.assert_allclose(seq["C1"], -0.1 * 1.5, rtol=1e-5)


def test_frozen_gradients_do_not_count_in_the_clip():
    params = {"seq": {"B": jnp.ones(2), "C": jnp.ones(2)}, "decoder": {"kernel": jnp.ones(2)}}
    labels = optimizers.label(params, Optim(grouping="only_C"), ("B",))
    assert labels == {"seq": {"B": "frozen", "C": "regular"}, "decoder": {"kernel": "regular"}}
    optimizer = optimizers.make_optimizer(Optim(clip_norm=1.0), labels, 0, 10)
    grads = {"seq": {"B": jnp.full(2, 1e6), "C": jnp.full(2, 0.3)}, "decoder": {"kernel": jnp.full(2, 0.1)}}
    updates, state = optimizer.update(grads, optimizer.init(params), params)
    assert not updates["seq"]["B"].any()
    moments = {round(float(x[0]), 6) for x in jax.tree.leaves(state) if jnp.shape(x) == (2,)}
    assert {0.03, 0.01} <= moments  # a tenth of the gradients, whose norm is below 1


def test_clipping_bounds_the_global_norm():
    labels = optimizers.label(PARAMS, Optim(), s5.SSM_PARAMS)
    grads = jax.tree.map(lambda x: 3 * x, PARAMS)
    moments = {}
    for clip in (0.0, 0.5):
        optimizer = optimizers.make_optimizer(Optim(clip_norm=clip), labels, 0, 10)
        _, state = optimizer.update(grads, optimizer.init(PARAMS), PARAMS)
        mu = [x for p, x in jax.tree_util.tree_leaves_with_path(state) if ".mu" in jax.tree_util.keystr(p)]
        moments[clip] = np.sqrt(sum(np.sum(np.square(x)) for x in mu)) / 0.1
    assert moments[0.0] == pytest.approx(3 * np.sqrt(20), rel=1e-5)
    assert moments[0.5] == pytest.approx(0.5, rel=1e-5)


def test_warmup_and_cosine():
    schedule = optimizers.make_schedule(Optim(lr_min=0.1), 1.0, 4, 12)
    expected = [0.25 + 0.75 * t / 4 for t in range(4)]
    expected += [0.1 + 0.9 * (1 + np.cos(np.pi * (t - 4) / 8)) / 2 for t in range(4, 13)]
    np.testing.assert_allclose([schedule(t) for t in range(13)], expected, rtol=1e-5)
    assert optimizers.make_schedule(Optim(), 1.0, 0, 12)(0) == 1.0


def test_published_schedule_by_a_loop_that_sets_the_rate_after_each_step():
    W, T, base, least = 3, 10, 0.4, 0.01
    schedule = optimizers.make_schedule(Optim(schedule="s5_published", lr_min=least), base, W, T)
    rate = base
    for t in range(T):
        assert float(schedule(t)) == pytest.approx(rate, rel=1e-5), t
        rate = (
            base * (t + 1) / W if t < W else least + (base - least) * (1 + np.cos(np.pi * min(t, T - W) / (T - W))) / 2
        )
    assert rate == pytest.approx(least)
    no_warmup = optimizers.make_schedule(Optim(schedule="s5_published"), base, 0, T)
    assert float(no_warmup(1)) == pytest.approx(base)
