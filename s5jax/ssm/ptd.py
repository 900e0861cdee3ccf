"""Perturb, then diagonalize: a matrix close to HiPPO-LegS whose eigenvectors are well conditioned. Float64 NumPy.

    A + E = V diag(Lambda) V^-1,    kappa(V) small and E small

(Yu, Nigmetov, Morozov, Mahoney, Erichson 2023, arXiv 2310.01698, eq. 4). HiPPO-LegS itself cannot be diagonalized
accurately: kappa(V) grows exponentially with n. S4D-LegS and S5 diagonalize its normal part instead, whose transfer
function has spikes that HiPPO's lacks; with E small, that of A + E has none. The optimal E for the usual sizes is in
`ptd_legs.npz`; `perturbation` computes the others.
"""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Complex, Float

from s5jax.ssm import eigenbasis, hippo

__all__ = ["TABLE", "Perturbed", "default_kappa", "perturb_then_diagonalize", "perturbed_legs"]

TABLE = pathlib.Path(__file__).with_name("ptd_legs.npz")
"""The optima for HiPPO-LegS with the default bound: under the key str(n), the vectors u (n,), w (n,) and s (n/2,),
concatenated. E = u w^T, and s holds the norms of the eigenvectors of the first half.
`python projects/ptd/make_table.py` writes it."""

MAX_REAL = -0.25
"""Default bound on the real parts of all eigenvalues of A + E."""


@dataclasses.dataclass(frozen=True, eq=False)
class Perturbed:
    """A + E = V diag(Lambda) V^-1. Unpacks as (Lambda, V, E).

    The first n/2 modes have negative imaginary parts; the others are their exact conjugates in the same order.
    ||V||_F^2 is n, and the first non-zero entry of each column is real and positive.
    """

    A: Float[np.ndarray, "n n"]
    Lambda: Complex[np.ndarray, " n"]
    V: Complex[np.ndarray, "n n"]
    E: Float[np.ndarray, "n n"]

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter((self.Lambda, self.V, self.E))

    @property
    def kappa(self) -> float:
        """The condition number of V in the 2-norm."""
        return float(np.linalg.cond(self.V))

    @property
    def norm(self) -> float:
        """||E||_2 / ||A||_2."""
        return float(np.linalg.norm(self.E, 2) / np.linalg.norm(self.A, 2))

    @property
    def max_real(self) -> float:
        """The largest real part of an eigenvalue."""
        return float(self.Lambda.real.max())

    @property
    def inverse(self) -> Complex[np.ndarray, "n n"]:
        """V^-1."""
        return np.linalg.inv(self.V)

    def halves(self) -> tuple[Complex[np.ndarray, " m"], Complex[np.ndarray, "n m"], Complex[np.ndarray, "m n"]]:
        """Lambda, columns of V and rows of V^-1 for the m = n/2 modes with negative imaginary part.

        In their coordinates z the real system's x is 2 Re(V z), B becomes V^-1 B, and C becomes C V.
        """
        m = len(self.Lambda) // 2
        return self.Lambda[:m], self.V[:, :m], self.inverse[:m]


def default_kappa(n: int) -> float:
    """The bound on kappa(V) for n states, 9 n / (n + 8)."""
    return 9 * n / (n + 8)


@functools.cache
def perturbed_legs(n: int, kappa: float = 0.0) -> Perturbed:
    """HiPPO-LegS of n states, perturbed and diagonalized; computed once in a process.

    Args:
      n: states, even.
      kappa: bound on kappa(V); 0: `default_kappa(n)`.
    """
    return perturb_then_diagonalize(hippo.legs(n)[0], kappa=kappa or None)


def perturb_then_diagonalize(
    A: Float[np.ndarray, "n n"],
    *,
    kappa: float | int | None = None,
    norm: float | int | None = None,
    gamma: float | int | None = None,
    max_real: float | int = MAX_REAL,
) -> Perturbed:
    """Diagonalizes A + E instead of A, for a small real E that makes the eigenvectors V well conditioned.

    All modes of A + E are conjugate pairs, so that half of them carry the system. E has the rank of the difference
    between A and its normal part, 1 for HiPPO-LegS; a higher rank hardly makes E smaller. At most one of kappa, norm
    and gamma is given.

    HiPPO-LegS of 2, 4, 8, ..., 128 states with the default bound is read from a table. Otherwise the optimiser
    runs: some two seconds for n = 48, a minute for n = 128, minutes for n = 256. For HiPPO matrices and a kappa of 2.5
    or more there is one optimum, and every machine finds it to 1e-9 if n (2 rank + 1/2) <= 500. With kappa closer to
    1 there are many: kappa(V) is within its bound, but E may be larger than necessary.

    Args:
      A: real (n, n), n even.
      kappa: bound on kappa(V); the least E is sought. Default: `default_kappa(n)`, if norm and gamma are not given.
      norm: bound on ||E||_F / ||A||_2, and therefore on ||E||_2 / ||A||_2; the least kappa(V) is sought.
      gamma: weight; kappa(V) + gamma ||E||_F / ||A||_2 is minimised (eq. 4).
      max_real: all eigenvalues have real parts below it, in the unit of A. If those of A are above it, E makes up for
        that.

    Returns:
      Lambda (n,), V (n, n) and E (n, n) as a `Perturbed`.

    Raises:
      ValueError: an argument is not as described.
      perturbation.Unreachable: (a ValueError) no E was found, or none within the bound.
    """
    A = _check_matrix(A)
    n = len(A)
    given = {name: float(x) for name, x in (("kappa", kappa), ("norm", norm), ("gamma", gamma)) if x is not None}
    if len(given) > 1:
        raise ValueError(f"at most one of kappa, norm and gamma can be given, got {' and '.join(given)}")
    ((bound, limit),) = given.items() or {"kappa": default_kappa(n)}.items()
    if not (math.isfinite(limit) and limit > 0):
        raise ValueError(f"{bound} must be a positive number, got {limit}")
    if bound == "kappa" and limit < 1:
        raise ValueError(f"kappa must be at least 1, as every condition number is; got {limit}")
    if not math.isfinite(max_real):
        raise ValueError(f"max_real must be a number, got {max_real}")
    default = (bound, limit, max_real) == ("kappa", default_kappa(n), MAX_REAL)
    found = _from_table(A) if default else None
    Lambda, V, E = found or _normal(A, max_real) or _optimize(A, bound, limit, float(max_real))
    return Perturbed(A, Lambda, eigenbasis.canonical(V * (np.sqrt(n) / np.linalg.norm(V))), E)


Found = tuple[Complex[np.ndarray, " n"], Complex[np.ndarray, "n n"], Float[np.ndarray, "n n"]]


def _check_matrix(A: Any) -> Float[np.ndarray, "n n"]:
    A = np.asarray(A)
    if A.ndim != 2 or A.shape[0] != A.shape[1] or not A.size:
        raise ValueError(f"A must be a square matrix, got shape {A.shape}")
    if np.iscomplexobj(A) or not np.issubdtype(A.dtype, np.number):
        raise ValueError(f"A must be real, got {A.dtype}")
    A = A.astype(np.float64)
    if not np.isfinite(A).all():
        raise ValueError(f"A must be finite, got {np.size(A) - np.isfinite(A).sum()} entries that are NaN or infinite")
    if not A.any():
        raise ValueError("A must not be zero")
    if len(A) % 2:
        raise ValueError(f"n must be even, so that all modes can be in pairs; A is {len(A)} x {len(A)}")
    return A


def _from_table(A: Float[np.ndarray, "n n"]) -> Found | None:
    """The optimum for HiPPO-LegS with the default bound; `None` for other matrices and other sizes."""
    n = len(A)
    with np.load(TABLE) as table:
        if str(n) not in table or not np.array_equal(A, hippo.legs(n)[0]):
            return None
        u, w, norms = np.split(table[str(n)], [n, 2 * n])
    E = np.outer(u, w)
    (Lambda, V), _ = eigenbasis.eigenbasis(A + E)
    return Lambda, V * np.tile(norms, 2), E


def _normal(A: Float[np.ndarray, "n n"], max_real: float | int) -> Found | None:
    """A itself, where it is a multiple of I plus a skew-symmetric matrix with conjugate pairs of modes."""
    S, half = (A - A.T) / 2 + np.trace(A) / len(A) * np.eye(len(A)), len(A) // 2
    if np.linalg.norm(S - A) > 1e-12 * np.linalg.norm(A, 2):
        return None
    Lambda, V = hippo.normal_part(S, np.zeros((1, len(A))))
    if not (Lambda[:half].imag < 0).all() or Lambda[0].real >= max_real:
        return None
    return *eigenbasis.with_conjugates(Lambda[:half], V[:, :half]), S - A


def _optimize(A: Float[np.ndarray, "n n"], bound: Any, limit: float, max_real: float) -> Found:
    from s5jax.ssm import perturbation  # it imports scipy.optimize

    return perturbation.optimize(A, bound, limit, max_real)
