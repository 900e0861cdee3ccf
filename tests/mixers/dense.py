"""The linear mixers as dense real systems in float64 NumPy, run sequence by sequence and sample by sample.

Nothing here is taken from `s5jax`. States are vectors: real parts of the stored states, then imaginary parts, one
feature after the other where each has its own. No formula conjugates or branches on a sign, so that `derivative` is
exact: it takes the imaginary part after an imaginary step.

What time does (the rule of the published pendulum code): `rate` holds the gaps between samples, and the first one is
that before the first sample. Forwards a state crosses the gap before each sample; backwards the gaps are shifted, each
step crosses the gap to the sample after it, and the last one 1.
"""

import dataclasses
import itertools

import numpy as np
import scipy.linalg


@dataclasses.dataclass(frozen=True)
class System:
    """x' = Delta (A x + B u), y = C x + D u, with a C for each direction."""

    A: np.ndarray
    B: np.ndarray
    C: list[np.ndarray]
    D: np.ndarray
    Delta: np.ndarray
    state_shape: tuple[int, ...]
    rule: str = "zoh"  # "bilinear", or "power": A is a logarithm of A_bar, and B is B_bar at any rate
    skip: bool = False  # the backward direction starts at the next sample
    steps: dict = dataclasses.field(default_factory=dict)  # what `discrete` has computed

    def discrete(self, gap):
        """A_bar and B_bar for a gap: by the exponential of [[A, B], [0, 0]], or for the bilinear rule by a solve."""
        gap = np.asarray(gap)[()]
        if gap not in self.steps:
            A, B = (self.Delta[:, None] * gap * x for x in (self.A, self.B))
            n, identity = len(A), np.eye(len(A))
            if self.rule == "bilinear":
                solved = np.linalg.solve(identity - A / 2, np.c_[identity + A / 2, B])
            elif self.rule == "power":
                solved = np.c_[exponential(A), self.B]
            else:
                solved = exponential(np.r_[np.c_[A, B], np.zeros((B.shape[1], n + B.shape[1]))])[:n]
            self.steps[gap] = solved[:, :n], solved[:, n:]
        return self.steps[gap]

    def run(self, x, rate=1.0, start=None, reset=None, mask=None):
        """One sequence without padding.

        Args:
          x: inputs (L, H), NaN where they are missing or not.
          rate: one factor, or one for each step (L,).
          start: the state before the first sample (..., N, 2), default zero.
          reset: (L,), true where a new sequence starts: each is run by itself.
          mask: (L,), true where a sample is missing.

        Returns:
          Outputs (L, H), and the state after the last sample, like `start`.
        """
        u = x if mask is None else np.where(np.asarray(mask)[:, None], 0, x)
        state = np.zeros(len(self.A)) if start is None else np.swapaxes(start, -1, -2).ravel()
        resets = np.zeros(len(u), bool) if reset is None else reset
        bounds = [0, *np.flatnonzero(resets), len(u)]
        outputs = []
        for i, (first, end) in enumerate(itertools.pairwise(bounds)):
            if i:
                state = np.zeros(len(self.A))
            y, state = self._run_one(u[first:end], rate[first:end] if np.ndim(rate) else rate, state)
            outputs.append(y)
        return np.concatenate(outputs), np.swapaxes(state.reshape(*self.state_shape[:-1], 2, -1), -1, -2)

    def _run_one(self, u, rate, state):
        L = len(u)
        before, after = ([*rate], [*rate[1:], 1.0]) if np.ndim(rate) else ([rate] * L, [rate] * L)
        y = (self.D * u).astype(np.result_type(u, self.D, state))
        for k in range(L):
            A_bar, B_bar = self.discrete(before[k])
            state = A_bar @ state + B_bar @ u[k]
            y = _added(y, k, self.C[0] @ state)
        if len(self.C) == 2:
            back = np.zeros(len(self.A))
            for k in reversed(range(L)):
                if self.skip:
                    y = _added(y, k, self.C[1] @ back)
                A_bar, B_bar = self.discrete(after[k])
                back = A_bar @ back + B_bar @ u[k]
                if not self.skip:
                    y = _added(y, k, self.C[1] @ back)
        return y, state

    def run_batch(self, x, *, lengths=None, mask=None, reset=None, rate=None, state=None):
        """The valid part of each sequence of a batch (B, L, H), with arguments as `apply` takes them, but for states
        as pairs (B, ..., N, 2). Lists of outputs, and of states after them."""
        outputs, states = [], []
        for i, x_i in enumerate(x):
            n = len(x_i) if lengths is None else int(lengths[i])
            factor = 1.0 if rate is None else rate if np.ndim(rate) == 0 else rate[i]
            y, last = self.run(
                x_i[:n],
                factor[:n] if np.ndim(factor) else factor,
                None if state is None else state[i],
                None if reset is None else reset[i, :n],
                None if mask is None else mask[i, :n],
            )
            outputs.append(y)
            states.append(last)
        return outputs, states

    def kernel(self, L, rate=1.0):
        """The response to an impulse, without D: (directions, outputs, inputs, L)."""
        A_bar, B_bar = self.discrete(rate)
        columns = [B_bar]
        while len(columns) < L:
            columns.append(A_bar @ columns[-1])
        return np.stack([np.stack([C @ column for column in columns], -1) for C in self.C])

    def transfer(self, s):
        G = np.diag(self.D).astype(complex)
        for sign, C in zip((1, -1), self.C, strict=False):
            G += C @ np.linalg.solve(sign * s * np.eye(len(self.A)) - self.A, self.B)
        return G


def _added(y, k, value):
    """y with a value added at step k, complex if it is."""
    y = y.astype(np.result_type(y, value), copy=False)
    y[k] += value
    return y


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


def derivative_along(f, x, along, step=1e-30):
    """The derivative of f in one direction, a dict of arrays like x."""
    return f({name: np.asarray(v, np.float64) + 1j * step * along[name] for name, v in x.items()}).imag / step


def system(mixer, params, options) -> System:
    """The system of a mixer, a module or its name, in float64, or complex for `derivative`."""
    p = {n: np.asarray(v) * np.ones(1) for n, v in params.items()}
    return SYSTEMS[getattr(mixer, "__name__", mixer).rpartition(".")[2]](p, options)


def decay(raw, transform):
    return {
        "exp": lambda x: np.exp(x),
        "relu": lambda x: np.where(x.real > 0, x, 0) + 1e-4,
        "softplus": lambda x: np.log(1 + np.exp(x)),
        "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        "best": lambda x: 1 / (x**2 + 0.1),
        "none": lambda x: x,
    }[transform](raw)


def diagonal(real, imag):
    """x' = (real + i imag) x."""
    return np.block([[np.diag(real), -np.diag(imag)], [np.diag(imag), np.diag(real)]])


def column(x):
    """Stored pairs (..., 2): real parts, then imaginary parts."""
    return np.concatenate([x[..., 0], x[..., 1]], -1)


def row(x):
    """Such that row(C) column(x) = Re sum C x."""
    return np.concatenate([x[..., 0], -x[..., 1]], -1)


def times(x, y):
    """The product of pairs (..., 2)."""
    return np.stack([x[..., 0] * y[..., 0] - x[..., 1] * y[..., 1], x[..., 0] * y[..., 1] + x[..., 1] * y[..., 0]], -1)


def _readouts(p):
    return [p[name] for name in ("C", "C1", "C2") if name in p]


def _s5(p, options):
    real, Cs = p["Lambda_re"], _readouts(p)
    if options.clip_eigs:
        real = np.where(real.real < -1e-4, real, -1e-4)
    if len(Cs[0][0]) == 2 * len(real):  # both directions in one array
        Cs = np.split(Cs[0], 2, axis=1)
    return System(
        A=diagonal(real, p["Lambda_im"]),
        B=np.concatenate([p["B"][..., 0], p["B"][..., 1]]),
        C=[row(C) * (2 if options.conj_sym else 1) for C in Cs],
        D=p["D"],
        Delta=np.exp(np.tile(p["log_step"][:, 0], 2)),
        state_shape=real.shape,
        rule=options.discretization,
    )


def _side_by_side(A, B, C, p, rule, options):
    """One system a feature: A (H, 2N, 2N), B (H, 2N), C in each direction (H, 2N)."""
    H, N = len(A), len(B[0]) // 2
    log_step = np.tile(np.broadcast_to(p["log_step"], (H, N)), 2).ravel()
    return System(
        A=scipy.linalg.block_diag(*A),
        B=scipy.linalg.block_diag(*(b[:, None] for b in B)),
        C=[scipy.linalg.block_diag(*c) for c in C],
        D=p["D"],
        Delta=np.log(1 + np.exp(log_step)) if getattr(options, "dt_transform", "") == "softplus" else np.exp(log_step),
        state_shape=(H, N),
        rule=rule,
        skip=options.backward_skips_current,
    )


def _s4d(p, options):
    """With a trained B and no band limit."""
    H, S = len(p["D"]), len(p["A_real"])
    if options.modes == "real":
        pairs = {name: np.stack([x, 0 * x], -1) for name, x in p.items() if name in ("B", "C", "C1", "C2")}
        p = {**p, "A_imag": 0 * p["A_real"], **pairs}
    real, imag = -decay(p["A_real"], options.real_transform), -p["A_imag"]
    A = [diagonal(real[h % S], imag[h % S]) for h in range(H)]
    B, C = [p["B"][h % S] for h in range(H)], [row(C) * (1 if options.modes == "real" else 2) for C in _readouts(p)]
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
    rule = "bilinear" if options.discretization == "bilinear" else "zoh"
    return _side_by_side(A, [column(b) for b in B], C, p, rule, options)


def _s4(p, options):
    H, S = len(p["D"]), len(p["A_real"])
    real, imag, P = -decay(p["A_real"], options.real_transform), -p["A_imag"], column(p["P"])
    A = [diagonal(real[h % S], imag[h % S]) - 2 * P[:, h % S].T @ P[:, h % S] for h in range(H)]
    B = [column(p["B"][h % S]) for h in range(H)]
    return _side_by_side(A, B, [2 * row(C) for C in _readouts(p)], p, "bilinear", options)


def _lru(p, options):
    """A_bar = exp(-exp(nu_log) + i exp(theta_log)), B_bar = exp(gamma_log) B, arXiv 2303.06349, section 3."""
    gamma = np.exp(p["gamma_log"])[:, None]
    n = len(p["nu_log"])
    return System(
        A=diagonal(-np.exp(p["nu_log"]), np.exp(p["theta_log"])),
        B=np.concatenate([gamma * p["B_re"], gamma * p["B_im"]]),
        C=[np.concatenate([p[f"{C}_re"], -p[f"{C}_im"]], 1) for C in ("C", "C2") if f"{C}_re" in p],
        D=p["D"],
        Delta=np.ones(2 * n),
        state_shape=(n,),
        rule="power",
    )


SYSTEMS = {"s5": _s5, "s4d": _s4d, "s4": _s4, "lru": _lru}
