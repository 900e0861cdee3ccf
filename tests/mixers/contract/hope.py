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
    matrices: dict = dataclasses.field(default_factory=dict)  # what `matrix` has computed

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
            factor = 1.0 if rate is None else rate if np.ndim(rate) == 0 else rate[i]
            outputs.append(self.run(u, factor)[:n])
        return outputs, [None] * len(x)

    def run(self, u, rate):
        (L, H), two, p = u.shape, self.options.bidirectional, self.params
        whole = np.concatenate([u, u[::-1]]) if two and self.options.mirror else u
        y = np.stack([M @ whole[:, i] for i, M in enumerate(self.matrix(len(whole), rate))], axis=1)
        if not two or self.options.readout == "linear":
            return y[:L] + p["D"] * u
        y = np.concatenate([y[:L] + p["D"][0] * u, y[L:][::-1] + p["D"][1] * u], axis=1)
        z = (y * (1 + scipy.special.erf(y / np.sqrt(2))) / 2) @ p["out_kernel"] + p["out_bias"]
        return z[:, :H] / (1 + np.exp(-z[:, H:]))

    def matrix(self, L, rate):
        """From inputs to outputs of each feature, without D (H, L, L)."""
        key = (L, complex(rate))
        if key not in self.matrices:
            Delta, h = self.Delta * rate, self.params["h"]
            copy, lag = np.arange(Delta.shape[1]), np.arange(L)[:, None] - np.arange(L)
            if self.options.bidirectional:
                K = circular(h[:, copy % h.shape[1]], Delta, L)
            else:
                K = np.r_[chain(h[copy % len(h)], Delta[0], L), np.zeros((L, len(copy)))]  # negative lags
            self.matrices[key] = [K[lag % len(K), i] for i in copy]
        return self.matrices[key]


def chain(h, Delta, L):
    """The impulse response (L, H), filter by filter and sample by sample."""
    a = (1 - Delta) / (1 + Delta)
    old, K = np.zeros((1 + h.shape[1], len(a)), np.result_type(h, a)), []
    for k in range(L):
        new = np.zeros_like(old)
        new[0] = k == 0
        for j in range(1, len(new)):
            new[j] = old[j - 1] - a * new[j - 1] + a * old[j]
        K.append((h.T * new[1:]).sum(0))
        old = new
    return np.stack(K)


def circular(h, Delta, L):
    """The response (L, H) of Re of the inverse transform of the product with (K_0, .., K_(M-1), K'_(M-1), .., K'_0)."""
    M, turn = L // 2, 2 * np.pi / L * (np.arange(L)[:, None] * np.arange(L) % L)
    m = np.arange(M)
    theta = np.full((M, *Delta.shape), np.pi, np.result_type(Delta, float))
    theta[2 * m != M] = 2 * np.arctan(np.tan(np.pi * m[2 * m != M] / M)[:, None, None] / Delta)
    real = imag = 0
    for j in range(1, h.shape[2] + 1):
        cos, sin = np.cos(j * theta), np.sin(j * theta)
        real = real + h[:, :, j - 1, 0] * cos + h[:, :, j - 1, 1] * sin
        imag = imag + h[:, :, j - 1, 1] * cos - h[:, :, j - 1, 0] * sin
    real, imag = (np.concatenate([part[:, 0], part[::-1, 1]]) for part in (real, imag))
    return (np.cos(turn) @ real - np.sin(turn) @ imag) / L


def system(params, options) -> Hope:
    return Hope({n: np.asarray(v) * np.ones(1) for n, v in params.items()}, options)
