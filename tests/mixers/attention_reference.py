"""Attention in float64 NumPy, sequence by sequence, like `dense` for the linear mixers."""

import dataclasses
import itertools

import numpy as np


@dataclasses.dataclass(frozen=True)
class Attention:
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
        """One sequence (L, H): all queries at once, L x L weights."""
        p, options = self.params, self.options
        L = len(x)
        heads, E = options.heads, p["q_kernel"].shape[1]
        if L == 0:
            return x
        x = np.where(missing[:, None], 0, x)
        placed = x + p["positions"][:L] if options.positions == "learned" else x
        q, k, v = (
            (u @ p[f"{name}_kernel"] + p.get(f"{name}_bias", 0)).reshape(L, heads, E // heads)
            for name, u in (("q", placed), ("k", placed), ("v", x))
        )
        if options.positions == "rotary":
            q, k = rotated(q), rotated(k)
        i = np.arange(L)
        seen = np.tile(~missing, (L, 1))
        if options.causal:
            seen &= i <= i[:, None]
        if options.window:
            seen &= np.abs(i - i[:, None]) < options.window
        logits = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(E // heads)
        weights = np.exp(logits - logits.real.max(-1, keepdims=True)) * seen
        total = weights.sum(-1)
        weights = weights / np.where(seen.any(-1), total, 1)[..., None]
        mixed = np.einsum("hij,jhd->ihd", weights, v)
        return mixed.reshape(L, E) @ p["o_kernel"] + p.get("o_bias", 0)


def rotated(x):
    """Features d and d + D/2 of each head, by the angle k 10000^(-2d/D) at step k; an odd D counts as D - 1."""
    L, _, D = x.shape
    E = D // 2 * 2
    a, b, rest = x[..., : E // 2], x[..., E // 2 : E], x[..., E:]
    angle = np.arange(L)[:, None, None] * 10000.0 ** (-2 * np.arange(E // 2) / max(E, 1))
    return np.concatenate([a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle), rest], -1)


def float64(params):
    """Parameters in float64, or complex for `dense.derivative`."""
    return {name: np.asarray(value) * np.ones(1) for name, value in params.items()}


def system(params, options) -> Attention:
    return Attention(float64(params), options)
