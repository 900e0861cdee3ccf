"""The contract's cases of ponet."""

import numpy as np
from attention_reference import Attention, float64

from contract import Case

CASES = {
    "ponet": Case({"heads": 1, "segment_length": 6}, looks_ahead=True, main=True),
    "ponet_heads": Case({"heads": 2, "segment_length": 0}, looks_ahead=True),
}


def largest(rows):
    """The maximum of each feature over rows (n, H)."""
    return np.take_along_axis(rows, rows.real.argmax(0)[None], 0)[0]


class PoNet(Attention):
    def run(self, x, missing):
        """One sequence (L, H), step by step."""
        p, (L, H), D = self.params, x.shape, x.shape[1] // self.options.heads
        x = np.where(missing[:, None], 0, x)
        query, key, gate, segment, local = (
            x @ p[f"{name}_kernel"] + p[f"{name}_bias"] for name in ("query", "key", "gate", "segment", "local")
        )
        here, size = np.flatnonzero(~missing), self.options.segment_length or max(L, 1)
        z = np.zeros((L, H), np.result_type(x, *p.values()))
        if not len(here):
            return z @ p["out_kernel"] + p["out_bias"]
        pooled = np.zeros(H, z.dtype)
        for head in np.split(np.arange(H), H // D):
            logits = key[here][:, head] @ query[here][:, head].mean(0) / np.sqrt(D)
            weights = np.exp(logits - logits.real.max())
            pooled[head] = weights / weights.sum() @ key[here][:, head]
        for t in here:
            most = largest(segment[here[here // size == t // size]])
            z[t] = (pooled + most) * gate[t] + largest(local[here[abs(here - t) <= 1]])
        return z @ p["out_kernel"] + p["out_bias"]


def system(params, options):
    return PoNet(float64(params), options)
