"""Checks of the arguments of a model, for the caller who passes arrays whose values are known."""

from typing import Any

import numpy as np


def check(model: Any, inputs: Any, *, steps: bool = True, least: int = 1, **given: Any) -> None:
    """Raises ValueError, which names the argument, if a `Model` cannot process its arguments.

    Args:
      model: the model.
      inputs: as in `Model.__call__` or, without `steps`, one sample of each sequence, as in `Model.step`.
      least: the least length of a sequence.
      given: lengths, mask, reset and rate; `None`: not given.
    """
    encoder, documents = model.encoder.encoder, model.decoder.documents
    tokens = model.encoder.options.encoder != "dense"
    size = encoder.num_embeddings if model.encoder.options.encoder == "embedding" else encoder.in_features
    inputs, axes = np.asarray(inputs), ["B", *["2"] * (documents - 1), *["L"] * steps, *[str(size)] * (not tokens)]
    good = inputs.ndim == len(axes) and all(a in ("B", "L", str(n)) for a, n in zip(axes, inputs.shape, strict=True))
    _require(good, f"inputs must have the shape ({', '.join(axes)}), got {inputs.shape}")
    batch, time = inputs.shape[:documents], inputs.shape[: documents + steps]
    valid = counted = np.ones(time, bool)
    if (lengths := given.get("lengths")) is not None:
        lengths = np.asarray(lengths)
        _require(lengths.dtype.kind in "iu", f"lengths must be integers, got {lengths.dtype}")
        _require(lengths.shape == batch, f"lengths must have the shape {batch}, got {lengths.shape}")
        outside = lengths[(lengths < least) | (lengths > time[-1])]
        _require(not outside.size, f"lengths must lie in {least}..{time[-1]}, got {outside[:1].sum()}")
        valid = np.arange(time[-1]) < lengths[..., None]
        counted = valid if model.encoder.options.mask_padding or not least else counted
    for name in ("mask", "reset"):
        if (flags := given.get(name)) is not None:
            flags = np.asarray(flags)
            _require(flags.dtype == bool, f"{name} must be boolean, got {flags.dtype}")
            _require(_broadcasts(flags, time), f"{name} must have the shape {time}, got {flags.shape}")
            counted = counted & ~flags if name == "mask" else counted
    if (rate := given.get("rate")) is not None:
        rate = np.asarray(rate)
        fits = any(_broadcasts(rate, shape) for shape in ((), batch, time))
        _require(fits, f"rate must have the shape (), {batch} or {time}, got {rate.shape}")
        used = np.broadcast_to(rate, time)[valid] if steps and rate.ndim == len(time) else rate
        _require(np.isfinite(used).all() and (used >= 0).all(), "rate must be finite and at least 0")
    if tokens:
        _require(inputs.dtype.kind in "iu", f"inputs must be token ids, which are integers; got {inputs.dtype}")
        outside = inputs[counted & ((inputs < 0) | (inputs >= size))]
        _require(not outside.size, f"token ids must lie in 0..{size - 1}, got {outside[:1].sum()}")


def _broadcasts(x: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether an array has this shape, or length 1 along some of its axes."""
    return x.ndim == len(shape) and all(n in (1, m) for n, m in zip(x.shape, shape, strict=True))


def _require(holds: Any, fault: str) -> None:
    if not holds:
        raise ValueError(fault)
