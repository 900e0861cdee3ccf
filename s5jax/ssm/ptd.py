"""Perturb, then diagonalise: a matrix near HiPPO with well conditioned eigenvectors, in float64 NumPy.

Yu, Nigmetov, Morozov, Mahoney, Erichson 2023, arXiv 2310.01698. The optimisation is in `perturbation`.
"""

import dataclasses
import math
import pathlib
from collections.abc import Iterator

import numpy as np
import scipy.linalg
import threadpoolctl  # type: ignore[import-untyped]
from jaxtyping import Complex, Float, Inexact

from s5jax.ssm import matrices, perturbation
from s5jax.ssm.diagonal import Method
from s5jax.ssm.phases import canonical

__all__ = ["Perturbed", "frequency_response", "perturb_then_diagonalize"]

SPREAD = 0.1
"""||E||_F / ||A||_2 of a random perturbation, unless told otherwise; ||E||_2 / ||A||_2 where `ptd` starts."""


@dataclasses.dataclass(frozen=True, eq=False)
class Perturbed:
    """A + E = V diag(Lambda) V^-1. Unpacks as (Lambda, V, E).

    Where all modes are conjugate pairs, as by `ptd-conjugate`, the first n/2 have negative imaginary parts, and the
    others are their exact conjugates in the same order. ||V||_F^2 = n, and each column's first entry that is not zero
    is real and positive.
    """

    A: Float[np.ndarray, "n n"]
    Lambda: Complex[np.ndarray, " n"]
    V: Complex[np.ndarray, "n n"]
    E: Inexact[np.ndarray, "n n"]
    method: Method

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter((self.Lambda, self.V, self.E))

    @property
    def kappa(self) -> float:
        """The condition number of V in the 2-norm."""
        return perturbation.condition_number(self.V)

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
        """Lambda, columns of V and rows of V^-1 of the m = n/2 modes with negative imaginary part.

        In their coordinates z the real system's x is 2 Re(V z), and B becomes V^-1 B, and C becomes C V.

        Raises:
          ValueError: not all modes are conjugate pairs.
        """
        if not self.paired:
            raise ValueError(f"the modes of A + E by {self.method} are not all conjugate pairs, which halves need")
        m = len(self.Lambda) // 2
        return self.Lambda[:m], self.V[:, :m], self.inverse[:m]

    @property
    def paired(self) -> bool:
        """Whether all modes are conjugate pairs, none of them real, so that half of them carry a real system."""
        half = len(self.Lambda) // 2
        first, second = self.Lambda[:half], self.Lambda[half:]
        return len(first) == len(second) and bool((first.imag < 0).all() and (first == second.conj()).all())

    def transfer_error(
        self, B: Float[np.ndarray, " n"] | None = None, C: Float[np.ndarray, " n"] | None = None
    ) -> tuple[float, float]:
        """The largest |G(i omega) - G_A(i omega)| of (A + E, B, C) and (A, B, C), and the omega that it stands at.

        It is looked for at all eigenfrequencies, and up to 1.3 times the largest of them and of the normal part's; for
        HiPPO-LegS that is about 1.3 n^2 / pi.

        Args:
          B: default HiPPO-LegS', sqrt(2i + 1). The normal part gets half of it: only so it comes near HiPPO
            (arXiv 2206.11893, theorem 3).
          C: default the first unit vector.
        """
        n = len(self.A)
        B = np.sqrt(2.0 * np.arange(n) + 1.0) if B is None else B
        C = np.eye(n)[0] if C is None else C
        frequencies = np.concatenate([np.linalg.eigvalsh(1j * (self.A - self.A.T) / 2), self.Lambda.imag])
        end = 1.3 * max(np.abs(frequencies).max(), 1e-3)
        width = np.abs(self.Lambda.real)[:, None] * np.array([0.0, 0.25, 0.5, 1.0, 2.0])
        peaks = np.abs(np.abs(self.Lambda.imag)[:, None] + np.concatenate([-width, width], axis=1)).ravel()
        omega = np.unique(np.concatenate([np.linspace(0, end, 2000), np.geomspace(1e-4 * end, end, 500), peaks]))
        if np.iscomplexobj(self.E):
            omega = np.concatenate([-omega[::-1], omega])
        with np.errstate(all="ignore"):  # a pole on the axis, which its neighbours tell of as well
            difference = np.nan_to_num(
                np.abs(self.response(B, C, omega) - frequency_response(self.A, B, C, omega)), nan=0.0, posinf=np.inf
            )
        at = int(difference.argmax())
        return float(difference[at]), float(omega[at])

    def response(
        self, B: Float[np.ndarray, " n"], C: Float[np.ndarray, " n"], omega: Float[np.ndarray, " F"]
    ) -> Complex[np.ndarray, " F"]:
        """G(i omega) = C (i omega I - A - E)^-1 B, with B / 2 for the normal part."""
        weights = (C @ self.V) * np.linalg.solve(self.V, (B / 2 if self.method == "normal" else B).astype(complex))
        return np.sum(weights / (1j * omega[:, None] - self.Lambda), axis=1)

    def report(self) -> str:
        """What was traded for what, in a line."""
        error, at = self.transfer_error()
        return (
            f"{self.method}, n = {len(self.A)}: kappa(V) {self.kappa:.2f}, ||E|| / ||A|| {self.norm:.4f},"
            f" max Re {self.max_real:.3f}, sup |G - G_A| {error:.4f} at {at:.4g} rad/time"
        )


def frequency_response(
    A: Float[np.ndarray, "n n"],
    B: Float[np.ndarray, " n"],
    C: Float[np.ndarray, " n"],
    omega: Float[np.ndarray, " F"],
) -> Complex[np.ndarray, " F"]:
    """G(i omega) = C (i omega I - A)^-1 B of any real system, by its Schur form."""
    T, Q = scipy.linalg.schur(A, output="complex")
    x, right = np.zeros((len(A), len(omega)), complex), Q.conj().T @ B
    for i in reversed(range(len(A))):
        x[i] = (right[i] + T[i, i + 1 :] @ x[i + 1 :]) / (1j * omega - T[i, i])
    return (C @ Q) @ x


def perturb_then_diagonalize(
    A: Float[np.ndarray, "n n"],
    *,
    method: Method = "ptd-conjugate",
    kappa: float | int | None = None,
    norm: float | int | None = None,
    gamma: float | int | None = None,
    max_real: float | int = -0.25,
    seed: int = 0,
    cache: pathlib.Path | str | None = None,
) -> Perturbed:
    """Diagonalises A + E instead of A, for a small E that makes the eigenvectors V well conditioned.

    HiPPO-LegS cannot be diagonalised: kappa(V) grows as 2^n. Its normal part can, and is what S4D and S5 start from,
    but its transfer function has spikes that HiPPO's has not. With E small, A + E has HiPPO's (arXiv 2310.01698).

    Methods:
      `ptd-conjugate`: E is real and all modes are conjugate pairs, so that half of them carry the system. E has the
        rank of what takes A to its normal part, which for HiPPO-LegS is 1; of more rank it is hardly smaller. For
        HiPPO matrices and kappa of 2.5 or more the optimum is one, and the same to 1e-9 by any BLAS, while
        n (2 rank + 1/2) <= 1500. Nearer to 1 there are many, and E is within its bound, but may be larger than need be.
      `ptd`: as published, over a dense complex E, from a random start; stable or not as it comes.
      `random`: E is a real Ginibre matrix, scaled; likewise. For comparison.
      `normal`: A + E is the skew-symmetric part of A and, on the diagonal, the largest eigenvalue of its symmetric
        part: for HiPPO the normal part of "normal plus low rank". V is unitary.

    Args:
      A: real (n, n); n even for `ptd-conjugate`.
      method: see above.
      kappa: bound on kappa(V); the least E is sought. (`random`: of 61 sizes of the one matrix drawn.)
      norm: bound on ||E||_F / ||A||_2, and so on ||E||_2 / ||A||_2; the least kappa(V) is sought.
      gamma: minimise kappa(V) + gamma ||E||_F / ||A||_2 instead. At most one of the three; none for `normal`.
        Default: kappa = 9 n / (n + 8); for `random`, whose kappa is about n at least, norm = 0.1.
      max_real: with `ptd-conjugate` all eigenvalues have real parts below it. In the unit of A, as is the default: a
        matrix whose own are above needs an E that makes up for it, or another max_real.
      seed: of the random start of `ptd`, of `random`, and of `ptd-conjugate` where A has no skew-symmetric part.
      cache: directory that results are kept in, and taken from; default: $S5JAX_CACHE_DIR, or s5jax in $XDG_CACHE_HOME
        or ~/.cache. One that cannot be written to is told of by a warning.

    Returns:
      Lambda (n,), V (n, n) and E (n, n) as a `Perturbed`, which also tells what they are worth.

    Raises:
      ValueError: an argument is not as described.
      perturbation.Unreachable: (a ValueError) no E was found within the bound; the message has the best reached.
    """
    A = _check_matrix(A, method)
    bounds = {"kappa": kappa, "norm": norm, "gamma": gamma}
    given = {name: float(value) for name, value in bounds.items() if value is not None}
    if len(given) > (method != "normal"):
        raise ValueError(
            f"method {method} takes {'none' if method == 'normal' else 'at most one'} of kappa, norm and gamma,"
            f" got {' and '.join(given)}"
        )
    for name, value in given.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be a positive number, got {value}")
    if not math.isfinite(max_real):
        raise ValueError(f"max_real must be a number, got {max_real}")
    if not given:
        given = {"norm": SPREAD} if method == "random" else {"kappa": 9 * len(A) / (len(A) + 8)}
    ((name, value),) = given.items()
    if method == "normal":
        return _normal(A)
    if name == "kappa" and value < 1:
        raise perturbation.Unreachable(f"kappa(V) <= {value:g} cannot be: no matrix has a condition number below 1")

    # The first number counts the changes to what is computed.
    file = matrices.file_for(cache, "ptd", (2, method, name, value, float(max_real), int(seed)), A)
    stored = matrices.read(file, ("Lambda", "V", "E"))
    if stored is not None:
        Lambda, V, E = stored
        fits = V.shape == E.shape == A.shape and Lambda.shape == A.shape[:1]
        if fits and np.abs((A + E) @ V - V * Lambda).max() < 1e-9 * np.abs(A).max():
            return Perturbed(A, Lambda, V, E, method)
    # One thread is faster for matrices this small, and gives the same bits on a machine whatever it is set to.
    with threadpoolctl.threadpool_limits(1, "blas"):
        Lambda, V, E = _perturb(A, method, name, value, float(max_real), np.random.default_rng(seed))
    V = canonical(V)
    matrices.write(file, Lambda=Lambda, V=V, E=E)
    return Perturbed(A, Lambda, V, E, method)


def _check_matrix(A: Float[np.ndarray, "n n"], method: Method) -> Float[np.ndarray, "n n"]:
    if method not in ("ptd-conjugate", "ptd", "random", "normal"):
        raise ValueError(f"method must be one of ptd-conjugate, ptd, random, normal; got {method!r}")
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
    if method == "ptd-conjugate" and len(A) % 2:
        raise ValueError(f"ptd-conjugate needs an even n, for all modes to be in pairs; A is {len(A)} x {len(A)}")
    return A


def _normal(A: Float[np.ndarray, "n n"]) -> Perturbed:
    shift = np.linalg.eigvalsh((A + A.T) / 2)[-1]
    frequency, V = np.linalg.eigh(-1j * (A - A.T) / 2)
    Lambda, half = shift + 1j * frequency, len(A) // 2
    if len(A) % 2 == 0 and (Lambda[:half].imag < 0).all():
        Lambda = np.concatenate([Lambda[:half], Lambda[:half].conj()])
        V = np.concatenate([V[:, :half], V[:, :half].conj()], axis=1)
    return Perturbed(A, Lambda, canonical(V), (A - A.T) / 2 + shift * np.eye(len(A)) - A, "normal")


def _perturb(
    A: Float[np.ndarray, "n n"], method: Method, name: str, value: float, max_real: float, rng: np.random.Generator
) -> tuple[Complex[np.ndarray, " n"], Complex[np.ndarray, "n n"], Inexact[np.ndarray, "n n"]]:
    if method == "random":
        (Lambda, V), E = perturbation.random(A, name, value, rng)
        return Lambda, V, E
    term = {"kappa": perturbation.KAPPA, "norm": perturbation.SIZE, "gamma": None}[name]
    if method == "ptd":
        E = rng.normal(size=(2, *A.shape))
        E = E[0] + 1j * E[1]
        starts = [E * (SPREAD * np.linalg.norm(A, 2) / np.linalg.norm(E, 2))]
    else:
        starts = perturbation.starts(A, name, value, max_real, rng)
        if not starts:
            normal = _normal(A)
            return normal.Lambda, normal.V, normal.E
    (Lambda, V), E = perturbation.optimize(
        A, starts, conjugate=method == "ptd-conjugate", max_real=max_real, term=term, limit=value
    )
    return Lambda, V * (np.sqrt(len(A)) / np.linalg.norm(V)), E
