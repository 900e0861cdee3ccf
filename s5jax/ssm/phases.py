"""Eigenvectors with phases that are the same on every machine."""

import numpy as np
from jaxtyping import Complex


def canonical(V: Complex[np.ndarray, "n m"]) -> Complex[np.ndarray, "n m"]:
    """Eigenvectors of the phases that make each one's first component that is not zero real and positive."""
    first = np.argmax(np.abs(V) > 1e-6 * np.abs(V).max(axis=0), axis=0)
    pivot = V[first, np.arange(V.shape[1])]
    return V * (pivot.conj() / np.abs(pivot))
