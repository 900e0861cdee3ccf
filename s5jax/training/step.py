"""One step of training and one of evaluation, as pure functions."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Num

from s5jax.data.task import Task
from s5jax.training.state import TrainState

__all__ = ["Criterion", "classification", "criterion_of", "eval_step", "gather", "loss", "regression", "train_step"]

Batch = dict[str, Array]
Metrics = dict[str, Array]

Criterion = Callable[[Float[Array, "B outputs"], Num[Array, "B ..."]], tuple[Float[Array, " B"], Bool[Array, " B"]]]
"""A model's outputs and the labels, to the loss of each example and whether it is right."""


def classification(logits: Float[Array, "B classes"], labels: Int[Array, " B"]) -> tuple[Array, Array]:
    """Cross-entropy, and whether the label has the largest logit."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels), logits.argmax(-1) == labels


def regression(
    outputs: Float[Array, "B targets"], labels: Float[Array, "B targets"], *, tolerance: float
) -> tuple[Array, Array]:
    """Squared error, the mean over the targets, and whether none is further off than the tolerance."""
    errors = outputs - labels
    return jnp.square(errors).mean(-1), (jnp.abs(errors) <= tolerance).all(-1)


def criterion_of(task: Task) -> Criterion:
    """What a task's examples are judged by."""
    return functools.partial(regression, tolerance=task.tolerance) if task.targets else classification


def gather(
    split: Batch,
    index: Int[Array, " batch"],
    prepare: Callable[[Array], Array],
    *,
    time: int = 1,
    length: int | None = None,
    every: int = 1,
) -> Batch:
    """The examples at `index` of a split that lies on the device.

    Args:
      split: arrays as stored, examples along the first axis.
      index: which examples.
      prepare: inputs as stored to inputs as the model takes them.
      time: the axis of the inputs along which samples follow each other.
      length: samples kept of each sequence; default: all.
      every: of these, the samples 0, every, 2 every, ... are kept.
    """
    batch = {name: jnp.take(array, index, axis=0) for name, array in split.items()}
    inputs = prepare(batch["inputs"])
    batch["inputs"] = jax.lax.slice_in_dim(inputs, 0, length, every, time)
    if every > 1 and "lengths" in batch:
        batch["lengths"] = -(-batch["lengths"] // every)
    return batch


def loss(
    params: dict[str, Any],
    batch_stats: dict[str, Any],
    batch: Batch,
    *,
    graphdef: nnx.GraphDef,
    key: Array,
    criterion: Criterion = classification,
) -> tuple[Float[Array, ""], tuple[Float[Array, ""], dict[str, Any]]]:
    """Mean loss of a batch in training, and with it (accuracy, new batch statistics)."""
    model = nnx.merge(graphdef, params, batch_stats)
    outputs = model(batch["inputs"], batch.get("lengths"), train=True, key=key)
    losses, correct = criterion(outputs, batch["labels"])
    return losses.mean(), (correct.mean(), nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    key: Array,
    criterion: Criterion = classification,
) -> tuple[TrainState, Metrics]:
    """One update by the mean loss of a batch.

    Args:
      state: before the step.
      batch: `inputs`, `labels` and, where sequences are padded, `lengths`.
      graphdef: of the model.
      optimizer: as `state.opt_state` belongs to.
      key: of the run; the step's own follows from it and the step's number.
      criterion: the loss, and what counts as accuracy; default: those of a classification.

    Returns:
      The state after the step, and of this batch `loss`, `accuracy` and `grad_norm` (global, before clipping).
    """

    step_key = jax.random.fold_in(key, state.step)
    value_and_grad = jax.value_and_grad(loss, has_aux=True)
    (mean_loss, (accuracy, batch_stats)), grads = value_and_grad(
        state.params, state.batch_stats, batch, graphdef=graphdef, key=step_key, criterion=criterion
    )
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    metrics = {"loss": mean_loss, "accuracy": accuracy, "grad_norm": optax.tree.norm(grads)}
    return TrainState(state.step + 1, optax.apply_updates(state.params, updates), batch_stats, opt_state), metrics


def eval_step(
    state: TrainState,
    batch: Batch,
    counted: Bool[Array, " batch"],
    *,
    graphdef: nnx.GraphDef,
    criterion: Criterion = classification,
    step_rescale: float = 1.0,
) -> Metrics:
    """Sums over the counted examples of a batch: `loss`, `correct`, and `count` itself."""
    model = nnx.merge(graphdef, state.params, state.batch_stats)
    outputs = model(batch["inputs"], batch.get("lengths"), step_rescale=step_rescale)
    losses, correct = criterion(outputs, batch["labels"])
    return {
        "loss": jnp.sum(jnp.where(counted, losses, 0)),
        "correct": jnp.sum(correct & counted),
        "count": counted.sum(),
    }
