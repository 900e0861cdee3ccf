"""The contract's cases of diag_attention."""

import numpy as np
from attention_reference import Attention, float64, rotated

from contract import Case
from contract.norm_attention import normalize

CAUSAL = {"published_softmax": False, "causal": True}
RELU = {"weights": "relu", "qkv_width": 6}
CASES = {
    "diag_attention": Case({"heads": 1, "block": 7}, main=True),
    "diag_attention_two": Case({"heads": 2, "qkv_width": 4, "block": 6, "causal": False}),
    "diag_attention_relu": Case({**RELU, "heads": 2, "block": 7}),
    "diag_attention_relu_two": Case({**RELU, "heads": 1, "block": 5, "causal": False, "positions": "none"}),
    "diag_attention_published": Case(
        {"heads": 1, "block": 7, "published_softmax": True, "causal": True}, causal=CAUSAL
    ),
    "diag_attention_published_two": Case(
        {"heads": 1, "block": 100, "published_softmax": True, "causal": False}, causal=CAUSAL
    ),
}


class DiagAttention(Attention):
    def run_batch(self, x, *, lengths=None, mask=None, reset=None, rate=None, state=None):
        if not self.options.published_softmax:
            return super().run_batch(x, lengths=lengths, mask=mask, reset=reset, rate=rate, state=state)
        n = [len(x_i) for x_i in x] if lengths is None else [int(length) for length in lengths]
        absent = np.arange(x.shape[1]) >= np.array(n)[:, None]
        x = np.where((absent if mask is None else absent | mask)[..., None], 0, x)
        none = np.zeros(x.shape[1], bool)
        return [self.run(x_i, none)[:n_i] for x_i, n_i in zip(x, n, strict=True)], [None] * len(x)

    def run(self, x, missing):
        """One sequence (L, H), block by block."""
        p, W = self.params, self.options.block
        x = np.where(missing[:, None], 0, x)
        z = np.zeros((0, p["q_kernel"].shape[1]))
        parts = [self.block(x[i : i + W], missing[i : i + W]) for i in range(0, len(x), W)]
        z = np.concatenate([z, *parts])
        z = normalize(p, z) if "norm_scale" in p else z
        return z @ p["o_kernel"] + p["o_bias"]

    def block(self, x, missing):
        p, options, n = self.params, self.options, len(x)
        E = p["q_kernel"].shape[1]
        q, k, v = (
            (x @ p[f"{name}_kernel"] + p[f"{name}_bias"]).reshape(n, options.heads, E // options.heads)
            for name in "qkv"
        )
        if options.positions == "rotary":
            q, k = rotated(q), rotated(k)
        logits = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(E // options.heads)
        seen = np.tile(~missing, (n, 1))
        if options.causal:
            seen = np.tril(seen)
        if options.weights == "relu":
            weights = np.where(logits.real > 0, logits, 0) * seen
        else:
            weights = np.exp(logits - logits.real.max(-1, keepdims=True))
            if options.published_softmax:
                zeros = (options.block - n) * np.exp(-logits.real.max(-1))
                weights = weights / (weights.sum(-1) + zeros)[..., None] * seen
            else:
                weights = weights * seen
                weights = weights / np.where(seen.any(-1), weights.sum(-1), 1)[..., None]
        return np.einsum("hij,jhd->ihd", weights, v).reshape(n, E)


def system(params, options):
    return DiagAttention(float64(params), options)
