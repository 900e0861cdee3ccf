"""Parameters of S4 and S4D, which have one system per feature: copies, step sizes, readouts, decay rates."""

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
    """Number of copies of (A, B): n_ssm, or d_model if n_ssm is 0. ValueError if n_ssm does not divide d_model."""
    if n_ssm and d_model % n_ssm:
        raise ValueError(f"n_ssm {n_ssm} does not divide d_model {d_model}")
    return n_ssm or d_model


def tile_copies(x: Shaped[Array, "S N"], d_model: int) -> Shaped[Array, "H N"]:
    """Repeats the rows of S copies to one row per feature, (S, N) to (H, N): feature h uses copy h mod S."""
    return jnp.tile(x, (d_model // x.shape[0], 1))


def clip_imaginary(B: Complex[np.ndarray, "*copies N"], bound: float) -> Complex[np.ndarray, "*copies N"]:
    """Clips the imaginary part of B to [-bound, bound], as the published S4 code does; bound 0: no clipping.

    The result depends on the phases of the eigenvectors: B should come from `measures.normal_plus_low_rank`.
    """
    return B.real + 1j * np.clip(B.imag, -bound, bound) if bound else B


def step_sizes(log_step: Float[Array, "H N"], rate: float | Float[Array, "..."]) -> Float[Array, "*steps H N"]:
    """Step sizes exp(log_step) times `rate`; the axes of `rate`, (), (B,) or (B, L), come first."""
    Delta = jnp.exp(log_step)
    if jnp.ndim(rate) == 0:
        return Delta * rate
    factor = jnp.asarray(rate, Delta.dtype)[..., None, None]
    return factor * with_rank(Delta, factor.ndim)


def init_readouts(key: PRNGKeyArray, shape: tuple[int, int], bidirectional: bool) -> dict[str, Float[Array, "H N 2"]]:
    """C, or C1 and C2, (H, N, 2) each, for `shape` (H, N): complex standard normal, as published for S4 and S4D."""
    names = ("C1", "C2") if bidirectional else ("C",)
    scale = jnp.float32(np.sqrt(0.5))
    return {
        name: jax.random.normal(k, (*shape, 2), jnp.float32) * scale
        for name, k in zip(names, jax.random.split(key, len(names)), strict=True)
    }


def init_real_readouts(
    key: PRNGKeyArray, d_model: int, V: Complex[np.ndarray, "n N"], bidirectional: bool
) -> dict[str, Float[Array, "H N 2"]]:
    """C, or C1 and C2, (H, N, 2) each: real standard normal readouts of the n states, times the modes V (n, N)."""
    names = ("C1", "C2") if bidirectional else ("C",)
    basis = jnp.asarray(V, jnp.complex64)
    return {
        name: pair(jnp.matmul(jax.random.normal(k, (d_model, len(V))).astype(basis.dtype), basis, precision="highest"))
        for name, k in zip(names, jax.random.split(key, len(names)), strict=True)
    }


def readouts(params: dict[str, Array]) -> list[Complex[Array, "..."]]:
    """[C], or [C1, C2] for two directions, each complex (H, N)."""
    return [unpair(params[name]) for name in ("C", "C1", "C2") if name in params]


RealTransform = Literal["exp", "relu", "softplus", "sigmoid", "none"]
"""How a decay rate -Re(A) is computed from the stored parameter (arXiv 2206.11893, section 3.2 and table 2)."""


def decay_rate(raw: Float[Array, "*shape"], transform: RealTransform) -> Float[Array, "*shape"]:
    """-Re(A) in 1/time from the stored parameter: positive, except with `none`. `relu` adds 1e-4, as published."""
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
    """The parameter to store for a decay rate, float64. Rates below 1e-4 are raised to 1e-4, as published.

    Raises:
      ValueError: a rate is 1 or more with `sigmoid`.
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
                    " use exp, relu, softplus or none, or a smaller real_scale"
                )
            return np.log(rate) - np.log1p(-rate)
        case _:
            return rate
