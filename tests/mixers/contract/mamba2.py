"""The contract's cases of mamba2, and the reference sample by sample."""

import numpy as np
from selective_reference import Selective, arrays, convolve, silu, softplus

from contract import Case

CASES = {
    "mamba2": Case({"state_size": 4, "head_dim": 2, "block": 8}, main=True),
    "mamba2_groups": Case({"state_size": 3, "head_dim": 1, "groups": 2, "conv_size": 2, "block": 5}),
}


def system(params, options):
    p, N, G, P = arrays(params), options.state_size, options.groups, options.head_dim
    E, F, S = len(p["norm_scale"]), len(p["conv_bias"]), len(p["D"])

    def run(x, missing, rate):
        L, hidden = len(x), missing[:, None]
        z, u, r = np.split(x @ p["in_proj_kernel"], [E, E + F], axis=-1)
        u = np.where(hidden, 0, u)
        u = np.where(hidden, 0, silu(convolve(p["conv_kernel"], u) + p["conv_bias"]))
        v, B, C = np.split(u, [E, E + G * N], axis=-1)
        v, B, C = v.reshape(L, S, P), B.reshape(L, G, N), C.reshape(L, G, N)
        dt = softplus(r + p["dt_bias"]) * rate[:, None]
        h, y = np.zeros((S, P, N)), []
        for k in range(L):
            new = []
            for s in range(S):
                g = s // (S // G)
                a = np.exp(-np.exp(p["A_log"][s]) * dt[k, s])
                new.append(a * h[s] + dt[k, s] * v[k, s][:, None] * B[k, g])
                y.append(new[-1] @ C[k, g] + p["D"][s] * v[k, s])
            h = np.stack(new)
        w = np.stack(y).reshape(L, E) * silu(z)
        w = w / np.sqrt((w**2).mean(-1, keepdims=True) + 1e-5) * p["norm_scale"]
        return w @ p["out_proj_kernel"]

    return Selective(run)
