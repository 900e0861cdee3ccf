"""The contract's cases of linear_attention."""

import numpy as np
from attention_reference import Attention, float64

from contract import Case

CASES = {
    "linear_attention": Case({"heads": 1}, main=True),
    "linear_attention_two": Case({"heads": 2, "causal": False, "qkv_width": 4, "bias": False}),
}


def feature_map(x):
    return np.where(x.real > 0, x + 1, np.exp(np.where(x.real > 0, 0, x)))


class Linear(Attention):
    def run(self, x, missing):
        """One sequence (L, H), with L x L weights."""
        p, L, heads = self.params, len(x), self.options.heads
        x = np.where(missing[:, None], 0, x)
        q, k, v = (
            (x @ p[f"{name}_kernel"] + p.get(f"{name}_bias", 0)).reshape(L, heads, p["q_kernel"].shape[1] // heads)
            for name in "qkv"
        )
        seen = np.tile(~missing, (L, 1))
        if self.options.causal:
            seen = np.tril(seen)
        weights = np.einsum("ihd,jhd->hij", feature_map(q), feature_map(k)) * seen
        weights = weights / (weights.sum(-1, keepdims=True) + 1e-6)
        mixed = np.einsum("hij,jhd->ihd", weights, v).reshape(L, p["o_kernel"].shape[0])
        return mixed @ p["o_kernel"] + p.get("o_bias", 0)


def system(params, options):
    return Linear(float64(params), options)
