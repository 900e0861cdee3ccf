import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from s5jax.mixers import lru
from s5jax.train import optimizer as optimizers
from s5jax.train import trial
from s5jax.train.build import build, load_task
from s5jax.train.config import Optim, UserError

PARAMS = {
    "encoder": {
        "encoder": {"kernel": jnp.ones(2)},
        "layers": {
            0: {
                "norm": {"scale": jnp.ones(2)},
                "seq": {name: jnp.ones(2) for name in ("Lambda_re", "Lambda_im", "B", "C1", "C2", "D", "log_step")},
            }
        },
    },
    "decoder": {"B": jnp.ones(2)},  # the name of a mixer's leaf outside a mixer
}


def labels_of(optim, params=PARAMS, *fields):
    """The names of the groups."""
    config = dataclasses.replace(tiny.config(*fields), optim=optim)
    names = [group.name for group in optimizers.groups_of(optim)]
    return jax.tree.map(lambda i: names[i], optimizers.group_labels(config, params))


def optimizer_of(optim, params=PARAMS):
    """An update at the groups' own rates."""
    optimizer = optimizers.Optimizer(
        optim, optimizers.group_labels(dataclasses.replace(tiny.config(), optim=optim), params)
    )
    hyper = {
        "lr": np.float32([group.lr for group in optimizer.groups]),
        "weight_decay": np.float32([group.weight_decay for group in optimizer.groups]),
        **({"clip_norm": np.float32(optim.clip_norm)} if optim.clip_norm else {}),
    }
    return optimizer, hyper


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
    labels = labels_of(Optim(grouping=grouping, dt_global=dt_global))
    seq = labels["encoder"]["layers"][0]["seq"]
    expected = (*TABLE[grouping][:-1], "regular" if dt_global else TABLE[grouping][-1])
    assert tuple(seq[name] for name in ("Lambda_re", "B", "C1", "D", "log_step")) == expected
    assert seq["Lambda_im"] == seq["Lambda_re"] and seq["C2"] == seq["C1"]
    assert labels["encoder"]["layers"][0]["norm"]["scale"] == "regular"
    assert labels["encoder"]["encoder"]["kernel"] == labels["decoder"]["B"] == "regular"


@pytest.mark.parametrize(
    ("grouping", "expected"),
    [
        ("standard", ("ssm", "ssm", "regular", "regular")),
        ("BandCdecay", ("ssm", "ssm_decay", "regular", "regular")),
        ("BfastandCdecay", ("ssm", "regular", "regular", "regular")),
        ("noBCdecay", ("ssm", "ssm", "ssm", "ssm")),
        ("only_C", ("frozen", "frozen", "regular", "frozen")),
    ],
)
def test_groups_of_a_mixer_that_stores_real_and_imaginary_parts(grouping, expected):
    pattern, options = "--config.model.pattern=('lru',)", lru.Options(state_size=4, bidirectional=True)
    seq = lru.init(jax.random.key(0), 2, options)
    labels = labels_of(Optim(grouping=grouping), {"encoder": {"layers": {0: {"seq": seq}}}}, pattern)
    seq = labels["encoder"]["layers"][0]["seq"]
    assert tuple(seq[name] for name in ("nu_log", "B_re", "C_re", "D")) == expected
    assert seq["B_im"] == seq["B_re"] and seq["C_im"] == seq["C2_re"] == seq["C2_im"] == seq["C_re"]


def test_step_sizes_of_a_model_without_any_cannot_be_trained_globally():
    params = {"encoder": {"layers": {0: {"seq": {"query": jnp.ones(2)}}}}}
    with pytest.raises(UserError, match="dt_global changes nothing: no mixer of the model has a log_step"):
        labels_of(Optim(dt_global=True), params, "--config.model.pattern=('attention',)")


def test_the_least_rate_is_compared_with_the_rates_that_occur():
    with pytest.raises(UserError, match=r"config\.optim\.lr_min 0\.002 exceeds 0\.001, the lr of group ssm"):
        labels_of(Optim(lr_min=0.002))
    labels_of(Optim(lr_min=0.002, grouping="plain"))
    with pytest.raises(UserError, match=r"lr_min 0\.002 exceeds 0\.0001, the lr of group rule 1"):
        labels_of(Optim(lr_min=0.002, grouping="plain", rules=((".*/seq/D", {"lr": 1e-4}),)))


def test_a_group_whose_rate_is_zero_stays_there():
    rules = "--config.optim.rules=(('.*/seq/D', {'lr': 0.0}),)"
    config = tiny.config(rules, "--config.optim.lr_min=1e-4")
    experiment, _ = build(config, load_task(config))
    assert experiment.rates(40)[0] == experiment.rates(tiny.STEPS)[0] == 0
    assert experiment.rates(tiny.STEPS)[-1] == pytest.approx(1e-4)


def test_one_step_of_each_group_against_adamw_by_hand():
    optimizer, hyper = optimizer_of(Optim(lr=0.1, ssm_lr=0.01, weight_decay=0.5, grouping="BandCdecay"))
    grads = jax.tree.map(lambda x: 3 * x, PARAMS)
    updates, _ = optimizer.update(grads, optimizer.init(PARAMS), PARAMS, hyper)
    seq = updates["encoder"]["layers"][0]["seq"]
    # Adam's first update is the gradient's sign; decay adds the parameter, 1, times weight_decay.
    np.testing.assert_allclose(seq["Lambda_re"], -0.01, rtol=1e-5)
    np.testing.assert_allclose(seq["B"], -0.01 * 1.5, rtol=1e-5)
    np.testing.assert_allclose(seq["C1"], -0.1 * 1.5, rtol=1e-5)


def test_frozen_gradients_do_not_count_in_the_clip():
    params = {
        "encoder": {"layers": {0: {"seq": {"B": jnp.ones(2), "C": jnp.ones(2)}}}},
        "decoder": {"kernel": jnp.ones(2)},
    }
    optim = Optim(grouping="only_C", clip_norm=1.0)
    seq = {"B": "frozen", "C": "regular"}
    assert labels_of(optim, params) == {"encoder": {"layers": {0: {"seq": seq}}}, "decoder": {"kernel": "regular"}}
    optimizer, hyper = optimizer_of(optim, params)
    grads = {
        "encoder": {"layers": {0: {"seq": {"B": jnp.full(2, 1e6), "C": jnp.full(2, 0.3)}}}},
        "decoder": {"kernel": jnp.full(2, 0.1)},
    }
    updates, state = optimizer.update(grads, optimizer.init(params), params, hyper)
    assert not updates["encoder"]["layers"][0]["seq"]["B"].any()
    moments = {round(float(x[0]), 6) for x in jax.tree.leaves(state) if jnp.shape(x) == (2,)}
    assert {0.03, 0.01} <= moments  # a tenth of the gradients, whose norm is below 1


def test_clipping_bounds_the_global_norm():
    grads = jax.tree.map(lambda x: 3 * x, PARAMS)
    moments = {}
    for clip in (0.0, 0.5):
        optimizer, hyper = optimizer_of(Optim(clip_norm=clip))
        _, state = optimizer.update(grads, optimizer.init(PARAMS), PARAMS, hyper)
        mu = [x for p, x in jax.tree_util.tree_leaves_with_path(state) if ".mu" in jax.tree_util.keystr(p)]
        moments[clip] = np.sqrt(sum(np.sum(np.square(x)) for x in mu)) / 0.1
    assert moments[0.0] == pytest.approx(3 * np.sqrt(20), rel=1e-5)
    assert moments[0.5] == pytest.approx(0.5, rel=1e-5)


def test_rules_come_first_and_the_first_that_matches_counts():
    rules = (
        (".*/seq/D", {"lr": 0.5, "weight_decay": 0.25}),
        ("encoder/layers/0/seq/(C1|D)", {"frozen": True}),
        ("@dynamics", {"weight_decay": 0.125}),
    )
    optim = Optim(rules=rules, lr=0.1, weight_decay=1.0)
    seq = labels_of(optim)["encoder"]["layers"][0]["seq"]
    assert (seq["D"], seq["C1"], seq["C2"]) == ("rule 1", "rule 2", "regular")
    assert {seq[name] for name in ("Lambda_re", "Lambda_im", "B", "log_step")} == {"rule 3"}
    optimizer, hyper = optimizer_of(optim)
    updates, _ = optimizer.update(PARAMS, optimizer.init(PARAMS), PARAMS, hyper)
    seq = updates["encoder"]["layers"][0]["seq"]
    for name, expected in {"D": -0.5 * 1.25, "C1": 0.0, "C2": -0.1 * 2.0, "B": -0.1 * 1.125}.items():
        np.testing.assert_allclose(seq[name], expected, rtol=1e-5)
    np.testing.assert_allclose(updates["decoder"]["B"], -0.1 * 2.0, rtol=1e-5)


@pytest.mark.parametrize("pattern", ["encoder/layers/1/seq/B", "B", "@dynamic"])
def test_a_rule_that_matches_nothing_is_refused(pattern):
    with pytest.raises(UserError, match="matches no parameter, or only ones of an earlier rule; remove it"):
        labels_of(Optim(rules=((pattern, {"lr": 0.1}),)))


@pytest.mark.parametrize(
    ("fields", "by_hand"),
    [
        ({"name": "sgd"}, lambda g, p: -0.1 * (g + 0.5 * p)),  # L2
        ({"name": "sgd", "arguments": {"momentum": 0.9}}, lambda g, p: -0.1 * (g + 0.5 * p)),
        ({"name": "lion"}, lambda g, p: -0.1 * (np.sign(g) + 0.5 * p)),
        ({"name": "adam"}, lambda g, p: -0.1 * np.sign(g + 0.5 * p)),
        ({"name": "adamw", "eps": 3.0}, lambda g, p: -0.1 * (g / (abs(g) + 3.0) + 0.5 * p)),
        ({"name": "adamw", "b1": 0.5, "b2": 0.7}, lambda g, p: -0.1 * (np.sign(g) + 0.5 * p)),
    ],
)
def test_first_step_of_other_optimizers(fields, by_hand):
    params, grads = {"kernel": jnp.float32([2.0, -1.0])}, {"kernel": jnp.float32([3.0, -0.25])}
    optimizer, hyper = optimizer_of(Optim(lr=0.1, weight_decay=0.5, **fields), params)
    updates, _ = jax.jit(optimizer.update)(grads, optimizer.init(params), params, hyper)
    expected = by_hand(np.float64(grads["kernel"]), np.float64(params["kernel"]))
    np.testing.assert_allclose(updates["kernel"], expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["adamw", "adam", "lion", "adan", "yogi", "adagrad", "sgd"])
def test_what_a_config_leaves_out_is_optax_s_default(name):
    params, grads = {"kernel": jnp.float32([2.0, -1.0])}, {"kernel": jnp.float32([3.0, -0.25])}
    optimizer, hyper = optimizer_of(Optim(name=name, lr=0.1, weight_decay=0.0), params)
    theirs = getattr(optax, name)(0.1, **({"weight_decay": 0.0} if name in ("adamw", "lion", "adan") else {}))
    state, other = optimizer.init(params), theirs.init(params)
    for _ in range(3):
        updates, state = optimizer.update(grads, state, params, hyper)
        expected, other = theirs.update(grads, other, params)
        np.testing.assert_allclose(updates["kernel"], expected["kernel"], rtol=1e-6)
        grads = jax.tree.map(lambda g: 0.5 * g - 0.1, grads)


def test_rates_that_an_optimizer_starts_from_are_those_of_the_groups():
    """rprop's are its first steps, which optax makes one update late; the gradients' signs change them."""
    optimizer, hyper = optimizer_of(Optim(name="rprop", lr=0.1, ssm_lr=0.01, weight_decay=0.0))
    _, state = optimizer.update(PARAMS, optimizer.init(PARAMS), PARAMS, hyper)
    updates, state = optimizer.update(PARAMS, state, PARAMS, hyper)
    np.testing.assert_allclose(updates["decoder"]["B"], -0.1, rtol=1e-6)
    np.testing.assert_allclose(updates["encoder"]["layers"][0]["seq"]["B"], -0.01, rtol=1e-6)
    updates, _ = optimizer.update(PARAMS, state, PARAMS, hyper)
    np.testing.assert_allclose(updates["decoder"]["B"], -0.12, rtol=1e-6)


def test_an_argument_that_an_optimizer_lacks_is_refused():
    with pytest.raises(UserError, match=r"config\.optim\.b2: optax\.sgd has no such argument"):
        trial.check(Optim(name="sgd", b2=0.9))


def schedule(optim, base, warmup, total):
    return lambda step: optimizers.rate_at(optim, step, warmup, total, base)


def test_warmup_and_cosine():
    rate = schedule(Optim(lr=1.0, ssm_lr=1.0, lr_min=0.1), 1.0, 4, 12)
    expected = [0.25 + 0.75 * t / 4 for t in range(4)]
    expected += [0.1 + 0.9 * (1 + np.cos(np.pi * (t - 4) / 8)) / 2 for t in range(4, 13)]
    np.testing.assert_allclose([rate(t) for t in range(13)], expected, rtol=1e-12)
    assert schedule(Optim(), 1.0, 0, 12)(0) == 1.0
    constant = schedule(Optim(schedule="constant"), 1.0, 4, 12)
    np.testing.assert_allclose([constant(t) for t in range(13)], [*expected[:4], *[1.0] * 9], rtol=1e-12)


def test_inverse_square_root():
    rate = schedule(Optim(schedule="inverse_sqrt"), 0.5, 4, 12)
    expected = [0.5 * (0.25 + 0.75 * t / 4) for t in range(4)] + [0.5 * np.sqrt(4 / t) for t in range(4, 20)]
    np.testing.assert_allclose([rate(t) for t in range(20)], expected, rtol=1e-12)
    assert schedule(Optim(schedule="inverse_sqrt"), 0.5, 0, 12)(0) == 0.5


def test_published_schedule_by_a_loop_that_sets_the_rate_after_each_step():
    W, T, base, least = 3, 10, 0.4, 0.01
    at = schedule(Optim(lr=base, ssm_lr=base, schedule="s5_published", lr_min=least), base, W, T)
    rate = base
    for t in range(T):
        assert at(t) == pytest.approx(rate, rel=1e-12), t
        rate = (
            base * (t + 1) / W if t < W else least + (base - least) * (1 + np.cos(np.pi * min(t, T - W) / (T - W))) / 2
        )
    assert rate == pytest.approx(least)
    assert schedule(Optim(schedule="s5_published"), base, 0, T)(1) == pytest.approx(base)
