"""What S4 and S4D store besides `parameters`, one system for each feature: copies, readouts, decay rates."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, PRNGKeyArray, Shaped

from s5jax.ssm.parameters import pair, unpair, with_rank


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

    This depends on the phases of the eigenvectors, and is meant for those of `measures.normal_plus_low_rank`.
    """
    return B.real + 1j * np.clip(B.imag, -bound, bound) if bound else B


def step_sizes(log_step: Float[Array, "H N"], rate: float | Float[Array, "..."]) -> Float[Array, "*steps H N"]:
    """exp(log_step) times a factor, whose axes, if it has any, stand in front."""
    Delta = jnp.exp(log_step)
    if jnp.ndim(rate) == 0:
        return Delta * rate
    factor = jnp.asarray(rate, Delta.dtype)[..., None, None]
    return factor * with_rank(Delta, factor.ndim)


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
