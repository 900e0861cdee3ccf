"""HiPPO state matrices: continuous-time systems that remember their input as coefficients of a basis.

Each measure gives (A, B, P) of x' = A x + B u, with P such that A + P^T P is normal, a multiple of the identity plus a
skew-symmetric matrix ("normal plus low rank", arXiv 2111.00396, theorem 1).

Everything here is float64 NumPy: these matrices are built once, at initialisation, and their
eigendecompositions do not survive single precision.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
from jaxtyping import Float

__all__ = ["MEASURES", "Measure", "fout", "legs", "legt"]

Measure = Literal["legs", "legt", "fout"]

NPLR = tuple[Float[np.ndarray, "n n"], Float[np.ndarray, " n"], Float[np.ndarray, "rank n"]]


def legs(n: int) -> NPLR:
    """The scaled Legendre measure: all of the past, in Legendre polynomials.

    A[i, j] = -sqrt((2i+1)(2j+1)) for i > j, -(i+1) for i = j, 0 above; B[i] = sqrt(2i+1)
    (Gu et al. 2020, arXiv 2008.07669, theorem 2, made symmetric in scale as in arXiv 2111.00396, eq. 2);
    P[0, i] = sqrt(i + 1/2), rank 1 (arXiv 2111.00396, appendix C.1).

    Args:
      n: number of states, at least 1.

    Returns:
      A (n, n), B (n,) and P (1, n), float64.
    """
    scale = np.sqrt(2.0 * np.arange(n) + 1.0)
    A = -np.tril(np.outer(scale, scale), -1) - np.diag(np.arange(n) + 1.0)
    return A, scale, np.sqrt(np.arange(n) + 0.5)[None, :]


def legt(n: int) -> NPLR:
    """The translated Legendre measure: a sliding window of length 2, in Legendre polynomials.

    2 A[i, j] = -sqrt((2i+1)(2j+1)) times (-1)^(i-j) above the diagonal; 2 B[i] = sqrt(2i+1)
    (arXiv 2008.07669, theorem 1, with a window of 2); P is of rank 2, sqrt(i + 1/2) at odd i in its first row, at even
    i in its second (arXiv 2111.00396, appendix C.1). Arguments and returns as for `legs`.
    """
    i = np.arange(n)
    scale = np.sqrt(2.0 * i + 1.0)
    sign = np.where(i[:, None] < i, (-1.0) ** (i[:, None] - i), 1.0)
    P = np.sqrt(i + 0.5)
    return -np.outer(scale, scale) * sign / 2, scale / 2, np.stack([P * (i % 2), P * (1 - i % 2)])


def fout(n: int) -> NPLR:
    """The truncated Fourier measure: a sliding window of length 2, in cosines and sines (arXiv 2206.12037, section 4).

    A = S - B B^T, where S rotates states (2k, 2k+1), the cosine and the sine, at pi k for k = 0, 1, ...; B is sqrt(2)
    at cosines, 1 at the constant, 0 at sines; P = B, rank 1. Arguments and returns as for `legs`.

    The normal part S has a double eigenvalue 0: its constant, and the sine of frequency 0, which nothing reaches.
    """
    frequency = np.stack([np.zeros(n // 2 + 1), np.arange(n // 2 + 1)], axis=-1).ravel()[1:n]
    B = np.zeros(n)
    B[::2] = np.sqrt(2.0)
    B[0] = 1.0
    return np.pi * (np.diag(frequency, -1) - np.diag(frequency, 1)) - np.outer(B, B), B, B[None, :]


MEASURES: dict[Measure, Callable[[int], NPLR]] = {"legs": legs, "legt": legt, "fout": fout}
"""By name."""
