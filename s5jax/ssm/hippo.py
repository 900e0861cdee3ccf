"""HiPPO-LegS. S5 and S4D-LegS start from its normal part, S4 from the whole matrix, S5-PTD and S4-PTD from a perturbed
one. `measures` has the other HiPPO matrices.

Computed in float64 NumPy, once at initialisation: single precision is too inaccurate for the eigendecomposition.
"""

import numpy as np
from jaxtyping import Float

NPLR = tuple[Float[np.ndarray, "n n"], Float[np.ndarray, " n"], Float[np.ndarray, "rank n"]]
"""A, B and P of x' = A x + B u, where A + P^T P is normal: a multiple of the identity plus a skew-symmetric matrix
("normal plus low rank", arXiv 2111.00396, theorem 1)."""


def legs(n: int) -> NPLR:
    """The scaled Legendre measure: the whole past, in Legendre polynomials. Returns A (n, n), B (n,), P (1, n).

    A[i, j] = -sqrt((2i+1)(2j+1)) for i > j, -(i+1) for i = j, 0 above; B[i] = sqrt(2i+1)
    (Gu et al. 2020, arXiv 2008.07669, theorem 2, made symmetric in scale as in arXiv 2111.00396, eq. 2);
    P[0, i] = sqrt(i + 1/2), rank 1 (arXiv 2111.00396, appendix C.1).
    """
    scale = np.sqrt(2.0 * np.arange(n) + 1.0)
    A = -np.tril(np.outer(scale, scale), -1) - np.diag(np.arange(n) + 1.0)
    return A, scale, np.sqrt(np.arange(n) + 0.5)[None, :]
