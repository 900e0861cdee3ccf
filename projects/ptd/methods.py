"""Four ways to approximate a state matrix A by a diagonal system, and their distances from A.

normal         the normal part of HiPPO, as in S4D and S5: V is unitary
random         A + E with a real Gaussian E of a given size (arXiv 2310.01698, theorem 4)
dense          A + E with the best dense complex E from a random start (eq. 4, as in the published code)
ptd-conjugate  A + E with the best real E for which all modes are conjugate pairs (s5jax.ssm.ptd)
"""

import dataclasses
from typing import Literal

import numpy as np
import scipy.linalg
from jaxtyping import Complex, Float, Inexact

from s5jax.ssm import eigenbasis, ptd
from s5jax.ssm.perturbation import Objective, Unreachable, search

__all__ = ["METHODS", "Diagonalized", "Method", "dense", "diagonalize", "frequency_response", "random", "unit_kappa"]

Method = Literal["normal", "random", "dense", "ptd-conjugate"]
METHODS: tuple[Method, ...] = ("normal", "random", "dense", "ptd-conjugate")

SPREAD = 0.1
"""Default ||E||_F / ||A||_2 of a random perturbation; ||E||_2 / ||A||_2 where `dense` starts."""


@dataclasses.dataclass(frozen=True, eq=False)
class Diagonalized:
    """A + E = V diag(Lambda) V^-1, from one of METHODS."""

    method: Method
    A: Float[np.ndarray, "n n"]
    Lambda: Complex[np.ndarray, " n"]
    V: Complex[np.ndarray, "n n"]
    E: Inexact[np.ndarray, "n n"]

    @property
    def kappa(self) -> float:
        """The condition number of V in the 2-norm, with columns scaled as the method scales them."""
        return float(np.linalg.cond(self.V))

    @property
    def norm(self) -> float:
        """||E||_2 / ||A||_2."""
        return float(np.linalg.norm(self.E, 2) / np.linalg.norm(self.A, 2))

    @property
    def max_real(self) -> float:
        """The largest real part of an eigenvalue; the system is unstable where it is positive."""
        return float(self.Lambda.real.max())

    def response(
        self, B: Float[np.ndarray, " n"], C: Float[np.ndarray, " n"], omega: Float[np.ndarray, " F"]
    ) -> Complex[np.ndarray, " F"]:
        """G(i omega) = C (i omega I - A - E)^-1 B, with B / 2 for the normal part (arXiv 2206.11893, theorem 3)."""
        weights = (C @ self.V) * np.linalg.solve(self.V, (B / 2 if self.method == "normal" else B).astype(complex))
        return np.sum(weights / (1j * omega[:, None] - self.Lambda), axis=1)

    def transfer_error(
        self, B: Float[np.ndarray, " n"] | None = None, C: Float[np.ndarray, " n"] | None = None
    ) -> tuple[float, float]:
        """The largest |G(i omega) - G_A(i omega)| between (A + E, B, C) and (A, B, C), and the omega where it is.

        The maximum is over a grid with all eigenfrequencies on it, up to 1.3 times the largest of them and of those of
        the normal part; for HiPPO-LegS that is about 1.3 n^2 / pi.

        Args:
          B: default: that of HiPPO-LegS, sqrt(2i + 1).
          C: default: the first unit vector.
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
        with np.errstate(all="ignore"):  # a pole on the axis: its neighbours show it as well
            difference = np.nan_to_num(
                np.abs(self.response(B, C, omega) - frequency_response(self.A, B, C, omega)), nan=0.0, posinf=np.inf
            )
        at = int(difference.argmax())
        return float(difference[at]), float(omega[at])


def unit_kappa(V: Complex[np.ndarray, "n n"]) -> float:
    """The condition number of V with columns scaled to norm 1: the scaling of the published matrices."""
    return float(np.linalg.cond(V / np.linalg.norm(V, axis=0)))


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


def diagonalize(A: Float[np.ndarray, "n n"], method: Method, bound: float | int | None = None) -> Diagonalized:
    """A diagonal system by one of METHODS.

    Args:
      A: real (n, n); n even for `ptd-conjugate`.
      method: see above.
      bound: for `dense` and `ptd-conjugate` the bound on kappa(V), default `ptd.default_kappa(n)`; for `random` the
        size of E, default SPREAD; not used for `normal`.

    Raises:
      Unreachable: no E was found within the bound.
    """
    match method:
        case "normal":
            return normal(A)
        case "random":
            return random(A, SPREAD if bound is None else bound)
        case "dense":
            return dense(A, bound)
        case "ptd-conjugate":
            return Diagonalized(method, A, *ptd.perturb_then_diagonalize(A, kappa=bound))


def normal(A: Float[np.ndarray, "n n"]) -> Diagonalized:
    """A + E is the skew-symmetric part of A plus the largest eigenvalue of its symmetric part: HiPPO's normal part."""
    shift = np.linalg.eigvalsh((A + A.T) / 2)[-1]
    frequency, V = np.linalg.eigh(-1j * (A - A.T) / 2)
    Lambda, half = shift + 1j * frequency, len(A) // 2
    if len(A) % 2 == 0 and (Lambda[:half].imag < 0).all():
        Lambda, V = eigenbasis.with_conjugates(Lambda[:half], V[:, :half])
    return Diagonalized("normal", A, Lambda, eigenbasis.canonical(V), (A - A.T) / 2 + shift * np.eye(len(A)) - A)


def random(A: Float[np.ndarray, "n n"], size: float | int, seed: int = 0) -> Diagonalized:
    """E is a real Gaussian matrix with ||E||_F / ||A||_2 = size. The system may be unstable."""
    E = np.random.default_rng(seed).normal(size=A.shape)
    E *= size * np.linalg.norm(A, 2) / np.linalg.norm(E)
    Lambda, V = eigenbasis.eigenbasis(A + E)[0]
    return Diagonalized("random", A, Lambda, eigenbasis.canonical(V), E)


def dense(A: Float[np.ndarray, "n n"], kappa: float | int | None = None, seed: int = 0) -> Diagonalized:
    """E is dense and complex: the least one found with kappa(V) <= kappa, from a random start.

    The modes are not conjugate pairs, so that a system must store all n of them. They may be unstable.

    Raises:
      Unreachable: no E was found within the bound.
    """
    limit = ptd.default_kappa(len(A)) if kappa is None else float(kappa)
    objective = DenseObjective(A)
    real, imag = np.random.default_rng(seed).normal(size=(2, *A.shape))
    E = real + 1j * imag
    start = objective.vector(E * (SPREAD * np.linalg.norm(A, 2) / np.linalg.norm(E, 2)))
    x, _ = search(objective, start, 0, limit)
    Lambda, V = objective.modes(x)
    if np.linalg.cond(V) > limit * (1 + 1e-9):
        raise Unreachable(f"no dense perturbation with kappa(V) <= {limit:g} was found: {np.linalg.cond(V):.6g}")
    V = eigenbasis.canonical(V * (np.sqrt(len(A)) / np.linalg.norm(V)))
    return Diagonalized("dense", A, Lambda, V, objective.perturbation(x))


class DenseObjective(Objective):
    """The objective of `perturbation` for E = ||A||_2 (U + i W), U and W (n, n), a scale per mode, and no barriers."""

    def __init__(self, A: Float[np.ndarray, "n n"]):
        super().__init__(A, np.inf)
        self.scales = len(A)

    def vector(self, E: Inexact[np.ndarray, "n n"]) -> Float[np.ndarray, " x"]:
        """x for a given E, with all scales 1."""
        return np.concatenate([E.real.ravel() / self.unit, E.imag.ravel() / self.unit, np.zeros(self.scales)])

    def perturbation(self, x: Float[np.ndarray, " x"]) -> Complex[np.ndarray, "n n"]:
        """The matrix E."""
        U, W = self.split(x)
        return self.unit * (U + 1j * W)

    def modes(self, x: Float[np.ndarray, " x"]) -> eigenbasis.Modes:
        """Eigenvalues and scaled eigenvectors of A + E."""
        Lambda, V = eigenbasis.eigenbasis(self.A + self.perturbation(x))[0]
        return Lambda, V * np.exp(x[-self.scales :])

    def barrier(self, Lambda: Complex[np.ndarray, " n"]) -> tuple[float, Complex[np.ndarray, " n"]]:
        """None."""
        return 0.0, np.zeros_like(Lambda)

    def pull(self, x: np.ndarray, G_E: np.ndarray, G_scale: np.ndarray) -> np.ndarray:
        """The gradient with respect to x, from those with respect to E and to the logarithms of all scales."""
        return np.concatenate([self.unit * G_E.real.ravel(), self.unit * G_E.imag.ravel(), G_scale])
