"""Eigenvalues and eigenvectors of the normal part of a state matrix, in float64 NumPy."""

import numpy as np
import scipy.linalg
from jaxtyping import Complex, Float


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
      ValueError: S does not have that form.
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
    """Keeps one of each conjugate pair of modes: the half with negative imaginary part.

    For a real system x' = A x with A = V diag(Lambda) V^*, V unitary, these m = n/2 modes suffice: the real output is
    twice the real part of theirs. A double real eigenvalue also counts as a pair: with e, f orthonormal real
    eigenvectors, its mode is (e + i f) / sqrt(2).

    Returns:
      Lambda (m,) and the eigenvectors V (n, m) of the modes that are kept.

    Raises:
      ValueError: the modes do not form n/2 pairs (n is odd, or a real eigenvalue is simple).
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


def blocks(
    Lambda: Complex[np.ndarray, " m"], V: Complex[np.ndarray, "n m"], inverse: Complex[np.ndarray, "m n"], count: int
) -> tuple[Complex[np.ndarray, " M"], Complex[np.ndarray, "N M"], Complex[np.ndarray, "M N"]]:
    """Repeats a diagonalised block `count` times (arXiv 2208.04933, section 4.3 and appendix B.1).

    Args: eigenvalues Lambda (m,), eigenvectors V (n, m), and the rows of V^-1 (m, n), of one block.
    Returns: Lambda (M,), and the block-diagonal V (N, M) and V^-1 (M, N), with M = count m and N = count n.
    """
    return np.tile(Lambda, count), scipy.linalg.block_diag(*[V] * count), scipy.linalg.block_diag(*[inverse] * count)


def check_kappa(init: str, kappa: float) -> None:
    """Raises ValueError unless kappa is 0 or, with init=ptd-conjugate, a bound on a condition number."""
    if kappa != 0 and not (kappa >= 1 and init == "ptd-conjugate"):
        raise ValueError(f"ptd_kappa bounds a condition number, with init=ptd-conjugate: 1 or more, or 0; got {kappa}")
