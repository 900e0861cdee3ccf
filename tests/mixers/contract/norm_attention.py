"""The contract's cases of norm_attention."""

import numpy as np
from attention_reference import Attention, float64, rotated

from contract import Case

CASES = {  # a layer norm of two features would hardly depend on them
    "norm_attention": Case({"heads": 2, "qkv_width": 6}, main=True),
    "norm_attention_two": Case({"heads": 1, "qkv_width": 4, "causal": False, "activation": "elu"}),
    "norm_attention_rms": Case({"heads": 1, "activation": "elu", "norm": "rms", "positions": "none"}),
}


def elu(x):
    return np.where(x.real > 0, x, np.exp(np.where(x.real > 0, 0, x)) - 1)


def normalize(p, z):
    if "norm_bias" in p:
        z = z - z.mean(-1, keepdims=True)
    z = z / np.sqrt((z**2).mean(-1, keepdims=True) + 1e-5) * p["norm_scale"]
    return z + p.get("norm_bias", 0)


class NormAttention(Attention):
    def run(self, x, missing):
        """One sequence (L, H), with L x L weights."""
        p, options, L = self.params, self.options, len(x)
        x, E = np.where(missing[:, None], 0, x), p["q_kernel"].shape[1]
        q, k, v = (
            (x @ p[f"{name}_kernel"] + p[f"{name}_bias"]).reshape(L, options.heads, E // options.heads)
            for name in "qkv"
        )
        q, k = (elu(z) + (1 if options.activation == "1+elu" else 0) for z in (q, k))
        if options.positions == "rotary":
            q, k = rotated(q), rotated(k)
        seen = np.tile(~missing, (L, 1))
        if options.causal:
            seen = np.tril(seen)
        mixed = np.einsum("hij,jhd->ihd", np.einsum("ihd,jhd->hij", q, k) * seen, v).reshape(L, E)
        return normalize(p, mixed) @ p["o_kernel"] + p["o_bias"]


def system(params, options):
    return NormAttention(float64(params), options)
