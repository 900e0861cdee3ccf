"""Cross-entropy of a class, one for a sequence or one for each step."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from s5jax.objectives import Batch, Metrics, weights

__all__ = ["Options", "hyper", "objective", "outputs"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    label_smoothing: float = 0.0
    """Share of a label that is spread evenly over all classes."""
    class_weights: tuple[float, ...] = ()
    """Weight of each class in the loss; (): all 1."""

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must lie in [0, 1), got {self.label_smoothing}")
        if self.class_weights and (min(self.class_weights) < 0 or max(self.class_weights) <= 0):
            raise ValueError(f"class_weights must be at least 0, and one of them positive; got {self.class_weights}")


def outputs(task) -> int:
    """Logits: one for each class."""
    return task.num_classes


def hyper(task, options: Options) -> dict[str, Array]:
    """Raises ValueError if the number of class weights is not that of the classes."""
    if options.class_weights and len(options.class_weights) != task.num_classes:
        raise ValueError(f"class_weights has {len(options.class_weights)} numbers for {task.num_classes} classes")
    of_classes = options.class_weights or (1.0,) * task.num_classes
    return {
        "label_smoothing": jnp.float32(options.label_smoothing),
        "class_weights": jnp.asarray(of_classes, jnp.float32),
    }


def objective(
    outputs: Float[Array, "B *L classes"],
    batch: Batch,
    *,
    label_smoothing: Float[Array, ""] | float = 0.0,
    class_weights: Float[Array, " classes"] | None = None,
) -> Metrics:
    """`loss` and `accuracy`.

    With s = label_smoothing, w the class weights, C classes and y the label, the loss of a label is
    -(1 - s) w_y log p_y - s / C sum_c w_c log p_c, and its weight w_y (as in PyTorch's CrossEntropyLoss).

    Args:
      outputs: logits.
      batch: with integer `labels` (B,) or (B, L).
    """
    labels = batch["labels"]
    counted = weights(batch, labels.shape, outputs.dtype)
    labels = jnp.where(counted > 0, labels, 0)
    log_p = jax.nn.log_softmax(jnp.where(counted[..., None] > 0, outputs, 0))  # what does not count may be NaN
    smoothing = jnp.asarray(label_smoothing, outputs.dtype)
    of_labels = counted
    if class_weights is not None:
        class_weights = class_weights.astype(outputs.dtype)
        of_labels = counted * class_weights[labels]
        log_p_all = log_p @ class_weights
    else:
        log_p_all = log_p.sum(-1)
    log_p_label = jnp.take_along_axis(log_p, labels[..., None], -1)[..., 0]
    loss = -(1 - smoothing) * of_labels * log_p_label - smoothing / outputs.shape[-1] * counted * log_p_all
    correct = outputs.argmax(-1) == labels
    return {
        "loss": (jnp.sum(loss), jnp.sum(of_labels)),
        "accuracy": (jnp.sum(jnp.where(correct, counted, 0)), jnp.sum(counted)),
    }
