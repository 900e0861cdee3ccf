"""From a state matrix to its eigenvalues and eigenvectors, in float64 NumPy."""

import numpy as np
import scipy.linalg
from jaxtyping import Complex, Float

__all__ = ["blocks", "conjugate_half", "normal_part"]


def normal_part(
    A: Float[np.ndarray, "n n"], P: Float[np.ndarray, "rank n"]
) -> tuple[Complex[np.ndarray, " n"], Complex[np.ndarray, "n n"]]:
    """Diagonalises the normal matrix S = A + P^T P = V diag(Lambda) V^*, with V unitary.

    S must be a multiple of the identity plus a skew-symmetric matrix, as HiPPO's normal parts are: then -i times the
    skew part is Hermitian and `eigh` gives exactly imaginary eigenvalues and orthonormal eigenvectors, which a
    general eigensolver does not (arXiv 2208.04933, section 3.2).

    Returns:
      Lambda (n,), sorted by imaginary part, and V (n, n), whose columns are the eigenvectors; complex128.

    Raises:
      ValueError: S is not of that form.
    """
    S = A + P.T @ P
    shift = np.trace(S) / len(S)
    skew = S - shift * np.eye(len(S))
    if np.abs(skew + skew.T).max() > 1e-8 * max(1.0, np.abs(S).max()):
        raise ValueError("A + P^T P is no multiple of the identity plus a skew-symmetric matrix")
    frequency, V = np.linalg.eigh(-1j * skew)
    return shift + 1j * frequency, V


def conjugate_half(
    Lambda: Complex[np.ndarray, " n"], V: Complex[np.ndarray, "n n"]
) -> tuple[Complex[np.ndarray, " m"], Complex[np.ndarray, "n m"]]:
    """Keeps one of each conjugate pair of modes: the half with negative imaginary part.

    A real system x' = A x with A = V diag(Lambda) V^-1 is carried by these m = n/2 modes alone, its output being
    twice the real part of theirs.

    Raises:
      ValueError: the modes are not n/2 pairs (n is odd, or some eigenvalue is real).
    """
    keep = Lambda.imag < -1e-9 * max(1.0, np.abs(Lambda).max())
    if 2 * keep.sum() != len(Lambda):
        raise ValueError(
            f"of {len(Lambda)} eigenvalues {keep.sum()} have a negative imaginary part: not all are in conjugate pairs"
        )
    return Lambda[keep], V[:, keep]


def blocks(
    Lambda: Complex[np.ndarray, " m"], V: Complex[np.ndarray, "n m"], count: int
) -> tuple[Complex[np.ndarray, " {count}*m"], Complex[np.ndarray, "{count}*n {count}*m"]]:
    """The block-diagonal system of `count` copies of one (arXiv 2208.04933, section 4.3 and appendix B.1)."""
    return np.tile(Lambda, count), scipy.linalg.block_diag(*[V] * count)
