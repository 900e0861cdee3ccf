"""Six optimizer steps of the published S5 code, step for step: losses, rates, parameters, running statistics."""

import functools
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from flax import nnx
from numerics import load_case, relative_error

from s5jax.data.task import Split, Task
from s5jax.ssm import scan
from s5jax.train import step as steps
from s5jax.train.build import build
from s5jax.train.resolve import resolve

CASES = ["listops", "image", "retrieval", "pathx", "sc", "postnorm_ln"]


def recorded_experiment(meta, data, method):
    """The recorded run as a config and a task of the same shape."""
    tokens, B = meta["d_input"] > 1, meta["batch"]
    config = resolve(
        {
            "task": {"name": "digits"},  # for its name alone: the data are those of the record
            "mixers": {
                "s5": {
                    "state_size": meta["P"],
                    "blocks": meta["J"],
                    "scan_method": method,
                    **{k: meta[k] for k in ("bidirectional", "clip_eigs", "C_init", "discretization", "conj_sym")},
                }
            },
            "model": {
                "depth": meta["n_layers"],
                "d_model": meta["H"],
                "encoder": "one_hot" if tokens else "dense",
                "norm": "batch" if meta["batchnorm"] else "layer",
                "mask_padding": False,
                **{k: meta[k] for k in ("activation", "prenorm", "bn_momentum")},
            },
            "optim": {
                "grouping": meta["opt_config"],
                "schedule": "s5_published",
                **{k: meta[k] for k in ("lr", "ssm_lr", "weight_decay", "dt_global")},
            },
            "train": {"epochs": meta["total_steps"], "warmup_epochs": meta["warmup_steps"], "batch_size": B},
        }
    )
    x, lengths = data["x"], data["lengths"]
    if meta["retrieval"]:  # recorded as the first documents of all pairs, then the second
        x, lengths = (np.stack(np.split(v, 2, axis=1), 2) for v in (x, lengths))
    batches = [
        {"inputs": jnp.asarray(x[i]), "labels": jnp.asarray(data["y"][i], jnp.int32)}
        | ({"lengths": jnp.asarray(lengths[i], jnp.int32)} if meta["padded"] else {})
        for i in range(6)
    ]
    split = Split(x[0], data["y"][0])
    task = Task(
        name="recorded",
        splits={"train": split, "val": split, "test": split},
        length=meta["L"],
        num_classes=meta["n_classes"],
        num_tokens=meta["d_input"] if tokens else None,
        pairs=meta["retrieval"],
    )
    experiment, state = build(config, task)
    params, stats = (stacked(data.get(k, {}), meta["n_layers"]) for k in ("init", "init_stats"))
    assert jax.tree.map(jnp.shape, state.params) == jax.tree.map(jnp.shape, params)
    assert jax.tree.map(jnp.shape, state.batch_stats) == jax.tree.map(jnp.shape, stats)
    return config, experiment, state._replace(params=params, batch_stats=stats), batches


def stacked(tree, depth):
    """A recorded tree, with `layers_0`, `layers_1`, ..., as ours is; without leaves where nothing was recorded."""
    if not tree:
        return {}
    encoder = dict(tree["encoder"])
    layers = [encoder.pop(f"layers_{i}") for i in range(depth)]
    joined = jax.tree.map(lambda *x: jnp.stack([jnp.asarray(v) for v in x]), *layers)
    return jax.tree.map(jnp.asarray, {**tree, "encoder": {**encoder, "layers": {0: joined}}})


def errors(actual, expected, depth):
    leaves = jax.tree_util.tree_leaves_with_path(actual)
    expected = jax.tree.leaves(stacked(expected, depth))
    return {
        jax.tree_util.keystr(k): max(map(relative_error, a, e)) if "layers" in str(k) else relative_error(a, e)
        for (k, a), e in zip(leaves, expected, strict=True)
    }


class Remembering:
    """An optimizer whose state also has the gradient that came in."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    def init(self, params):
        return jax.tree.map(jnp.zeros_like, params), self.optimizer.init(params)

    def update(self, grads, state, params, hyper):
        updates, state = self.optimizer.update(grads, state[1], params, hyper)
        return updates, (grads, state)


# All cases with both methods take long.
QUICK = {("postnorm_ln", "sequential")}
BOTH = [
    pytest.param(case, method, marks=[] if (case, method) in QUICK else pytest.mark.slow)
    for case in CASES
    for method in typing.get_args(scan.Method)
]


@pytest.mark.parametrize(("case", "method"), BOTH)
def test_six_recorded_steps(case, method):
    meta, data = load_case(f"s5_train_{case}")
    _, experiment, state, batches = recorded_experiment(meta, data, method)

    @jax.jit
    def evaluate(state, batch):
        model = nnx.merge(experiment.graphdef, state.params, state.batch_stats)
        return model(batch["inputs"], batch.get("lengths"))

    logits = evaluate(state, batches[0])
    assert relative_error(scipy.special.log_softmax(np.float64(logits), -1), data["eval_logp0"]) < 1e-4

    optimizer = Remembering(experiment.optimizer)
    state = state._replace(opt_state=optimizer.init(state.params))
    parts = {"graphdef": experiment.graphdef, "optimizer": optimizer, "objective": experiment.objective}
    step = jax.jit(functools.partial(steps.train_step, **parts))
    losses = []
    for i, batch in enumerate(batches):
        state, metrics = step(state, batch, experiment.hyper(i))
        losses.append(metrics["loss"][0] / metrics["loss"][1])
        if i == 0:
            worst = errors(state.opt_state[0], data["grad0"], meta["n_layers"])
            assert max(worst.values()) < 1e-4, worst
    np.testing.assert_allclose(losses, data["loss"], rtol=1e-4)
    worst = errors(state.params, data["final"], meta["n_layers"])
    assert max(worst.values()) < 1e-3, worst
    of_stats = errors(state.batch_stats, data.get("final_stats", {}), meta["n_layers"])
    assert max([0.0, *of_stats.values()]) < 1e-3
    used = [float(experiment.rates(t)[-1]) for t in range(7)]
    assert used[0] == pytest.approx(meta["lr"])
    np.testing.assert_allclose(used[1:], data["lr_after_step"], rtol=1e-6, atol=1e-9)
