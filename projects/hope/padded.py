"""Sequences with noise behind them, to be classified by the outputs during the noise (arXiv 2405.13975, section 5)."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from s5jax.data.task import Split, Task

LEVELS = 256
"""Noise is stored in bytes."""


def make(name: str, clean: Task, noise_steps: int) -> Task:
    """A task of values in bytes, a label for each sequence, with noise behind its sequences.

    Noise is uniform in [0, 1), in steps of 1/256, and independent at each step, channel and example. An example keeps
    its noise in all epochs. The label stands at every step and counts at those of the noise, see `pooled`.
    """
    splits, L = {}, clean.length
    for i, (split_name, split) in enumerate(clean.splits.items()):
        noise = np.random.default_rng(i).integers(0, LEVELS, (len(split), noise_steps, clean.channels), np.uint8)
        shape = (len(split), L + noise_steps)
        splits[split_name] = Split(
            np.concatenate([split.inputs.astype(np.uint8), noise], axis=1),
            np.broadcast_to(split.labels.astype(np.uint8)[:, None], shape),
            weights=np.broadcast_to((np.arange(shape[1]) >= L).astype(np.uint8), shape),
        )

    def preprocess(stored: Shaped[Array, "..."]) -> Float[Array, "..."]:
        noise = (stored[..., L:, :].astype("float32") + 0.5) / LEVELS
        return jnp.concatenate([clean.prepare(stored[..., :L, :]), noise], axis=-2)

    changed: dict[str, Any] = {"length": L + noise_steps, "per_step": True, "objective": "projects.hope.pooled"}
    return dataclasses.replace(clean, name=name, splits=splits, preprocess=preprocess, **changed)
