"""HiPPO state matrices: continuous-time systems that remember their input as polynomial coefficients.

Everything here is float64 NumPy: these matrices are built once, at initialisation, and their
eigendecompositions do not survive single precision.
"""

import numpy as np
from jaxtyping import Float

__all__ = ["legs", "legs_low_rank"]


def legs(n: int) -> tuple[Float[np.ndarray, "n n"], Float[np.ndarray, " n"]]:
    """The scaled Legendre measure, x' = A x + B u.

    A[i, j] = -sqrt((2i+1)(2j+1)) for i > j, -(i+1) for i = j, 0 above; B[i] = sqrt(2i+1)
    (Gu et al. 2020, arXiv 2008.07669, theorem 2, made symmetric in scale as in arXiv 2111.00396, eq. 2).

    Args:
      n: number of states, at least 1.

    Returns:
      A of shape (n, n) and B of shape (n,), float64.
    """
    scale = np.sqrt(2.0 * np.arange(n) + 1.0)
    A = -np.tril(np.outer(scale, scale), -1) - np.diag(np.arange(n) + 1.0)
    return A, scale


def legs_low_rank(n: int) -> Float[np.ndarray, "1 n"]:
    """The vector P with A + P^T P normal for the A of `legs`: P[0, i] = sqrt(i + 1/2).

    The sum is -1/2 I plus a skew-symmetric matrix (arXiv 2111.00396, appendix C.1).
    """
    return np.sqrt(np.arange(n) + 0.5)[None, :]
