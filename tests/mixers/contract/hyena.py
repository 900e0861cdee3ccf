"""The contract's cases of hyena, lag by lag and sample by sample. Times and rates of decay are rounded to float32."""

import dataclasses

import numpy as np
from convolution import float64

from contract import Case

SMALL = {"filter_width": 4, "filter_layers": 1}
CASES = {
    "hyena": Case(SMALL, main=True),
    "hyena_three": Case({**SMALL, "order": 3, "embedding": 5, "short_filter": 2, "shift": 0.05, "frequency": 10.0}),
    "hyena_blocks": Case({**SMALL, "normalized": True, "blocks": 3}, causal={"blocks": 1}),
}


def filters(p, options):
    """h (W, H, convolutions)."""
    W, z = len(p["positions"]), p["positions"]
    for i in range(options.filter_layers + 1):
        z = np.sin(p["freq"] * (z @ p[f"filter_{i}_kernel"] + p[f"filter_{i}_bias"]))
    z = z @ p[f"filter_{options.filter_layers + 1}_kernel"]
    rates = np.log(100) / np.array([options.slow_decay, options.fast_decay])
    for channel in range(z.shape[1]):
        share = channel / max(1, z.shape[1] - 1)
        rate, time = (1 - share) * rates[0] + share * rates[1], np.arange(W) / max(1, W - 1)
        rate, time = (np.float64(np.float32(x)) for x in (rate, time))
        z[:, channel] *= np.exp(-rate * time) + options.shift
    if options.normalized:
        z = z / (z * np.sign(z.real)).sum(1, keepdims=True)
    return z.reshape(W, *p["D"].shape)


@dataclasses.dataclass(frozen=True)
class Hyena:
    p: dict
    h: np.ndarray
    blocks: int

    def run_batch(self, x, *, lengths=None, mask=None, reset=None, rate=None, state=None):
        """The valid part of each sequence: a list of outputs, and no states. There is no reset, rate or start."""
        assert reset is None and rate is None and state is None
        outputs = []
        for i, x_i in enumerate(x):
            n = len(x_i) if lengths is None else int(lengths[i])
            counts = np.ones(n, bool) if mask is None else ~mask[i, :n]
            outputs.append(self.run(np.where(counts[:, None], x_i[:n], 0), counts, len(x_i)))
        return outputs, [None] * len(x)

    def run(self, x, counts, padded):
        """One sequence without its padding, which is zero; `padded` steps are cut into blocks."""
        p, H = self.p, x.shape[1]
        u = np.where(counts[:, None], x @ p["in_kernel"] + p["in_bias"], 0)
        short = np.zeros(u.shape, np.result_type(u, *p.values())) + p["short_bias"]
        for lag in range(min(len(x), p["short_kernel"].shape[1])):
            short[lag:] += p["short_kernel"][:, lag] * u[: len(u) - lag]
        pieces = [short[:, j * H : (j + 1) * H] for j in range(short.shape[1] // H)]
        v, gates = pieces[-1], pieces[:-1]
        for i in range(self.h.shape[-1]):
            u = np.where(counts[:, None], v * gates[-1 - i], 0)
            v = p["D"][:, i] * u + self.convolved(u, self.h[:, :, i], padded)
        return v * gates[0] @ p["out_kernel"] + p["out_bias"]

    def convolved(self, u, h, padded):
        step, n = np.arange(len(u)), -(-padded // self.blocks)
        lag = step[:, None] - step
        lag = np.where((lag < 0) & (self.blocks > 1), lag + 2 * n, lag)
        seen = (step[:, None] // n == step // n) & (lag >= 0) & (lag < min(padded, 2 * n))
        matrix = np.where(seen[..., None], h[np.where(seen, lag, 0)], 0)
        return np.einsum("tsh,sh->th", matrix, u)


def system(params, options):
    p = float64(params)
    return Hyena(p, filters(p, options), options.blocks)
