"""Cross-entropy of a class per sequence or per step."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from s5jax.objectives import Batch, Metrics, weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    label_smoothing: float = 0.0
    """Probability mass of a label that is spread evenly over all classes."""
    class_weights: tuple[float, ...] = ()
    """Weight of each class in the loss; (): all 1."""

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must lie in [0, 1), got {self.label_smoothing}")
        if self.class_weights and (min(self.class_weights) < 0 or max(self.class_weights) <= 0):
            raise ValueError(f"class_weights must be at least 0, and one of them positive; got {self.class_weights}")


def outputs(task) -> int:
    """Number of logits: one per class."""
    return task.num_classes


def hyper(task, options: Options) -> dict[str, Array]:
    """Label smoothing and class weights. ValueError if the number of class weights is not the number of classes."""
    if options.class_weights and len(options.class_weights) != task.num_classes:
        raise ValueError(f"class_weights has {len(options.class_weights)} numbers for {task.num_classes} classes")
    class_weights = jnp.asarray(options.class_weights or (1.0,) * task.num_classes, jnp.float32)
    return {"label_smoothing": jnp.float32(options.label_smoothing), "class_weights": class_weights}


def objective(
    outputs: Float[Array, "B *L classes"],
    batch: Batch,
    *,
    label_smoothing: Float[Array, ""] | float = 0.0,
    class_weights: Float[Array, " classes"] | None = None,
) -> Metrics:
    """`loss`, the cross-entropy in nats, and `accuracy`, each a mean over the labels.

    With s = label_smoothing, w the class weights, C classes and y the label, the loss of a label is
    -(1 - s) w_y log p_y - s / C sum_c w_c log p_c, and its weight w_y (as in PyTorch's CrossEntropyLoss).

    Args:
      outputs: logits (B, C) or (B, L, C); the labels of the batch are integers (B,) or (B, L).
      label_smoothing: s; default 0.
      class_weights: w (C,); default: all 1.
    """
    labels = batch["labels"]
    counted = weights(batch, labels.shape, outputs.dtype)
    labels = jnp.where(counted > 0, labels, 0)
    log_p = jax.nn.log_softmax(jnp.where(counted[..., None] > 0, outputs, 0))  # outputs without weight may be NaN
    smoothing = jnp.asarray(label_smoothing, outputs.dtype)
    w = jnp.ones(outputs.shape[-1:]) if class_weights is None else class_weights
    w = w.astype(outputs.dtype)
    label_weights = counted * w[labels]
    log_p_label = jnp.take_along_axis(log_p, labels[..., None], -1)[..., 0]
    loss = -(1 - smoothing) * label_weights * log_p_label - smoothing / len(w) * counted * (log_p @ w)
    correct = outputs.argmax(-1) == labels
    return {
        "loss": (jnp.sum(loss), jnp.sum(label_weights)),
        "accuracy": (jnp.sum(jnp.where(correct, counted, 0)), jnp.sum(counted)),
    }
