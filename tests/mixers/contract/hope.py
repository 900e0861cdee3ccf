"""The contract's cases of hope, and the reference: the chain of filters sample by sample, or the published sum over all
bins of a transform."""

import dataclasses

import numpy as np
import scipy.special

from contract import Case

CASES = {
    "hope": Case(),
    "hope_one_h": Case({"n_ssm": 1, "dt_min": 0.1, "dt_max": 10.0, "dt_transform": "softplus", "state_size": 5}),
    "hope_two": Case({"bidirectional": True}),
    "hope_two_glu": Case({"bidirectional": True, "readout": "glu", "n_ssm": 1, "dt_per_direction": True}),
}


@dataclasses.dataclass(frozen=True)
class Hope:
    params: dict
    options: object

    @property
    def Delta(self):
        """(2, H), the same twice unless the directions have their own."""
        raw = self.params["log_step"][..., 0]
        steps = np.exp(raw) if self.options.dt_transform == "exp" else np.log(1 + np.exp(raw))
        return np.broadcast_to(steps, (2, raw.shape[-1]))

    def run_batch(self, x, *, lengths=None, mask=None, reset=None, rate=None, state=None):
        """The valid part of each sequence: a list of outputs, and no states. In two directions padding is zeros."""
        assert reset is None and state is None
        outputs = []
        for i, x_i in enumerate(x):
            n = len(x_i) if lengths is None else int(lengths[i])
            hidden = np.arange(len(x_i)) >= n
            hidden = hidden if mask is None else hidden | mask[i]
            u = np.where(hidden[:, None], 0, x_i)
            Delta = self.Delta * (1.0 if rate is None else rate if np.ndim(rate) == 0 else rate[i])
            y = self.two_directions(u, Delta) if self.options.bidirectional else self.causal(u[:n], Delta[0])
            outputs.append(y[:n])
        return outputs, [None] * len(x)

    def causal(self, u, Delta):
        a, H = (1 - Delta) / (1 + Delta), u.shape[1]
        h = self.params["h"][np.arange(H) % len(self.params["h"])]
        dtype = np.result_type(u, h, a)
        old, y = np.zeros((1 + h.shape[1], H), dtype), (self.params["D"] * u).astype(dtype)
        for k in range(len(u)):
            new = np.zeros_like(old)
            new[0] = u[k]
            for j in range(1, len(new)):
                new[j] = old[j - 1] - a * new[j - 1] + a * old[j]
            y[k] += (h.T * new[1:]).sum(0)
            old = new
        return y

    def two_directions(self, u, Delta):
        L, H = u.shape
        h = self.params["h"][:, np.arange(H) % self.params["h"].shape[1]]
        whole = np.concatenate([u, u[::-1]]) if self.options.mirror else u
        y, D = circular(whole, h, Delta), self.params["D"]
        if self.options.readout == "linear":
            return y[:L] + D * u
        y = np.concatenate([y[:L] + D[0] * u, y[L:][::-1] + D[1] * u], axis=1)
        g = y * (1 + scipy.special.erf(y / np.sqrt(2))) / 2
        z = g @ self.params["out_kernel"] + self.params["out_bias"]
        return z[:, :H] / (1 + np.exp(-z[:, H:]))


def circular(u, h, Delta):
    """Re of the inverse transform of the transform of u times (K_0, .., K_(M-1), K'_(M-1), .., K'_0), as real sums."""
    N, M = len(u), len(u) // 2
    m = np.arange(M)
    theta = np.full((M, *Delta.shape), np.pi, np.result_type(Delta, float))
    theta[2 * m != M] = 2 * np.arctan(np.tan(np.pi * m[2 * m != M] / M)[:, None, None] / Delta)
    real = imag = 0
    for j in range(1, h.shape[2] + 1):
        cos, sin = np.cos(j * theta), np.sin(j * theta)
        real = real + h[:, :, j - 1, 0] * cos + h[:, :, j - 1, 1] * sin
        imag = imag + h[:, :, j - 1, 1] * cos - h[:, :, j - 1, 0] * sin
    real, imag = (np.concatenate([part[:, 0], part[::-1, 1]]) for part in (real, imag))
    turn = 2 * np.pi / N * (np.arange(N)[:, None] * np.arange(N) % N)
    response = (np.cos(turn) @ real - np.sin(turn) @ imag) / N
    lag = (np.arange(N)[:, None] - np.arange(N)) % N
    return np.stack([response[lag, i] @ u[:, i] for i in range(u.shape[1])], axis=1)


def system(params, options) -> Hope:
    return Hope({n: np.asarray(v) * np.ones(1) for n, v in params.items()}, options)
