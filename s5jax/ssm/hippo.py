"""HiPPO-LegS, and the modes of its normal part. S5 and S4D-LegS start from these, S4 from the whole matrix, S5-PTD and
S4-PTD from a perturbed one. `measures` has the other HiPPO matrices.

Computed in float64 NumPy: single precision is too inaccurate for the eigendecomposition.
"""

import numpy as np
from jaxtyping import Complex, Float

NPLR = tuple[Float[np.ndarray, "n n"], Float[np.ndarray, " n"], Float[np.ndarray, "rank n"]]
"""A, B and P of x' = A x + B u, where A + P^T P is normal: a multiple of the identity plus a skew-symmetric matrix
("normal plus low rank", arXiv 2111.00396, theorem 1)."""


def legs(n: int) -> NPLR:
    """The scaled Legendre measure: the whole past, in Legendre polynomials. Returns A (n, n), B (n,), P (1, n).

    A[i, j] = -sqrt((2i+1)(2j+1)) for i > j, -(i+1) for i = j, 0 above; B[i] = sqrt(2i+1)
    (Gu et al. 2020, arXiv 2008.07669, theorem 2, without the factor 1/t, as in arXiv 2111.00396, eq. 2);
    P[0, i] = sqrt(i + 1/2), rank 1 (arXiv 2111.00396, appendix C.1).
    """
    scale = np.sqrt(2.0 * np.arange(n) + 1.0)
    A = -np.tril(np.outer(scale, scale), -1) - np.diag(np.arange(n) + 1.0)
    return A, scale, np.sqrt(np.arange(n) + 0.5)[None, :]


def normal_part(
    A: Float[np.ndarray, "n n"], P: Float[np.ndarray, "rank n"]
) -> tuple[Complex[np.ndarray, " n"], Complex[np.ndarray, "n n"]]:
    """Diagonalises the normal matrix S = A + P^T P = V diag(Lambda) V^*, with V unitary.

    S must be a multiple of the identity plus a skew-symmetric matrix, otherwise ValueError. -i times the skew part is
    Hermitian: unlike a general eigensolver, `eigh` gives exactly imaginary eigenvalues, sorted, and orthonormal V.
    """
    S = A + P.T @ P
    shift = np.trace(S) / len(S)
    skew = S - shift * np.eye(len(S))
    if np.abs(skew + skew.T).max() > 1e-8 * max(1.0, np.abs(S).max()):
        raise ValueError("A + P^T P is not a multiple of the identity plus a skew-symmetric matrix")
    frequency, V = np.linalg.eigh(-1j * skew)
    return shift + 1j * frequency, V


def conjugate_half(
    Lambda: Complex[np.ndarray, " n"], V: Complex[np.ndarray, "n n"]
) -> tuple[Complex[np.ndarray, " m"], Complex[np.ndarray, "n m"]]:
    """Lambda (m,) and V (n, m) of the m = n/2 modes with negative imaginary part, one of each conjugate pair.

    For a real system x' = A x with A = V diag(Lambda) V^*, V unitary, these suffice: the real output is twice the real
    part of theirs. A double real eigenvalue also counts as a pair: with e, f orthonormal real eigenvectors, its mode is
    (e + i f) / sqrt(2). ValueError if the modes do not form n/2 pairs.
    """
    small = 1e-9 * max(1.0, np.abs(Lambda).max())
    keep, real = Lambda.imag < -small, np.abs(Lambda.imag) <= small
    if real.sum() == 2 and np.ptp(Lambda.real[real]) <= small:
        plane = (V[:, real] @ V[:, real].conj().T).real  # projector onto the two real eigenvectors
        e, f = np.linalg.eigh(plane)[1][:, -2:].T
        return np.append(Lambda[keep], Lambda[real].real.mean()), np.c_[V[:, keep], (e + 1j * f) / np.sqrt(2)]
    if 2 * keep.sum() != len(Lambda):
        raise ValueError(
            f"{keep.sum()} of {len(Lambda)} eigenvalues have a negative imaginary part: not all form conjugate pairs"
        )
    return Lambda[keep], V[:, keep]
