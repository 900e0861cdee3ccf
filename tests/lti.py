"""S4D and S4 as dense real systems in float64 NumPy, and what these do to a sequence.

States are vectors of the real parts of stored states, then of the imaginary parts, one feature after the other. Nothing
here conjugates or branches on signs, so that derivatives follow from an imaginary step.
"""

import dataclasses

import numpy as np
import scipy.linalg

from s5jax.mixers import s4, s4d


@dataclasses.dataclass(frozen=True)
class System:
    """x' = Delta (A x + B u), y = C x + D u, with a C for each direction."""

    A: np.ndarray
    B: np.ndarray
    C: list[np.ndarray]
    D: np.ndarray
    Delta: np.ndarray
    state_shape: tuple[int, ...]
    bilinear: bool
    skip: bool  # the backward direction starts at the next sample

    def discrete(self, rate=1.0):
        """Zero-order hold by the exponential of [[A, B], [0, 0]], or the bilinear rule by a linear solve."""
        A, B = (self.Delta[:, None] * rate * x for x in (self.A, self.B))
        n, identity = len(A), np.eye(len(A))
        if self.bilinear:
            solved = np.linalg.solve(identity - A / 2, np.c_[identity + A / 2, B])
        else:
            solved = exponential(np.r_[np.c_[A, B], np.zeros((B.shape[1], n + B.shape[1]))])[:n]
        return solved[:, :n], solved[:, n:]

    def run(self, u, rate=1.0, start=None, reset=None, mask=None):
        """One sequence (L, H), from a state (..., N, 2) or zero: outputs (L, H) and the state after it, likewise.

        rate: one, or (L,), the gap before each sample; reset, mask (L,): true where a sequence starts, where a sample
        is missing.
        """
        L = len(u)
        reset = np.zeros(L, bool) if reset is None else np.asarray(reset)
        u = u if mask is None else np.where(np.asarray(mask)[:, None], 0, u)
        constant = None if np.ndim(rate) else self.discrete(rate)
        x = np.zeros(len(self.A)) if start is None else np.swapaxes(start, -1, -2).ravel()
        y = []
        for k in range(L):
            A_bar, B_bar = constant or self.discrete(rate[k])
            x = A_bar @ (0 * x if reset[k] else x) + B_bar @ u[k]
            y.append(self.C[0] @ x + self.D * u[k])
        if len(self.C) == 2:
            after = np.zeros(len(self.A))
            for k in range(L)[::-1]:
                last = k == L - 1 or reset[k + 1]
                after = 0 * after if last else after
                A_bar, B_bar = constant or self.discrete(1.0 if last else rate[k + 1])
                at = A_bar @ after + B_bar @ u[k]
                y[k] = y[k] + self.C[1] @ (after if self.skip else at)
                after = at
        return np.reshape(y, u.shape), np.swapaxes(x.reshape(*self.state_shape[:-1], 2, -1), -1, -2)

    def transfer(self, s):
        G = np.diag(self.D).astype(complex)
        for sign, C in zip((1, -1), self.C, strict=False):
            G += C @ np.linalg.solve(sign * s * np.eye(len(self.A)) - self.A, self.B)
        return G


def exponential(M):
    """By the power series of M / 2^s, squared s times. (SciPy's waits for its threads where other processes run.)"""
    s = max(0, int(np.frexp(np.abs(M).sum(1).max())[1]) + 3)
    power = term = np.eye(len(M))
    for k in range(1, 15):
        term = term @ M / (2**s * k)
        power = power + term
    for _ in range(s):
        power = power @ power
    return power


def derivative(f, x, step=1e-30):
    """df/dx of a real analytic function of an array, or of a dict of them, exact: Im f(x + i step) / step."""
    if isinstance(x, dict):
        return {name: derivative(lambda v, n=name: f({**x, n: v}), value) for name, value in x.items()}
    x = np.asarray(x, np.float64)
    gradient = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        moved = x.astype(complex)
        moved[index] += 1j * step
        gradient[index] = f(moved).imag / step
    return gradient


def system(mixer, params, options) -> System:
    p = {n: np.asarray(v) * np.ones(1) for n, v in params.items()}  # float64, or complex for `derivative`
    return {s4d: _s4d, s4: _s4}[mixer](p, options)


def decay(raw, transform):
    return {
        "exp": lambda x: np.exp(x),
        "relu": lambda x: np.where(x.real > 0, x, 0) + 1e-4,
        "softplus": lambda x: np.log(1 + np.exp(x)),
        "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        "none": lambda x: x,
    }[transform](raw)


def diagonal(real, imag):
    """x' = (real + i imag) x."""
    return np.block([[np.diag(real), -np.diag(imag)], [np.diag(imag), np.diag(real)]])


def column(x):
    """Of stored pairs (..., 2): real parts, then imaginary parts."""
    return np.concatenate([x[..., 0], x[..., 1]], -1)


def row(x):
    """Such that row(C) column(x) = 2 Re sum C x."""
    return 2 * np.concatenate([x[..., 0], -x[..., 1]], -1)


def times(x, y):
    """The product of pairs (..., 2)."""
    return np.stack([x[..., 0] * y[..., 0] - x[..., 1] * y[..., 1], x[..., 0] * y[..., 1] + x[..., 1] * y[..., 0]], -1)


def _readouts(p):
    return [p[name] for name in ("C", "C1", "C2") if name in p]


def _side_by_side(A, B, C, p, bilinear, options):
    """One system a feature: A (H, 2N, 2N), B (H, 2N), C in each direction (H, 2N)."""
    H, N = len(A), len(B[0]) // 2
    return System(
        A=scipy.linalg.block_diag(*A),
        B=scipy.linalg.block_diag(*(b[:, None] for b in B)),
        C=[scipy.linalg.block_diag(*c) for c in C],
        D=p["D"],
        Delta=np.exp(np.tile(np.broadcast_to(p["log_step"], (H, N)), 2).ravel()),
        state_shape=(H, N),
        bilinear=bilinear,
        skip=options.backward_skips_current,
    )


def _s4d(p, options):
    """With a trained B and no band limit."""
    H, S = len(p["D"]), len(p["A_real"])
    real, imag = -decay(p["A_real"], options.real_transform), -p["A_imag"]
    A = [diagonal(real[h % S], imag[h % S]) for h in range(H)]
    B, C = [p["B"][h % S] for h in range(H)], [row(C) for C in _readouts(p)]
    if options.discretization == "dss":  # each mode over its sum in dss_length samples, arXiv 2203.14343, eq. 4
        for h in range(H):
            a = np.stack([real[h % S], imag[h % S]], -1)
            z = a * np.exp(p["log_step"][h])[..., None]
            turn = np.exp(z[:, :1]) * np.stack([np.cos(z[:, 1]), np.sin(z[:, 1])], -1)
            total = power = np.stack([np.ones(len(turn)), np.zeros(len(turn))], -1)
            for _ in range(1, options.dss_length):
                power = times(power, turn)
                total = total + power
            x = times(times(a, turn - [1, 0]), total)
            B[h] = times(times(B[h], a), x * [1, -1]) / ((x**2).sum(-1, keepdims=True) + 1e-7)
        C = [c / 2 for c in C]
    return _side_by_side(A, [column(b) for b in B], C, p, options.discretization == "bilinear", options)


def _s4(p, options):
    H, S = len(p["D"]), len(p["A_real"])
    real, imag, P = -decay(p["A_real"], options.real_transform), -p["A_imag"], column(p["P"])
    A = [diagonal(real[h % S], imag[h % S]) - 2 * P[:, h % S].T @ P[:, h % S] for h in range(H)]
    B = [column(p["B"][h % S]) for h in range(H)]
    return _side_by_side(A, B, [row(C) for C in _readouts(p)], p, True, options)
