"""Which perturbation E of a state matrix A makes A + E = V diag(Lambda) V^-1 well conditioned: the optimisation behind
`ptd.perturb_then_diagonalize`.

kappa(V) + gamma ||E||_F / ||A||_2 (arXiv 2310.01698, eq. 4) is minimised over E in float64 NumPy, by L-BFGS and then,
where there are few unknowns, by Newton's method, whose result is the same to some units of rounding on every machine.
Eigenvalues and eigenvectors are differentiated in closed form: with F_jk = 1 / (Lambda_k - Lambda_j), zero for j = k,

    d Lambda = diag(V^-1 dE V),    dV = V (F * (V^-1 dE V)),

up to the scale of each eigenvector, which is a variable of its own, since it changes kappa and nothing else.
"""

import math
from collections.abc import Sequence

import numpy as np
import scipy.linalg
import scipy.optimize
from jaxtyping import Complex, Float, Inexact

__all__ = ["KAPPA", "SIZE", "Modes", "Unreachable", "condition_number", "eigenbasis", "optimize", "random", "starts"]

SMOOTHING = 32.0
"""kappa is taken of Schatten norms of this order, which are smooth where two singular values meet."""

BARRIER = 1e-4
"""Weight of the logarithms that keep eigenvalues below the bound on their real part and off the real axis."""

KAPPA, SIZE = 0, 1
"""Terms of the objective, either of which may have a limit."""

SLACK = 1e-2
"""How far below a limit, relatively, the search may end."""

FEW = 1500
"""Unknowns up to which Newton's method, with its dense Hessian, has the last word."""

Modes = tuple[Complex[np.ndarray, " n"], Complex[np.ndarray, "n n"]]
"""Eigenvalues, and eigenvectors in columns."""


class Unreachable(ValueError):
    """No perturbation was found within a bound."""


def condition_number(V: Inexact[np.ndarray, "n n"]) -> float:
    """kappa_2(V), infinite where V is singular."""
    s = np.linalg.svd(V, compute_uv=False)
    return float(s[0] / s[-1]) if s[-1] > 0 else math.inf


def eigenbasis(M: Inexact[np.ndarray, "n n"]) -> tuple[Modes, bool]:
    """Eigenvalues by imaginary part, and eigenvectors of norm 1; and whether all modes are n/2 conjugate pairs.

    If so, those with negative imaginary parts come first, and then their exact conjugates in the same order.
    """
    Lambda, V = np.linalg.eig(M)
    order = np.argsort(Lambda.imag, kind="stable")
    Lambda, V = Lambda[order].astype(complex), V[:, order].astype(complex)
    half = len(M) // 2
    paired = not np.iscomplexobj(M) and 2 * half == len(M) and bool((Lambda[:half].imag < 0).all())
    if paired:
        Lambda, V = Lambda[:half], V[:, :half]
        Lambda, V = np.concatenate([Lambda, Lambda.conj()]), np.concatenate([V, V.conj()], axis=1)
    return (Lambda, V), paired


class Objective:
    """kappa(V) + gamma ||E||_F / ||A||_2 of one real vector x, with its gradient.

    x holds two matrices and then the logarithm of the scale of each mode, or pair of modes. A real E is ||A||_2 times
    U W^T, with U and W (n, r); a complex one is ||A||_2 (U + i W), with U and W (n, n).

    Args:
      A: the state matrix.
      conjugate: E is real, and all modes of A + E are conjugate pairs.
      max_real: of a conjugate system, all real parts of eigenvalues are below it.
    """

    def __init__(self, A: Float[np.ndarray, "n n"], conjugate: bool, max_real: float):
        self.A, self.conjugate, self.max_real = A, conjugate, max_real
        self.unit = float(np.linalg.norm(A, 2))

    def vector(self, E: Inexact[np.ndarray, "n n"]) -> Float[np.ndarray, " x"]:
        """x for a given E, all scales 1. The rank r of a real E becomes that of the search."""
        n = len(E)
        if not self.conjugate:
            return np.concatenate([E.real.ravel() / self.unit, E.imag.ravel() / self.unit, np.zeros(n)])
        left, s, right = np.linalg.svd(E / self.unit)
        rank = max(1, int((s > 1e-10 * s[0]).sum()))
        root = np.sqrt(s[:rank])
        return np.concatenate([(left[:, :rank] * root).ravel(), (right[:rank].T * root).ravel(), np.zeros(n // 2)])

    def matrices(self, x: Float[np.ndarray, " x"]) -> tuple[Float[np.ndarray, "n r"], Float[np.ndarray, "n r"]]:
        """U and W."""
        n = len(self.A)
        scales = n // 2 if self.conjugate else n
        U, W = x[:-scales].reshape(2, n, -1)
        return U, W

    def perturbation(self, x: Float[np.ndarray, " x"]) -> Inexact[np.ndarray, "n n"]:
        """E."""
        U, W = self.matrices(x)
        return self.unit * (U @ W.T if self.conjugate else U + 1j * W)

    def modes(self, x: Float[np.ndarray, " x"]) -> Modes | None:
        """Of A + E, eigenvectors scaled as x says; `None` if they are not what they have to be."""
        (Lambda, V), paired = eigenbasis(self.A + self.perturbation(x))
        if self.conjugate and not (paired and Lambda.real.max() < self.max_real):
            return None
        scale = np.exp(np.tile(x[-len(V) // 2 :], 2) if self.conjugate else x[-len(V) :])
        return Lambda, V * scale

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
        kappa_slope = self._pull(x, inverse.conj().T @ ((V.conj().T @ G_V) / gap.conj()) @ V.conj().T, G_scale)

        size = float(np.linalg.norm(E)) / self.unit
        size_slope = self._pull(x, E / (size * self.unit**2), 0 * G_scale)

        barrier, barrier_slope = 0.0, np.zeros_like(x)
        if self.conjugate:
            room = self.max_real - Lambda.real
            barrier = -BARRIER * float(np.sum(np.log(room / self.unit) + np.log(np.abs(Lambda.imag) / self.unit)))
            G_Lambda = BARRIER * (1 / room - 1j / Lambda.imag)
            barrier_slope = self._pull(x, (inverse.conj().T * G_Lambda) @ V.conj().T, 0 * G_scale)
        return np.array([kappa, size, barrier]), np.stack([kappa_slope, size_slope, barrier_slope])

    def _pull(self, x: np.ndarray, G_E: np.ndarray, G_scale: np.ndarray) -> np.ndarray:
        """A gradient with respect to x, from those with respect to E and the logarithms of all scales."""
        G_E = self.unit * G_E
        if not self.conjugate:
            return np.concatenate([G_E.real.ravel(), G_E.imag.ravel(), G_scale])
        U, W = self.matrices(x)
        return np.concatenate([(G_E.real @ W).ravel(), (G_E.real.T @ U).ravel(), G_scale.reshape(2, -1).sum(0)])

    def values(self, x: Float[np.ndarray, " x"]) -> tuple[float, float]:
        """kappa(V) itself, not smoothed, infinite outside the domain, and ||E||_F / ||A||_2."""
        modes = self.modes(x)
        kappa = math.inf if modes is None else condition_number(modes[1])
        return kappa, float(np.linalg.norm(self.perturbation(x))) / self.unit

    def __call__(self, x: Float[np.ndarray, " x"], gamma: float) -> tuple[float, Float[np.ndarray, " x"]]:
        """kappa + gamma size + barriers, and its gradient; a huge value outside the domain."""
        found = self.terms(x)
        if found is None:
            return 1e12, np.zeros_like(x)
        weights = np.array([1.0, gamma, 1.0])
        return float(weights @ found[0]), weights @ found[1]

    def idle(self, x: Float[np.ndarray, " x"]) -> Float[np.ndarray, "x d"]:
        """Orthonormal directions in which x can move and nothing changes: U G, W G^-T for any G, and all scales."""
        together = np.zeros_like(x)
        together[-(len(self.A) // 2 if self.conjugate else len(self.A)) :] = 1
        directions = [together]
        if self.conjugate:
            U, W = self.matrices(x)
            for i, j in np.ndindex(U.shape[1], U.shape[1]):
                dU, dW = np.zeros_like(U), np.zeros_like(W)
                dU[:, j], dW[:, i] = U[:, i], -W[:, j]
                directions.append(np.concatenate([dU.ravel(), dW.ravel(), 0 * together[2 * U.size :]]))
        return np.linalg.qr(np.stack(directions, axis=1))[0]


def descend(objective: Objective, x: Float[np.ndarray, " x"], gamma: float) -> Float[np.ndarray, " x"]:
    """L-BFGS, begun anew until that gains nothing: one short step is enough to end it."""
    options = {"maxiter": 3000, "maxfun": 6000, "maxcor": 50, "ftol": 1e-11, "gtol": 1e-9}
    value = objective(x, gamma)[0]
    while True:
        result = scipy.optimize.minimize(objective, x, (gamma,), jac=True, method="L-BFGS-B", options=options)
        if not result.fun < value - 1e-8 * abs(value):
            return x
        x, value = result.x, result.fun


def search(
    objective: Objective, start: Float[np.ndarray, " x"], term: int, limit: float
) -> tuple[Float[np.ndarray, " x"], float | None]:
    """The minimum, and gamma, at which a term, KAPPA or SIZE, is just below its limit.

    Where no such gamma is met, as for a kappa of less than about 2, where many singular values are extreme and minima
    many, gamma is `None`, and x has the least other term of all that were met within the limit, or comes closest to it.
    """
    # kappa rises with gamma and the size falls. Both do so as powers, about gamma^0.4 and gamma^-0.6.
    direction = 1 if term == KAPPA else -1
    log_gamma = min(math.log(3 * limit * max(limit - 1, 1e-3) if term == KAPPA else 0.19 / limit**2), 8.0)
    sides: dict[bool, tuple[float, float]] = {}  # by whether it is within: log gamma, and the logarithm of term / limit

    def rank(x: Float[np.ndarray, " x"]) -> tuple[float, float]:
        """How far beyond the limit; of what is within, how large the other term."""
        values = objective.values(x)
        return max(values[term] / limit, 1.0), values[1 - term]

    x = best = start
    for _ in range(30):
        x = descend(objective, x, math.exp(log_gamma))
        values = objective.values(x)
        excess = math.log(values[term] / limit)
        if -SLACK <= excess <= 0:
            return x, math.exp(log_gamma)
        best = min(best, x, key=rank)
        sides[excess <= 0] = log_gamma, excess
        step = 0.0
        if len(sides) == 2:
            (inside, below), (outside, above) = sides[True], sides[False]
            step = inside + (outside - inside) * (below + SLACK / 2) / (below - above) - log_gamma
        if abs(step) < 1e-3:  # one side only, or two that contradict each other, since L-BFGS once ended early
            sides = {excess <= 0: (log_gamma, excess)}
            step = -direction * min(max(2.5 * (excess + SLACK / 2), -2.0), 2.0)
        log_gamma += step
        if abs(log_gamma) > 30:
            break
    return best, None


def polish(
    objective: Objective, x: Float[np.ndarray, " x"], gamma: float, term: int | None, limit: float
) -> Float[np.ndarray, " x"]:
    """Newton's method from nearby, to where the gradient is zero and the term that has a limit, if any, at it.

    In the latter case gamma is an unknown as well, the limit's multiplier. A Hessian, from differences of gradients,
    serves as long as steps shrink well. If they come to no end, x is returned as it was.
    """

    def equations(x: np.ndarray, gamma: float) -> np.ndarray | None:
        found = objective.terms(x)
        if found is None:
            return None
        values, slopes = found
        gradient = np.array([1.0, gamma, 1.0]) @ slopes
        return gradient if term is None else np.append(gradient, math.log(values[term] / limit))

    def factor(x: np.ndarray, gamma: float) -> tuple[np.ndarray, np.ndarray]:
        h = 1e-6
        rows = [(objective(x + h * e, gamma)[1] - objective(x - h * e, gamma)[1]) / (2 * h) for e in np.eye(len(x))]
        idle = objective.idle(x)
        H = (np.stack(rows) + np.stack(rows).T) / 2
        H += np.abs(np.diag(H)).max() * idle @ idle.T
        found = objective.terms(x)
        if term is not None and found is not None:
            values, slopes = found
            H = np.block([[H, slopes[SIZE][:, None]], [slopes[term][None, :] / values[term], np.zeros((1, 1))]])
        return scipy.linalg.lu_factor(H)

    z = np.append(x, gamma)
    for _ in range(8):
        residual = equations(z[:-1], z[-1])
        if residual is None:
            break
        lu = factor(z[:-1], z[-1])
        step = scipy.linalg.lu_solve(lu, residual)
        for _ in range(30):
            damping, ratio = 1.0, math.inf
            while ratio > 1 - damping / 4 and damping > 1e-3:
                candidate = z.copy()
                candidate[: len(step)] -= damping * step
                residual = equations(candidate[:-1], candidate[-1])
                if residual is not None:
                    next_step = scipy.linalg.lu_solve(lu, residual)
                    ratio = float(np.linalg.norm(next_step[: len(x)]) / np.linalg.norm(step[: len(x)]))
                damping /= 2
            if ratio >= 1:
                break
            z, step = candidate, next_step
            if ratio > 0.3:
                break
        if np.linalg.norm(step[: len(x)]) < 1e-9:
            return z[:-1]
    return x


def optimize(
    A: Float[np.ndarray, "n n"],
    starts: Sequence[Inexact[np.ndarray, "n n"]],
    *,
    conjugate: bool,
    max_real: float,
    term: int | None,
    limit: float,
) -> tuple[Modes, Inexact[np.ndarray, "n n"]]:
    """The best perturbation that is reached from some others, and the modes of A + it.

    Args:
      A: the state matrix.
      starts: where to begin, none of them zero; what follows the first is tried where that led to no optimum at the
        limit. Real ones, for `conjugate`, keep their rank; A + each is in the domain.
      conjugate, max_real: as for `Objective`.
      term: which term has a limit, kappa(V) (KAPPA) or ||E||_F / ||A||_2 (SIZE), the other being minimised; or `None`,
        which minimises kappa + gamma size.
      limit: of the term, or gamma.

    Raises:
      Unreachable: the limit is not met.
    """
    objective = Objective(A, conjugate, max_real)
    found: list[tuple[tuple[float, ...], np.ndarray, float | None]] = []
    for start in map(objective.vector, starts):
        if term is None:
            x, gamma = descend(objective, start, limit), limit
            found.append(((objective(x, gamma)[0],), x, gamma))
            continue
        x, multiplier = search(objective, start, term, limit)
        values = objective.values(x)
        found.append(((max(values[term] / limit, 1.0), values[1 - term]), x, multiplier))
        if multiplier is not None:
            break
    _, x, multiplier = min(found, key=lambda one: one[0])
    if multiplier is not None and conjugate and len(x) <= FEW:
        polished = polish(objective, x, multiplier, term, limit * (1 - 1e-9))
        if objective(polished, multiplier)[0] <= objective(x, multiplier)[0] * (1 + 1e-3):  # and no saddle
            x = polished
    modes = objective.modes(x)
    if modes is None:
        raise Unreachable("no perturbation was found with eigenvalues as they have to be")
    reached = None if term is None else objective.values(x)[term]
    if reached is not None and reached > limit * (1 + 1e-9):
        name = "kappa(V)" if term == KAPPA else "||E||_F / ||A||_2"
        raise Unreachable(f"no perturbation was found with {name} <= {limit:g}: the least reached is {reached:.6g}")
    return modes, objective.perturbation(x)


def starts(
    A: Float[np.ndarray, "n n"], name: str, value: float, max_real: float, rng: np.random.Generator
) -> list[Float[np.ndarray, "n n"]]:
    """What takes A to a normal matrix with conjugate modes, and before it a share that is within the bound, if any.

    Nothing, if A is that matrix.
    """
    unit = np.linalg.norm(A, 2)
    shift = np.linalg.eigvalsh((A + A.T) / 2)[-1]
    if shift >= max_real:
        shift = max_real - 0.01 * unit
    for more in (0.0, 0.01, 0.1):  # where the skew-symmetric part has too few frequencies
        K = rng.normal(size=A.shape)
        normal = (A - A.T) / 2 + shift * np.eye(len(A)) + more * unit / len(A) * (K - K.T)
        if eigenbasis(normal)[1]:
            break
    whole = normal - A
    size = float(np.linalg.norm(whole) / unit)
    if size < 1e-12:  # A is all that is asked of A + E
        return []
    shares = np.arange(0.05, 1.0, 0.05)
    for share in np.append(min(value / size, 1.0), shares) if name == "norm" else shares:
        (Lambda, V), paired = eigenbasis(A + share * whole)
        inside = name != "kappa" or condition_number(V) <= value
        if paired and Lambda.real.max() < max_real and inside:
            return [share * whole, whole]
    return [whole]


def random(
    A: Float[np.ndarray, "n n"], name: str, value: float, rng: np.random.Generator
) -> tuple[Modes, Float[np.ndarray, "n n"]]:
    """A scaled real Ginibre matrix E, and the modes of A + E.

    Raises:
      Unreachable: no size of it meets a bound on kappa(V).
    """
    G = rng.normal(size=A.shape)
    G *= np.linalg.norm(A, 2) / np.linalg.norm(G, 2)
    frobenius = float(np.linalg.norm(G) / np.linalg.norm(A, 2))  # ||E||_F / ||A||_2 at size 1
    sizes = np.array([value / frobenius]) if name == "norm" else np.geomspace(1e-6, 1, 61)
    kappas = np.array([condition_number(eigenbasis(A + size * G)[0][1]) for size in sizes])
    if name == "kappa" and kappas.min() > value:
        raise Unreachable(
            f"no random perturbation was found with kappa(V) <= {value:g}: the least reached is {kappas.min():.6g}"
        )
    best = np.argmax(kappas <= value) if name == "kappa" else np.argmin(kappas + value * frobenius * sizes)
    E = sizes[best] * G
    return eigenbasis(A + E)[0], E
