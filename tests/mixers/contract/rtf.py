"""The contract's cases of rtf, and RTF in float64 NumPy: a loop over the states of companion matrices."""

import dataclasses

import numpy as np

from contract import Case

CASES = {
    "rtf": Case({"init": "montel", "trunc_len": 600}),
    "rtf_short": Case({"init": "montel", "trunc_len": 13, "num_a": 1}),  # odd; aliases; sequences are longer
    "rtf_exact": Case({"init": "montel", "numerator": "exact"}),
    "rtf_l1": Case({"init": "xavier", "constraint": "l1_montel", "trunc_len": 64}),
    "rtf_two": Case({"init": "xavier", "constraint": "l1_montel", "trunc_len": 20, "num_a": 1, "bidirectional": True}),
}


@dataclasses.dataclass(frozen=True)
class Companion:
    """x_{k+1} = A x_k + e_1 u_k, y_k = C x_k + d u_k, for each direction and feature."""

    A: np.ndarray
    C: np.ndarray
    d: np.ndarray

    def run(self, u, direction=0, start=None):
        """One sequence (L, H): outputs, and the last state (H, N), the newest number first."""
        A, C, d = self.A[direction], self.C[direction], self.d[direction]
        state = np.zeros(C.shape) if start is None else start
        y = np.zeros(u.shape, np.result_type(u, A, C, d, state))
        for k, u_k in enumerate(u):
            y[k] = np.einsum("hn,hn->h", C, state) + d * u_k
            state = np.einsum("hnm,hm->hn", A, state) + np.eye(1, C.shape[1]) * u_k[:, None]
        return y, state

    def run_batch(self, x, *, lengths=None, mask=None, reset=None, rate=None, state=None):
        """The valid part of each sequence: a list of outputs, and no states."""
        assert reset is None and rate is None and state is None
        x = x if mask is None else np.where(mask[..., None], 0, x)
        outputs = []
        for i, u in enumerate(x):
            u = u[: len(u) if lengths is None else int(lengths[i])]
            y = self.run(u)[0]
            if len(self.A) == 2:  # the kernel starts at the next sample
                after = self.run(u[::-1], 1)[0][::-1]
                y = y + np.concatenate([after[1:], 0 * after[:1]])
            outputs.append(y)
        return outputs, [None] * len(x)


def system(params, options) -> Companion:
    """Numerators are corrected by a solve with I - A^M, as published, not through a kernel."""
    ab, h_0 = (np.asarray(params[name]) * np.ones(1) for name in ("ab", "h_0"))
    directions, N = 1 + options.bidirectional, ab.shape[1]
    H = len(h_0) // directions
    a, b = ab[: len(ab) - len(h_0)], ab[len(ab) - len(h_0) :]
    if options.constraint == "l1_montel":
        s = params["scalar"] * np.ones(1)
        a = a / ((a * np.sign(a.real)).sum(1) + s * np.sign(s.real) + 1e-6)[:, None]
    M, A, C, d = options.trunc_len + options.trunc_len % 2, [], [], []
    for row in range(directions * H):
        matrix = np.eye(N, k=-1).astype(a.dtype)
        matrix[0] = -a[row // (directions * H // len(a))]
        A.append(matrix)
        if options.numerator == "exact":
            C.append(b[row] @ matrix)
            d.append(h_0[row] + b[row, 0])
        else:
            power = np.linalg.matrix_power(matrix, M - 1)
            C.append(np.linalg.solve((np.eye(N) - power @ matrix).T, b[row]))
            d.append(h_0[row] + C[-1] @ power[:, 0])
    shape = (directions, H)
    return Companion(np.reshape(A, (*shape, N, N)), np.reshape(C, (*shape, N)), np.reshape(d, shape))
