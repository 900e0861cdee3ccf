"""The contract's cases of mega, and its block sample by sample and pair by pair."""

import dataclasses
import itertools

import numpy as np
from scipy.special import erf

from contract import Case

SMALL = {"key_size": 4, "value_size": 3, "ema_size": 2}
CASES = {
    "mega": Case({**SMALL, "chunk": 4}, main=True),
    "mega_whole": Case({**SMALL, "positions": "rotary", "attention": "laplace"}),
    "mega_truncated": Case({**SMALL, "chunk": 5, "attention": "relu2", "truncation": 6}),
    "mega_two": Case({**SMALL, "bidirectional": True, "chunk": 4, "attention": "laplace"}),
    "mega_two_whole": Case({**SMALL, "bidirectional": True, "truncation": 3, "max_positions": 600}),
}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def laplace(s):
    """With the derivative along an imaginary step."""
    z = (s - 0.707107) / (0.282095 * np.sqrt(2))
    y = (1 + erf(z.real)) / 2
    return y + 1j * z.imag * np.exp(-(z.real**2)) / np.sqrt(np.pi) if np.iscomplexobj(z) else y


def relu2(s):
    return np.where(s.real > 0, s, 0) ** 2


def distance_bias(p, d, options):
    """b(d), with a rotation of both vectors for rotary positions."""
    if options.positions == "simple":
        return p["bias"][len(p["bias"]) // 2 + d]
    Z = options.key_size
    angle = d * 10000.0 ** (-np.arange(Z // 2) / (Z // 2))
    a, (b, c) = p["bias_a"], np.split(p["bias_b"], 2)
    turned = np.concatenate([b * np.cos(angle) - c * np.sin(angle), c * np.cos(angle) + b * np.sin(angle)])
    return a @ turned


def attention(q, k, v, p, options, missing):
    """One sequence (L, Z) and (L, E), query by query."""
    L, C = len(q), options.chunk or len(q)
    out = []
    for i in range(L):
        first = i // C * C
        last = min(first + C, L) if options.bidirectional else i + 1
        seen = [j for j in range(first, last) if not missing[j]]
        products = np.array([q[i] @ k[j] for j in seen])
        bias = np.array([distance_bias(p, j - i, options) for j in seen])
        if options.attention == "softmax":
            weights = np.exp(products / np.sqrt(options.key_size) + bias)
            weights = weights / (weights.sum() if seen else 1)
        else:
            f = {"laplace": laplace, "relu2": relu2}[options.attention]
            weights = f(products / max(1, len(seen)) + bias)
        out.append(sum((w * v[j] for w, j in zip(weights, seen, strict=True)), np.zeros_like(v[0])))
    return np.array(out)


def moving_average(x, p, options):
    """One sequence (L, H), before omega and silu: the sum over the kernel of each direction."""
    L, H = x.shape
    rate = sigmoid(p["delta"])
    q, weight = 1 - rate * sigmoid(p["alpha"]), rate * p["beta"] * p["gamma"] / np.sqrt(options.ema_size)
    y = np.zeros(x.shape, np.result_type(x, weight, q))
    for lag in range(min(L, options.truncation or L)):
        K = (weight * q**lag).sum(1)
        y[lag:] += K[:H] * x[: L - lag]
        if options.bidirectional:
            y[: L - lag] += K[H:] * x[lag:]
    return y


def gated(x, a, p, options, missing):
    """y of one sequence (L, H) from the average a; the residual is x."""
    H, Z, E = x.shape[1], options.key_size, len(p["h_kernel"])
    v = silu(x @ p["v_kernel"] + p["v_bias"])
    u, z, r, h = np.split(a @ p["a_kernel"] + p["a_bias"], [H, H + Z, H + Z + E], axis=1)
    z = silu(z)
    q, k = (z * p["qk_gamma"][i] + p["qk_beta"][i] for i in range(2))
    o = attention(q, k, v, p, options, missing) * silu(r)
    return x + sigmoid(u) * (silu(h + o @ p["h_kernel"] + p["h_bias"]) - x)


@dataclasses.dataclass(frozen=True)
class Mega:
    params: dict
    options: object

    def run_batch(self, x, *, lengths=None, mask=None, reset=None, rate=None, state=None):
        """The valid part of each sequence: a list of outputs, and no states. There is no rate and no start."""
        assert rate is None and state is None
        n = [len(x_i) for x_i in x] if lengths is None else [int(length) for length in lengths]
        none = np.zeros(x.shape[:2], bool)
        mask, reset = (none if flags is None else flags for flags in (mask, reset))
        outputs = []
        for i, x_i in enumerate(x):
            bounds = [0, *np.flatnonzero(reset[i, : n[i]]), n[i]]
            spans = [slice(*span) for span in itertools.pairwise(bounds)]
            outputs.append(np.concatenate([self.run(x_i[span], mask[i, span]) for span in spans]))
        return outputs, [None] * len(x)

    def run(self, x, missing):
        if not len(x):
            return x
        x = np.where(missing[:, None], 0, x)
        a = silu(self.average(x) + self.params["omega"] * x)
        return gated(x, a, self.params, self.options, missing)

    def average(self, x):
        return moving_average(x, self.params, self.options)


def system(params, options) -> Mega:
    return Mega({n: np.asarray(v) * np.ones(1) for n, v in params.items()}, options)
