"""Initial A and B of S4D in float64 NumPy, one mode of each conjugate pair (arXiv 2206.11893, section 4)."""

import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, PRNGKeyArray

from s5jax.ssm import hippo, measures, per_feature

__all__ = ["Init", "InitB", "initial_A", "initial_B", "perturbed_legs"]

Init = Literal["lin", "inv", "inv2", "quad", "real", "legs", "random", "ptd-conjugate"]
InitB = Literal["of_init", "constant", "random", "alternating", "unit_cw", "unit_ccw", "legs"]


def initial_A(
    key: PRNGKeyArray,
    copies: int,
    size: int,
    init: Init,
    kappa: float = 0.0,
    *,
    real: tuple[bool, float] = (False, 1.0),
    imag: tuple[bool, float] = (False, 1.0),
) -> Complex[np.ndarray, "{copies} N"]:
    """The diagonal of the initial A, (copies, size / 2), in 1/time.

    Args:
      key: for the random initialisations.
      copies: number of independent systems.
      size: states of each system, conjugate modes included.
      init: the formula, see `s4d.Options.init`.
      kappa: bound on the condition number of the eigenvectors, for "ptd-conjugate"; 0: the default of `ptd`.
      real, imag: (draw at random, scale) of the real and the imaginary part, see `s4d.Options`.
    """
    (real_random, real_scale), (imag_random, imag_scale) = real, imag
    N = size // 2
    real_key, imag_key = jax.random.split(key)
    n = np.tile(np.arange(N, dtype=np.float64), (copies, 1))
    if imag_random:
        n = N * _drawn(jax.random.uniform, imag_key, n.shape)
    decay = _drawn(jax.random.uniform, real_key, n.shape) if real_random else np.full(n.shape, 0.5)
    match init:
        case "lin":
            frequency = np.pi * n
        case "inv":
            frequency = size / np.pi * (size / (2 * n + 1) - 1)
        case "inv2":
            frequency = size / np.pi * (size / (n + 1) - 1)
        case "quad":
            frequency = (2 * n + 1) ** 2 / np.pi
        case "legs":
            frequency = np.broadcast_to(-_legs(size)[0].imag, n.shape)
        case "ptd-conjugate":
            A = perturbed_legs(size, kappa)[0]
            frequency = np.broadcast_to(-A.imag, n.shape)
            decay = np.broadcast_to(-A.real, n.shape)
        case "random":
            frequency = np.exp(_drawn(jax.random.normal, imag_key, n.shape))
        case "real":
            frequency = np.zeros(n.shape)
            decay = N * decay if real_random else 1 + np.tile(np.arange(N), (copies, 1))
    return -real_scale * decay - 1j * imag_scale * frequency


def initial_B(size: int, init: Init, B_init: InitB, *, kappa: float, clip: float) -> Complex[np.ndarray, " N"]:
    """The initial B of each copy, (size / 2,), for any `B_init` except "random".

    `size`, `init` and `kappa` as for `initial_A`; `B_init`: see `s4d.Options`; `clip`: bound on the imaginary part of
    HiPPO's B, 0: none.
    """
    n = np.arange(size // 2)
    if B_init == "of_init":
        if init == "ptd-conjugate":
            return perturbed_legs(size, kappa)[1]
        B_init = "legs" if init == "legs" else "constant"
    if B_init == "legs":
        return per_feature.clip_imaginary(_legs(size)[1], clip)
    turn = {"constant": 0.0, "alternating": np.pi, "unit_cw": -2 * np.pi / (2 * len(n))}
    turn["unit_ccw"] = -turn["unit_cw"]
    return np.exp(1j * turn[B_init] * n)


def _drawn(distribution: Callable[..., Array], key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[np.ndarray, "..."]:
    return np.asarray(distribution(key, shape, jnp.float32), np.float64)


@functools.cache
def _legs(size: int) -> tuple[Complex[np.ndarray, " N"], Complex[np.ndarray, " N"]]:
    Lambda, B, _ = measures.normal_plus_low_rank(*hippo.legs(size))
    return Lambda, B


def perturbed_legs(
    size: int, kappa: float
) -> tuple[Complex[np.ndarray, " N"], Complex[np.ndarray, " N"], Complex[np.ndarray, "size N"]]:
    """Lambda, V^-1 B and V of perturbed HiPPO-LegS, one mode of each conjugate pair."""
    from s5jax.ssm import ptd  # only where it is asked for

    Lambda, V, inverse = ptd.perturbed_legs(size, kappa).halves()
    return Lambda, inverse @ hippo.legs(size)[1], V
