"""Eigenvalues and eigenvectors of any matrix, and a choice of their phases, in float64 NumPy."""

import numpy as np
from jaxtyping import Complex, Inexact

Modes = tuple[Complex[np.ndarray, " n"], Complex[np.ndarray, "n n"]]
"""Eigenvalues, and eigenvectors in columns."""


def eigenbasis(M: Inexact[np.ndarray, "n n"]) -> tuple[Modes, bool]:
    """Eigenvalues sorted by imaginary part, eigenvectors of norm 1, and whether the modes are n/2 conjugate pairs. If
    so, those with negative imaginary parts come first, then their exact conjugates in the same order."""
    Lambda, V = np.linalg.eig(M)
    order = np.argsort(Lambda.imag, kind="stable")
    Lambda, V = Lambda[order].astype(complex), V[:, order].astype(complex)
    half = len(M) // 2
    paired = not np.iscomplexobj(M) and 2 * half == len(M) and bool((Lambda[:half].imag < 0).all())
    return (with_conjugates(Lambda[:half], V[:, :half]) if paired else (Lambda, V)), paired


def with_conjugates(Lambda: Complex[np.ndarray, " m"], V: Complex[np.ndarray, "n m"]) -> Modes:
    """Modes, and then their conjugates in the same order."""
    return np.concatenate([Lambda, Lambda.conj()]), np.concatenate([V, V.conj()], axis=1)


def canonical(V: Complex[np.ndarray, "n m"]) -> Complex[np.ndarray, "n m"]:
    """Eigenvectors with phases that do not depend on the machine: the first non-zero component is real and positive."""
    first = np.argmax(np.abs(V) > 1e-6 * np.abs(V).max(axis=0), axis=0)
    pivot = V[first, np.arange(V.shape[1])]
    return V * (pivot.conj() / np.abs(pivot))
