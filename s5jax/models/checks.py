"""Checks the values of a model's arguments, outside of `jax.jit`. `Model` has checked their shapes and types."""

from typing import Any

import numpy as np


def check(model: Any, inputs: Any, given: dict[str, Any], *, least: int = 1) -> None:
    """Raises ValueError, which names the argument, if a `Model` cannot process its arguments.

    Args:
      model: the model.
      inputs: those of `Model.__call__` or, where the model is given one sample of each sequence, of `Model.step`.
      given: those of lengths, mask, reset and rate that the caller passed, not yet broadcast.
      least: the least length of a sequence.
    """
    options, encoder, head = model.encoder.options, model.encoder.encoder, model.decoder
    inputs, given = np.asarray(inputs), {name: np.asarray(value) for name, value in given.items()}
    steps = inputs.ndim - (options.encoder == "dense") > head.documents
    time = inputs.shape[: head.documents + steps]
    valid = counted = np.ones(time, bool)
    if "lengths" in given:
        lengths = np.broadcast_to(given["lengths"], time[:-1])
        outside = lengths[(lengths < least) | (lengths > time[-1])]
        _require(not outside.size, f"lengths must lie in {least}..{time[-1]}, got {outside[:1].sum()}")
        valid = np.arange(time[-1]) < lengths[..., None]
        counted = valid if options.mask_padding or not least else counted
    if "rate" in given:
        rate = given["rate"]
        used = np.broadcast_to(rate, time)[valid] if steps and rate.ndim == len(time) else rate
        _require(np.isfinite(used).all() and (used >= 0).all(), "rate must be finite and at least 0")
    if "mask" in given:
        counted = counted & ~np.broadcast_to(given["mask"], time)
        if steps and least and not head.per_step:
            places = np.arange(time[-1])
            starts = np.where(np.broadcast_to(given.get("reset", False), time) & valid, places, 0)
            last = counted & (places >= starts.max(-1, initial=0, keepdims=True))
            empty = np.argwhere(~last.any(-1))
            fault = "all samples of sequence {} are missing, and nothing is left to pool"
            _require(not len(empty), fault.format(empty[0][0] if len(empty) else ""))
    if options.encoder != "dense":
        size = encoder.num_embeddings if options.encoder == "embedding" else encoder.in_features
        outside = inputs[counted & ((inputs < 0) | (inputs >= size))]
        _require(not outside.size, f"token ids must lie in 0..{size - 1}, got {outside[:1].sum()}")


def _require(holds: Any, fault: str) -> None:
    if not holds:
        raise ValueError(fault)
