"""One step of training and one of evaluation, as pure functions."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array

from s5jax.data.task import PER_STEP
from s5jax.objectives import Batch, Metrics

Hyper = dict[str, Any]
"""The numbers of a step that change no shape, see `build.Experiment.hyper`."""


class TrainState(NamedTuple):
    """All that a training step takes and gives back. Trees are nested dicts with the model's names."""

    step: jax.Array
    """Steps done, int32."""
    params: Any
    batch_stats: Any
    opt_state: Any
    average: Any = None
    """The average of `params` and `batch_stats` over the steps, where it is asked for."""
    memory: Any = None
    """With carry_state, the model's state after the previous batch."""

    @property
    def evaluated(self) -> dict[str, Any]:
        """The `params` and `batch_stats` that are evaluated: their average where there is one."""
        return self.average or {"params": self.params, "batch_stats": self.batch_stats}


def _loss(
    params: Any, buffers: Any, batch: Batch, key: Any, *, graphdef: Any, objective: Any, hyper: Hyper, **given: Any
) -> tuple[Array, tuple[Metrics, Any]]:
    """The summed loss of a batch, all metrics, and the buffers after it: (batch statistics, the model's state)."""
    batch_stats, memory = buffers
    model = nnx.merge(graphdef, params, batch_stats)
    given |= {name: batch[name] for name in PER_STEP if name in batch}
    if memory is None:
        outputs = model(batch["inputs"], batch.get("lengths"), key=key, **given)
    else:  # the state after the previous batch or, at the beginning of a text, a new one
        fresh = jax.lax.stop_gradient(model.init_state(len(batch["inputs"])))
        memory = jax.tree.map(lambda new, old: jnp.where(hyper["fresh"], new, old), fresh, memory)
        outputs, memory = model.prefill(memory, batch["inputs"], batch.get("lengths"), key=key, **given)
    metrics = objective(outputs, batch, **hyper.get("objective", {}))
    return metrics["loss"][0], (metrics, (nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)), memory))


def train_step(
    state: TrainState,
    batch: Any,
    hyper: Hyper,
    *,
    graphdef: nnx.GraphDef,
    optimizer: Any,
    objective: Any,
    micro_batches: int = 1,
    gather: Any = None,
) -> tuple[TrainState, Metrics]:
    """One update by the mean loss of a batch; `jax.vmap` over state, batch and hyper trains several seeds at once.

    Args:
      batch: see `s5jax.objectives`; with `gather`, the input of `gather`, which builds the batch in the compiled step.
      objective: (outputs, batch, **hyper["objective"]) to sums and weights.
      micro_batches: number of parts of the batch whose gradients are computed one after the other, see `accumulate.py`.

    Returns:
      The state after the step, and the objective's metrics and `grad_norm` (global, before clipping) as (sum, weight).
    """
    batch = batch if gather is None else gather(batch)
    key = jax.random.fold_in(hyper["key"], state.step) if "key" in hyper else None
    given = {"graphdef": graphdef, "objective": objective, "hyper": hyper}
    loss = functools.partial(_loss, **given, train=True, dropout=hyper.get("dropout"))
    differentiate = jax.value_and_grad(loss, has_aux=True)
    buffers = (state.batch_stats, state.memory)
    if micro_batches == 1:
        (_, (metrics, (batch_stats, memory))), grads = differentiate(state.params, buffers, batch, key)
    else:
        from s5jax.train.accumulate import accumulate

        parts = accumulate(differentiate, micro_batches, state.params, buffers, batch, key)
        metrics, (batch_stats, memory), grads = parts
    weight = metrics["loss"][1]
    share = 1 / jnp.where(weight > 0, weight, 1)  # there may be nothing that counts
    grads = jax.tree.map(lambda g: g * share.astype(g.dtype), grads)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params, hyper)
    params = optax.apply_updates(state.params, updates)
    average = state.average
    if average is not None:
        new = {"params": params, "batch_stats": batch_stats}
        average = jax.tree.map(lambda a, x: a + (1 - hyper["average"]).astype(x.dtype) * (x - a), average, new)
    metrics |= {"grad_norm": (optax.tree.norm(grads), jnp.ones((), weight.dtype))}
    return TrainState(state.step + 1, params, batch_stats, opt_state, average, memory), metrics


def eval_step(
    state: TrainState, batch: Batch, hyper: Hyper, *, graphdef: Any, objective: Any, **given: Any
) -> tuple[Metrics, Any]:
    """The objective's metrics of a batch, each as (sum, weight), by the averaged parameters where there are any.

    Arguments as in `train_step`; `given` is for the model. Examples that are not `counted` have no effect. Also returns
    the model's state after the batch, if `state.memory` holds the state before it.
    """
    buffers = (state.evaluated["batch_stats"], state.memory)
    given = {**given, "graphdef": graphdef, "objective": objective, "hyper": hyper}
    _, (metrics, (_, memory)) = _loss(state.evaluated["params"], buffers, batch, None, **given)
    return metrics, memory
