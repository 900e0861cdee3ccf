"""Six optimizer steps of the published S5 code, step for step: losses, rates, parameters, running statistics."""

import functools
import typing

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from numerics import load_case, relative_error

from s5jax.data.task import Split, Task
from s5jax.models.names import per_layer, stacked
from s5jax.ssm import scan
from s5jax.training import optimizer as optimizers
from s5jax.training import state as states
from s5jax.training import step as steps
from s5jax.training.config import resolve

CASES = ["listops", "image", "retrieval", "pathx", "sc", "postnorm_ln"]


def recorded_experiment(meta, data, method):
    """The recorded run as a config and a task of the same shape."""
    tokens, B = meta["d_input"] > 1, meta["batch"]
    config = resolve(
        {
            "task": {"name": "digits"},  # for its name alone: the data are those of the record
            "ssm": {
                "name": "s5",
                "state_size": meta["P"],
                "blocks": meta["J"],
                "scan_method": method,
                **{k: meta[k] for k in ("bidirectional", "clip_eigs", "C_init", "discretization", "conj_sym")},
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
    experiment, state = states.build(config, task)
    params, stats = (jax.tree.map(jnp.asarray, stacked(data.get(k, {}))) for k in ("init", "init_stats"))
    assert jax.tree.map(jnp.shape, state.params) == jax.tree.map(jnp.shape, params)
    assert jax.tree.map(jnp.shape, state.batch_stats) == jax.tree.map(jnp.shape, stats)
    return config, experiment, state._replace(params=params, batch_stats=stats), batches


def errors(actual, expected):
    leaves = jax.tree_util.tree_leaves_with_path(per_layer(actual))
    return {
        jax.tree_util.keystr(k): relative_error(a, e)
        for (k, a), e in zip(leaves, jax.tree.leaves(expected), strict=True)
    }


def remember_gradient():
    """An optimizer's first link, whose state is the gradient that came in."""
    return optax.GradientTransformation(
        lambda params: jax.tree.map(jnp.zeros_like, params), lambda gradient, _, params=None: (gradient, gradient)
    )


# All cases with both methods take long.
QUICK = {(case, "sequential") for case in ("listops", "image", "retrieval")}
QUICK |= {("postnorm_ln", "associative")}
BOTH = [
    pytest.param(case, method, marks=[] if (case, method) in QUICK else pytest.mark.slow)
    for case in CASES
    for method in typing.get_args(scan.Method)
]


@pytest.mark.parametrize(("case", "method"), BOTH)
def test_six_recorded_steps(case, method):
    meta, data = load_case(f"s5_train_{case}")
    config, experiment, state, batches = recorded_experiment(meta, data, method)

    @jax.jit
    def evaluate(state, batch):
        model = nnx.merge(experiment.graphdef, state.params, state.batch_stats)
        return model(batch["inputs"], batch.get("lengths"))

    logits = evaluate(state, batches[0])
    assert relative_error(jax.nn.log_softmax(logits), data["eval_logp0"]) < 1e-4

    optimizer = optax.chain(remember_gradient(), experiment.optimizer)
    state = state._replace(opt_state=optimizer.init(state.params))
    step = jax.jit(
        functools.partial(steps.train_step, graphdef=experiment.graphdef, optimizer=optimizer, key=jax.random.key(0))
    )
    losses = []
    for batch in batches:
        state, metrics = step(state, batch)
        losses.append(metrics["loss"])
        if len(losses) == 1:
            worst = errors(state.opt_state[0], data["grad0"])
            assert max(worst.values()) < 1e-4, worst
    np.testing.assert_allclose(losses, data["loss"], rtol=1e-4)
    worst = errors(state.params, data["final"])
    assert max(worst.values()) < 1e-3, worst
    assert max([0.0, *errors(state.batch_stats, data.get("final_stats", {})).values()]) < 1e-3

    schedule = optimizers.make_schedule(config.optim, meta["lr"], meta["warmup_steps"], meta["total_steps"])
    used = [float(schedule(t)) for t in range(7)]
    assert used[0] == pytest.approx(meta["lr"])
    np.testing.assert_allclose(used[1:], data["lr_after_step"], rtol=1e-6, atol=1e-9)
