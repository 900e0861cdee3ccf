"""One step of training and one of evaluation, as pure functions."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array

from s5jax.objectives import Batch, Metrics

__all__ = ["Hyper", "TrainState", "eval_step", "train_step"]

Hyper = dict[str, Any]
"""The numbers of a step that change no shape, see `build.Experiment.hyper`."""

SEQUENCES = ("mask", "reset", "rate")  # what of a batch the model takes besides inputs and lengths


class TrainState(NamedTuple):
    """All that a training step takes and gives back. Trees are nested dicts, by the names of the models."""

    step: jax.Array
    """Steps done, int32."""
    params: Any
    batch_stats: Any
    opt_state: Any
    average: Any = None
    """The average of `params` and `batch_stats` over the steps, where it is asked for."""
    memory: Any = None
    """The model's state after the batch before, where it is carried on to the next."""


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
    """One update by the mean loss of a batch.

    Several seeds are one program: `jax.vmap` over an axis in front of state, batch and hyper.

    Args:
      state: before the step; graphdef and optimizer are those it belongs to.
      batch: see `s5jax.objectives`.
      hyper: rates, decays, dropout and its key, the objective's numbers.
      objective: (outputs, batch, **hyper["objective"]) to sums and weights.
      micro_batches: parts that the batch is read in, one after the other. Their sums and weights are added before they
        are divided: the update is that of the whole batch, but for the statistics of batch norm, which are each part's.
      gather: makes the batch of what is given as one, inside of the compiled step.

    Returns:
      The state after the step, and the objective's metrics and `grad_norm` (global, before clipping) as (sum, weight).
    """
    batch = batch if gather is None else gather(batch)
    key = jax.random.fold_in(hyper["key"], state.step) if "key" in hyper else None

    def loss(params: Any, buffers: Any, batch: Batch, key: Array | None) -> tuple[Array, tuple[Metrics, Any]]:
        batch_stats, memory = buffers
        model = nnx.merge(graphdef, params, batch_stats)
        given = {"train": True, "key": key, "dropout": hyper.get("dropout")}
        outputs, memory = _read(model, batch, memory, given)
        metrics = objective(outputs, batch, **hyper.get("objective", {}))
        return metrics["loss"][0], (metrics, (nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)), memory))

    differentiate = jax.value_and_grad(loss, has_aux=True)
    buffers = (state.batch_stats, _started(state, batch, hyper, graphdef))
    if micro_batches == 1:
        (_, (metrics, (batch_stats, memory))), grads = differentiate(state.params, buffers, batch, key)
    else:
        parts = jax.tree.map(lambda x: x.reshape(-1, micro_batches, *x.shape[1:]).swapaxes(0, 1), batch)

        def accumulate(sums: Any, part: tuple[Array, Batch]) -> tuple[Any, None]:
            (metrics, grads), buffers = sums
            own = None if key is None else jax.random.fold_in(key, part[0])
            (_, (more, buffers)), more_grads = differentiate(state.params, buffers, part[1], own)
            return (jax.tree.map(jnp.add, (metrics, grads), (more, more_grads)), buffers), None

        first = jax.tree.map(lambda x: x[0], parts)
        shapes = jax.eval_shape(differentiate, state.params, buffers, first, key)
        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (shapes[0][1][0], shapes[1]))
        start = (nothing, buffers)
        ((metrics, grads), (batch_stats, memory)), _ = jax.lax.scan(
            accumulate, start, (jnp.arange(micro_batches), parts)
        )

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
    state: TrainState, batch: Batch, hyper: Hyper, *, graphdef: Any, objective: Any, rate: float | None = None
) -> tuple[Metrics, Any]:
    """The objective's metrics of a batch as sums and weights, with the averaged weights where there are any.

    Arguments are as in `train_step`. Examples of the batch that are not `counted` have no part in the result. `rate`
    is a factor on time, where the batch has none. Second comes the model's state after the batch, if `state.memory` is
    one from before it.
    """
    trained = state.average or {"params": state.params, "batch_stats": state.batch_stats}
    model = nnx.merge(graphdef, trained["params"], trained["batch_stats"])
    outputs, memory = _read(
        model, batch, _started(state, batch, hyper, graphdef), {} if rate is None else {"rate": rate}
    )
    return objective(outputs, batch, **hyper.get("objective", {})), memory


def _read(model: Any, batch: Batch, memory: Any, given: dict[str, Any]) -> tuple[Array, Any]:
    """Outputs of the model for a batch and, from a state, the next one."""
    given |= {name: batch[name] for name in SEQUENCES if name in batch}
    if memory is None:
        return model(batch["inputs"], batch.get("lengths"), **given), None
    return model.prefill(memory, batch["inputs"], batch.get("lengths"), **given)


def _started(state: TrainState, batch: Batch, hyper: Hyper, graphdef: Any) -> Any:
    """The memory that a batch starts from: at the beginning of the text that before anything is read."""
    if state.memory is None:
        return None
    fresh = nnx.merge(graphdef, state.params, state.batch_stats).init_state(len(batch["inputs"]))
    return jax.tree.map(lambda new, old: jnp.where(hyper["fresh"], new, old), fresh, state.memory)
