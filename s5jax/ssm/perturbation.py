"""The optimiser behind `ptd.perturb_then_diagonalize`, for what its table does not hold. Float64 NumPy.

It minimises kappa(V) + gamma ||E||_F / ||A||_2 (arXiv 2310.01698, eq. 4) over real matrices E of low rank such that all
eigenvalues of A + E = V diag(Lambda) V^-1 come in conjugate pairs. L-BFGS finds the optimum. For up to FEW unknowns, a
root finder then solves the optimality conditions to about rounding error. Eigenvalues and eigenvectors have derivatives
in closed form: with F_jk = 1 / (Lambda_k - Lambda_j), zero for j = k,

    d Lambda = diag(V^-1 dE V),    dV = V (F * (V^-1 dE V)),

up to the scale of each eigenvector. The scales are variables too: they change kappa(V) and nothing else.
"""

import math
from typing import Literal

import numpy as np
import scipy.optimize
from jaxtyping import Complex, Float, Inexact

from s5jax.ssm.eigenbasis import Modes, eigenbasis

__all__ = ["Objective", "Unreachable", "descend", "optimize", "search"]

SMOOTHING = 32.0  # order of the Schatten norms whose product is taken for kappa: smooth where singular values meet
BARRIER = 1e-4  # weight of the logarithms that keep real parts of eigenvalues below max_real and imaginary parts off 0
SLACK = 1e-2  # how far below a limit, relatively, the search may end
FEW = 500  # unknowns up to which the optimum is made exact: n = 200 for HiPPO-LegS

Bound = Literal["kappa", "norm", "gamma"]
"""The constraint or weight: a bound on kappa(V), a bound on ||E||_F / ||A||_2, or the weight of the latter."""


class Unreachable(ValueError):
    """No perturbation was found within a bound."""


class Objective:
    """kappa(V) + gamma ||E||_F / ||A||_2 as a function of one real vector x, with its gradient.

    x holds U and W (n, r), with E = ||A||_2 U W^T, and then the logarithm of the scale of each of the n/2 mode pairs.

    Args:
      A: the state matrix (n, n), n even.
      max_real: all real parts of eigenvalues of A + E are below it.
    """

    def __init__(self, A: Float[np.ndarray, "n n"], max_real: float):
        self.A, self.max_real, self.scales = A, max_real, len(A) // 2
        self.unit = float(np.linalg.norm(A, 2))

    def vector(self, E: Inexact[np.ndarray, "n n"]) -> Float[np.ndarray, " x"]:
        """x for a given E, with all scales 1. The rank r of E becomes that of the search."""
        left, s, right = np.linalg.svd(E / self.unit)
        rank = max(1, int((s > 1e-10 * s[0]).sum()))
        root = np.sqrt(s[:rank])
        return np.concatenate([(left[:, :rank] * root).ravel(), (right[:rank].T * root).ravel(), np.zeros(self.scales)])

    def split(self, x: Float[np.ndarray, " x"]) -> Float[np.ndarray, "2 n r"]:
        """U and W."""
        return x[: -self.scales].reshape(2, len(self.A), -1)

    def perturbation(self, x: Float[np.ndarray, " x"]) -> Inexact[np.ndarray, "n n"]:
        """E."""
        U, W = self.split(x)
        return self.unit * (U @ W.T)

    def modes(self, x: Float[np.ndarray, " x"]) -> Modes | None:
        """Eigenvalues and scaled eigenvectors of A + E; `None` outside the domain."""
        (Lambda, V), paired = eigenbasis(self.A + self.perturbation(x))
        inside = paired and Lambda.real.max() < self.max_real
        return (Lambda, V * np.exp(np.tile(x[-self.scales :], 2))) if inside else None

    def barrier(self, Lambda: Complex[np.ndarray, " n"]) -> tuple[float, Complex[np.ndarray, " n"]]:
        """The barrier that keeps eigenvalues in the domain, and its gradient."""
        room = (self.max_real - Lambda.real, np.abs(Lambda.imag))
        return -BARRIER * float(np.log(np.divide(room, self.unit)).sum()), BARRIER * (1 / room[0] - 1j / Lambda.imag)

    def terms(self, x: Float[np.ndarray, " x"]) -> tuple[Float[np.ndarray, " 3"], Float[np.ndarray, "3 x"]] | None:
        """kappa(V), ||E||_F / ||A||_2 and the barriers, and their gradients; `None` outside the domain."""
        E, modes = self.perturbation(x), self.modes(x)
        if modes is None:
            return None
        Lambda, V = modes
        left, s, right = np.linalg.svd(V)
        if s[-1] <= 1e-12 * s[0]:
            return None
        inverse = (right.conj().T / s) @ left.conj().T
        gap = Lambda[None, :] - Lambda[:, None]
        gap[gap == 0] = np.inf  # the diagonal, and eigenvalues that coincide

        # log kappa = log(sum s^q) / q + log(sum s^-q) / q, q = SMOOTHING, without overflow
        up, down = (s / s[0]) ** SMOOTHING, (s[-1] / s) ** SMOOTHING
        kappa = s[0] / s[-1] * (up.sum() * down.sum()) ** (1 / SMOOTHING)
        G_V = kappa * (left * ((up / up.sum() - down / down.sum()) / s)) @ right
        G_scale = (G_V.conj() * V).sum(0).real
        G_V = G_V - V * (G_scale / (np.abs(V) ** 2).sum(0))  # before scaling, eigenvectors have norm 1
        G_E = inverse.conj().T @ ((V.conj().T @ G_V) / gap.conj()) @ V.conj().T

        size = float(np.linalg.norm(E)) / self.unit
        barrier, G_Lambda = self.barrier(Lambda)
        gradients = [
            self.pull(x, G_E, G_scale),
            self.pull(x, E / (size * self.unit**2), 0 * G_scale),
            self.pull(x, (inverse.conj().T * G_Lambda) @ V.conj().T, 0 * G_scale),
        ]
        return np.array([kappa, size, barrier]), np.stack(gradients)

    def pull(self, x: np.ndarray, G_E: np.ndarray, G_scale: np.ndarray) -> np.ndarray:
        """The gradient with respect to x, from those with respect to E and to the logarithms of all scales."""
        (U, W), G_E = self.split(x), self.unit * G_E.real
        return np.concatenate([(G_E @ W).ravel(), (G_E.T @ U).ravel(), G_scale.reshape(2, -1).sum(0)])

    def values(self, x: Float[np.ndarray, " x"]) -> tuple[float, float]:
        """kappa(V) itself, not smoothed, infinite outside the domain; and ||E||_F / ||A||_2."""
        modes, size = self.modes(x), float(np.linalg.norm(self.perturbation(x))) / self.unit
        return math.inf if modes is None else float(np.linalg.cond(modes[1])), size

    def __call__(self, x: Float[np.ndarray, " x"], gamma: float) -> tuple[float, Float[np.ndarray, " x"]]:
        """kappa + gamma size + barriers, and its gradient; a huge value outside the domain."""
        found = self.terms(x)
        weights = np.array([1.0, gamma, 1.0])
        return (1e12, np.zeros_like(x)) if found is None else (float(weights @ found[0]), weights @ found[1])


def descend(objective: Objective, x: Float[np.ndarray, " x"], gamma: float) -> Float[np.ndarray, " x"]:
    """The minimum by L-BFGS. A run ends at the first step that gains little, so runs repeat until one gains little."""
    options = {"maxiter": 3000, "maxfun": 6000, "maxcor": 50, "ftol": 1e-11, "gtol": 1e-9}
    value = objective(x, gamma)[0]
    while True:
        result = scipy.optimize.minimize(objective, x, (gamma,), jac=True, method="L-BFGS-B", options=options)
        if not result.fun < value - 1e-8 * abs(value):
            return x
        x, value = result.x, result.fun


def search(
    objective: Objective, x: Float[np.ndarray, " x"], term: int, limit: float
) -> tuple[Float[np.ndarray, " x"], float | None]:
    """The minimum x, and the gamma for which a term, kappa (0) or the size of E (1), is just below its limit.

    If no such gamma is found (there are many minima if kappa is limited to less than about 2), gamma is `None`. x is
    then the point found within the limit whose other term is least or, if none is within it, the point closest to it.
    """
    # kappa rises with gamma and the size falls, about as gamma^0.4 and gamma^-0.6.
    log_gamma = min(math.log(3 * limit * max(limit - 1, 1e-3) if term == 0 else 0.19 / limit**2), 8.0)
    sides: dict[bool, tuple[float, float]] = {}  # by whether it is within: log gamma, and the logarithm of term / limit
    found = [x]
    for _ in range(30):
        x = descend(objective, x, math.exp(log_gamma))
        excess = math.log(objective.values(x)[term] / limit)
        if -SLACK <= excess <= 0:
            return x, math.exp(log_gamma)
        found.append(x)
        sides[excess <= 0] = log_gamma, excess
        step = 0.0
        if len(sides) == 2:
            (inside, below), (outside, above) = sides[True], sides[False]
            step = inside + (outside - inside) * (below + SLACK / 2) / (below - above) - log_gamma
        if abs(step) < 1e-3:  # only one side is known, or they contradict each other because L-BFGS stopped early
            sides = {excess <= 0: (log_gamma, excess)}
            step = (-1 if term == 0 else 1) * min(max(2.5 * (excess + SLACK / 2), -2.0), 2.0)
        log_gamma += step
        if abs(log_gamma) > 25:  # beyond 25, the objective could exceed its value outside the domain, 1e12
            break
    return min(found, key=lambda x: rank(objective, x, term, limit)), None


def rank(objective: Objective, x: Float[np.ndarray, " x"], term: int, limit: float) -> tuple[float, float]:
    """How far x is beyond the limit of a term, and how large the other term is."""
    values = objective.values(x)
    return max(values[term] / limit, 1.0), values[1 - term]


def polish(
    objective: Objective, x: Float[np.ndarray, " x"], gamma: float, term: int | None, limit: float
) -> Float[np.ndarray, " x"]:
    """Solves for the exact optimum from nearby: the gradient is zero, and the bounded term equals its limit.

    gamma, the multiplier of that limit, is an unknown as well. Without an exact solution nearby, x is returned.
    """

    def equations(z: np.ndarray) -> np.ndarray:
        found = objective.terms(z[:-1])
        if found is None:
            return np.full(len(z), 1e12)
        values, slopes = found
        fixed = z[-1] - math.log(gamma) if term is None else math.log(values[term] / limit)
        return np.append(np.array([1.0, math.exp(z[-1]), 1.0]) @ slopes, fixed)

    # Levenberg-Marquardt tolerates a singular Jacobian: U G and W G^-T give the same E for any G.
    options = {"xtol": 1e-14, "ftol": 1e-14, "maxiter": 20 * len(x)}
    result = scipy.optimize.root(equations, np.append(x, math.log(gamma)), method="lm", options=options)
    exact = result.x[:-1]
    better = objective(exact, gamma)[0] <= objective(x, gamma)[0] * (1 + 1e-3)  # and not a saddle
    return exact if better and np.abs(result.fun).max() < 1e-9 else x


def starts(A: Float[np.ndarray, "n n"], bound: Bound, limit: float, max_real: float) -> list[Float[np.ndarray, "n n"]]:
    """Starting values of E. Let W be a normal matrix with conjugate modes, minus A. First comes a fraction of W, within
    the bound if possible, and then W itself."""
    unit, rng = np.linalg.norm(A, 2), np.random.default_rng(0)
    shift = np.linalg.eigvalsh((A + A.T) / 2)[-1]
    if shift >= max_real:
        shift = max_real - 0.01 * unit
    for more in (0.0, 0.01, 0.1):  # size of a random skew-symmetric matrix, added if the modes do not form n/2 pairs
        K = rng.normal(size=A.shape)
        normal = (A - A.T) / 2 + shift * np.eye(len(A)) + more * unit / len(A) * (K - K.T)
        if eigenbasis(normal)[1]:
            break
    whole = normal - A
    shares = [min(limit * unit / np.linalg.norm(whole), 1.0)] if bound == "norm" else []
    for share in (*shares, *np.arange(0.05, 1.0, 0.05)):
        (Lambda, V), paired = eigenbasis(A + share * whole)
        if paired and Lambda.real.max() < max_real and (bound != "kappa" or np.linalg.cond(V) <= limit):
            return [share * whole, whole]
    return [whole]


def optimize(
    A: Float[np.ndarray, "n n"], bound: Bound, limit: float, max_real: float
) -> tuple[Complex[np.ndarray, " n"], Complex[np.ndarray, "n n"], Float[np.ndarray, "n n"]]:
    """Lambda, V and E of the best perturbation that is found.

    Args:
      A: the state matrix (n, n), n even; not a normal matrix with conjugate modes.
      bound: which of kappa(V) and the size of E has a limit, while the other is minimised; `gamma`: neither.
      limit: the limit, or gamma.
      max_real: all real parts of eigenvalues are below it.

    Raises:
      Unreachable: nothing was found with conjugate pairs and real parts below `max_real`; or nothing within the limit,
        in which case the message gives the least value reached.
    """
    objective = Objective(A, max_real)
    found: list[tuple[tuple[float, float], np.ndarray, float | None]] = []  # rank, x, gamma
    for x in map(objective.vector, starts(A, bound, limit, max_real)):
        if bound == "gamma":
            x = descend(objective, x, limit)
            found.append(((objective(x, limit)[0], 0.0), x, limit))
            continue
        term = 0 if bound == "kappa" else 1
        x, gamma = search(objective, x, term, limit)
        found.append((rank(objective, x, term, limit), x, gamma))
        if gamma is not None:
            break
    _, x, gamma = min(found, key=lambda one: one[0])
    if gamma is not None and len(x) <= FEW:
        x = polish(objective, x, gamma, None if bound == "gamma" else term, limit * (1 - 1e-9))
    modes = objective.modes(x)
    if modes is None:
        raise Unreachable(f"no perturbation was found with eigenvalues in pairs and real parts below {max_real:g}")
    reached = limit if bound == "gamma" else objective.values(x)[term]
    if reached > limit * (1 + 1e-9):
        name = "kappa(V)" if bound == "kappa" else "||E||_F / ||A||_2"
        raise Unreachable(f"no perturbation was found with {name} <= {limit:g}: the least reached is {reached:.6g}")
    return *modes, objective.perturbation(x)
