"""What layers store, and what it stands for: complex pairs, step sizes, decay rates, directions.

A layer's parameters are a flat dict of real arrays. A complex array has a trailing axis (re, im).
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, PRNGKeyArray, Shaped

__all__ = [
    "FeedthroughInit",
    "RealTransform",
    "StepRescale",
    "check_state_size",
    "check_step_sizes",
    "clip_imaginary",
    "copies",
    "decay_rate",
    "feedthrough",
    "init_feedthrough",
    "init_readouts",
    "init_real_readouts",
    "log_step",
    "of_features",
    "pair",
    "raw_decay_rate",
    "readouts",
    "step_sizes",
    "unpair",
    "with_rank",
]

StepRescale = float | Float[Array, "..."]
"""A factor on step sizes: one, or an array with one for each step or sequence."""


def pair(z: Complex[Array, "*shape"]) -> Float[Array, "*shape 2"]:
    """A complex array as it is stored."""
    return jnp.stack([z.real, z.imag], -1)


def unpair(stored: Float[Array, "*shape 2"]) -> Complex[Array, "*shape"]:
    """A complex array from what is stored."""
    return jax.lax.complex(stored[..., 0], stored[..., 1])


def with_rank(x: Array, ndim: int) -> Array:
    """The array with axes of length 1 in front."""
    return jnp.expand_dims(x, tuple(range(ndim - x.ndim)))


def check_step_sizes(dt_min: float, dt_max: float) -> None:
    """Raises ValueError unless 0 < dt_min <= dt_max."""
    if not 0 < dt_min <= dt_max:
        raise ValueError(f"dt_min and dt_max must satisfy 0 < dt_min <= dt_max, got {dt_min} and {dt_max}")


def log_step(key: PRNGKeyArray, shape: tuple[int, ...], dt_min: float, dt_max: float) -> Float[Array, "..."]:
    """Initial log step sizes, uniform between log(dt_min) and log(dt_max)."""
    return jax.random.uniform(key, shape, jnp.float32, np.log(dt_min), np.log(dt_max))


def step_sizes(log_step: Float[Array, "H N"], step_rescale: StepRescale) -> Float[Array, "*steps H N"]:
    """exp(log_step) times a factor, whose axes, if it has any, stand in front."""
    Delta = jnp.exp(log_step)
    if jnp.ndim(step_rescale) == 0:
        return Delta * step_rescale
    factor = jnp.asarray(step_rescale, Delta.dtype)[..., None, None]
    return factor * with_rank(Delta, factor.ndim)


def check_state_size(state_size: int) -> None:
    """Raises ValueError unless it is even and positive."""
    if state_size < 2 or state_size % 2:
        raise ValueError(
            f"state_size must be even, since states come in conjugate pairs, and at least 2; got {state_size}"
        )


def copies(n_ssm: int, d_model: int) -> int:
    """How many copies of (A, B) there are, n_ssm or for 0 one for each feature; ValueError if they do not fit."""
    if n_ssm and d_model % n_ssm:
        raise ValueError(f"n_ssm {n_ssm} does not divide d_model {d_model}")
    return n_ssm or d_model


def of_features(x: Shaped[Array, "S N"], d_model: int) -> Shaped[Array, "H N"]:
    """What S copies hold, for each feature: feature h uses copy h mod S."""
    return jnp.tile(x, (d_model // x.shape[0], 1))


def clip_imaginary(B: Complex[np.ndarray, "*copies N"], bound: float) -> Complex[np.ndarray, "*copies N"]:
    """HiPPO's B with its imaginary part held to +-bound, as the published S4 code has it; 0: unbounded.

    This depends on the phases of the eigenvectors, and is meant for those of `diagonal.normal_plus_low_rank`.
    """
    return B.real + 1j * np.clip(B.imag, -bound, bound) if bound else B


def init_readouts(key: PRNGKeyArray, shape: tuple[int, int], bidirectional: bool) -> dict[str, Float[Array, "H N 2"]]:
    """C, or C1 and C2: complex standard normal, as published for S4 and S4D."""
    names = ("C1", "C2") if bidirectional else ("C",)
    scale = jnp.float32(np.sqrt(0.5))
    return {
        name: jax.random.normal(k, (*shape, 2), jnp.float32) * scale
        for name, k in zip(names, jax.random.split(key, len(names)), strict=True)
    }


def init_real_readouts(
    key: PRNGKeyArray, d_model: int, V: Complex[np.ndarray, "n N"], bidirectional: bool
) -> dict[str, Float[Array, "H N 2"]]:
    """C, or C1 and C2: real standard normal readouts of n states, taken to the coordinates of the modes V."""
    names = ("C1", "C2") if bidirectional else ("C",)
    basis = jnp.asarray(V, jnp.complex64)
    return {
        name: pair(jnp.matmul(jax.random.normal(k, (d_model, len(V))).astype(basis.dtype), basis, precision="highest"))
        for name, k in zip(names, jax.random.split(key, len(names)), strict=True)
    }


def readouts(params: dict[str, Array]) -> list[Complex[Array, "..."]]:
    """C of the forward direction and, if there is one, of the backward direction: stored as C, or as C1 and C2."""
    return [unpair(params[name]) for name in ("C", "C1", "C2") if name in params]


FeedthroughInit = Literal["normal", "zero"]


def init_feedthrough(key: PRNGKeyArray, d_model: int, kind: FeedthroughInit) -> Float[Array, " H"]:
    """D: standard normal, or zero."""
    return jax.random.normal(key, (d_model,), jnp.float32) if kind == "normal" else jnp.zeros(d_model, jnp.float32)


def feedthrough(params: dict[str, Array], u: Float[Array, "*batch H"]) -> Float[Array, "*batch H"]:
    """D u."""
    return jnp.broadcast_to(params["D"], u.shape) * u


RealTransform = Literal["exp", "relu", "softplus", "sigmoid", "none"]
"""How a decay rate -Re(A) is made of what is stored (arXiv 2206.11893, section 3.2 and table 2)."""


def decay_rate(raw: Float[Array, "*shape"], transform: RealTransform) -> Float[Array, "*shape"]:
    """-Re(A) from what is stored: positive but for `none`. `relu` adds 1e-4, as published."""
    match transform:
        case "exp":
            return jnp.exp(raw)
        case "relu":
            return jax.nn.relu(raw) + 1e-4
        case "softplus":
            return jax.nn.softplus(raw)
        case "sigmoid":
            return jax.nn.sigmoid(raw)
        case "none":
            return raw


def raw_decay_rate(rate: Float[np.ndarray, "*shape"], transform: RealTransform) -> Float[np.ndarray, "*shape"]:
    """What to store for a decay rate; float64. Rates below 1e-4 are raised to it, as published.

    Raises:
      ValueError: `sigmoid` for a rate of 1 or more.
    """
    rate = np.maximum(rate, 1e-4)
    match transform:
        case "exp":
            return np.log(rate)
        case "softplus":
            return rate + np.log(-np.expm1(-rate))
        case "sigmoid":
            if rate.max() >= 1:
                raise ValueError(
                    f"real_transform sigmoid keeps -Re(A) below 1, but the initial A has {rate.max():g}:"
                    " take exp, relu, softplus or none, or a smaller real_scale"
                )
            return np.log(rate) - np.log1p(-rate)
        case _:
            return rate
