"""The contract's cases of longvq: MEGA's reference with attention to the code nearest to each key, pair by pair."""

import jax
import numpy as np

from contract import Case
from contract.mega import Mega, distance_bias, moving_average, sigmoid, silu
from s5jax.mixers import longvq

SMALL = {"key_size": 4, "value_size": 3, "ema_size": 2, "chunk": 4, "codebook_size": 5}
CASES = {
    "longvq": Case(SMALL),
    "longvq_two": Case({**SMALL, "bidirectional": True, "positions": "rotary", "chunk": 3}),
}


class Quantised(Mega):
    def run(self, x, missing):
        if not len(x):
            return x
        options, p = self.options, self.params
        codes = np.float64(longvq.init_buffers(jax.random.key(1), 2, options)["codes"])
        x = np.where(missing[:, None], 0, x)
        (L, H), Z, E = x.shape, options.key_size, len(p["h_kernel"])
        a = silu(moving_average(x, p, options) + p["omega"] * x)
        v = silu(x @ p["v_kernel"] + p["v_bias"])
        u, z, r, h = np.split(a @ p["a_kernel"] + p["a_bias"], [H, H + Z, H + Z + E], axis=1)
        z = silu(z)
        q, k = (z * p["qk_gamma"][i] + p["qk_beta"][i] for i in range(2))
        k = k / np.sqrt((k**2).mean(-1, keepdims=True) + 1e-6)
        code = ((k.real[:, None] - codes) ** 2).sum(-1).argmin(1)
        moving = codes[code] + 1j * k.imag if np.iscomplexobj(k) else codes[code]
        o = np.zeros((L, E), np.result_type(q, k, v, p["qk_beta"], *p.values()))
        for i in range(L):
            seen = [j for j in range(L if options.bidirectional else i + 1) if not missing[j]]
            near = [abs(j - i) < options.chunk for j in seen]
            keys = [moving[j] if n else codes[code[j]] for j, n in zip(seen, near, strict=True)]
            bias = [distance_bias(p, j - i, options) if n else 0.0 for j, n in zip(seen, near, strict=True)]
            weights = np.exp([q[i] @ key / np.sqrt(Z) + b for key, b in zip(keys, bias, strict=True)])
            if seen:
                o[i] = weights / weights.sum() @ v[seen]
        y = silu(h + (o * silu(r)) @ p["h_kernel"] + p["h_bias"])
        return x + sigmoid(u) * (y - x)


def system(params, options) -> Quantised:
    return Quantised({n: np.asarray(v) * np.ones(1) for n, v in params.items()}, options)
