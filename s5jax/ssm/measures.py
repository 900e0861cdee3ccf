"""The HiPPO matrices LegS, LegT and FouT by name, and their diagonal-plus-low-rank form for S4. Float64 NumPy."""

from collections.abc import Callable
from typing import Literal

import numpy as np
from jaxtyping import Complex, Float

from s5jax.ssm.eigenbasis import canonical
from s5jax.ssm.hippo import NPLR, conjugate_half, legs, normal_part

Measure = Literal["legs", "legt", "fout"]


def legt(n: int) -> NPLR:
    """The translated Legendre measure: a sliding window of length 2, in Legendre polynomials. Returns A, B and P,
    with two rows of P.

    2 A[i, j] = -sqrt((2i+1)(2j+1)), and above the diagonal (-1)^(i-j) times this; 2 B[i] = sqrt(2i+1)
    (arXiv 2008.07669, theorem 1, made symmetric in scale, with a window of 2); P is of rank 2, sqrt(i + 1/2) at odd i
    in its first row, at even i in its second (arXiv 2111.00396, appendix C.1).
    """
    i = np.arange(n)
    scale = np.sqrt(2.0 * i + 1.0)
    sign = np.where(i[:, None] < i, (-1.0) ** (i[:, None] - i), 1.0)
    P = np.sqrt(i + 0.5)
    return -np.outer(scale, scale) * sign / 2, scale / 2, np.stack([P * (i % 2), P * (1 - i % 2)])


def fout(n: int) -> NPLR:
    """The truncated Fourier measure: a sliding window of length 2, in cosines and sines (arXiv 2206.12037, section 4).

    A = S - B B^T, where S rotates states (2k, 2k+1), the cosine and the sine, at pi k for k = 0, 1, ...; B is sqrt(2)
    at cosines, 1 at the constant, 0 at sines; P = B, rank 1. S has a double eigenvalue 0: the constant, and the sine of
    frequency 0, which no input reaches. Returns A, B and P as `legs` does.
    """
    frequency = np.stack([np.zeros(n // 2 + 1), np.arange(n // 2 + 1)], axis=-1).ravel()[1:n]
    B = np.zeros(n)
    B[::2] = np.sqrt(2.0)
    B[0] = 1.0
    return np.pi * (np.diag(frequency, -1) - np.diag(frequency, 1)) - np.outer(B, B), B, B[None, :]


MEASURES: dict[Measure, Callable[[int], NPLR]] = {"legs": legs, "legt": legt, "fout": fout}
"""The measures by name; each function maps n to (A, B, P)."""


def normal_plus_low_rank(
    A: Float[np.ndarray, "n n"], B: Float[np.ndarray, " n"], P: Float[np.ndarray, "rank n"]
) -> tuple[Complex[np.ndarray, " m"], Complex[np.ndarray, " m"], Complex[np.ndarray, "rank m"]]:
    """A real system (A, B, P) in the eigenbasis V of its normal part, where A becomes diag(Lambda) - sum_r p_r p_r^*.

    Returns Lambda (m,), V^* B (m,), and the rows p_r = V^* P_r (rank, m), for one mode of each conjugate pair.
    """
    Lambda, V = conjugate_half(*normal_part(A, P))
    V = canonical(V)  # the free phases of eigenvectors would differ between machines
    return Lambda, V.conj().T @ B, P @ V.conj()
