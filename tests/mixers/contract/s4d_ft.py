"""The contract's cases of s4d_ft."""

import dataclasses
import functools

import dense
import numpy as np

from contract import Case

CASES = {
    "s4d_ft": Case({"freq_bias_length": 503}, looks_ahead=True),
    "s4d_ft_two": Case({"freq_bias_length": 503, "bidirectional": True, "dt_transform": "softplus"}, looks_ahead=True),
}


def system(params, options):
    p = {n: np.asarray(v) * np.ones(1) for n, v in params.items()}
    s = p.pop("s")
    return Biased(dense.system("s4d", p, options), s, options.freq_bias_length)


@functools.cache
def circular(M):
    """The inverse Fourier transform of an even spectrum of 2 M points, and the lags of a convolution on the circle."""
    turns = np.arange(2 * M)
    waves = np.cos(np.pi / M * (np.outer(turns, turns) % (2 * M))) / (2 * M)
    return waves, (turns[:, None] - turns[None]) % (2 * M)


@dataclasses.dataclass(frozen=True)
class Biased:
    """S4D's kernel of M lags, convolved on a circle of 2 M points with the response of the factor."""

    system: dense.System
    s: np.ndarray
    M: int
    found: dict = dataclasses.field(default_factory=dict)  # what `responses` has computed

    def responses(self, rate):
        """For each feature the response at lags 0..M-1 and -M..-1."""
        if rate not in self.found:
            M, kernels = self.M, self.system.kernel(self.M, rate)
            waves, circle = circular(M)
            frequency = np.minimum(np.arange(2 * M), 2 * M - np.arange(2 * M)) / (2 * M) / rate
            self.found[rate] = []
            for h, s in enumerate(self.s):
                behind = kernels[1, h, h, ::-1] if len(kernels) == 2 else np.zeros(M)
                factor = waves @ np.exp(s * np.log(1 + frequency))
                self.found[rate].append(factor[circle] @ np.concatenate([kernels[0, h, h], behind]))
        return self.found[rate]

    def run_batch(self, x, *, lengths=None, mask=None, rate=None, state=None):
        assert state is None
        outputs = []
        for i, x_i in enumerate(x):
            u = x_i if mask is None else np.where(mask[i][:, None], 0, x_i)
            u = u[: len(u) if lengths is None else int(lengths[i])]
            K = self.responses(1.0 if rate is None else rate[()] if np.ndim(rate) == 0 else rate[i])
            steps = np.arange(len(u))
            y = [K_h[steps[:, None] - steps[None]] @ u_h for K_h, u_h in zip(K, u.T, strict=True)]
            outputs.append(np.stack(y, -1) + self.system.D * u)
        return outputs, [None] * len(x)
