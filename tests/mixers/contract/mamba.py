"""The contract's cases of mamba, and the reference sample by sample."""

import numpy as np
from selective_reference import Selective, arrays, convolve, silu, softplus

from contract import Case

CASES = {
    "mamba": Case({"state_size": 4}, main=True),
    "mamba_bias": Case({"state_size": 3, "conv_size": 3, "expansion": 3, "dt_rank": 2, "bias": True}),
    "mamba_associative": Case({"state_size": 2, "conv_size": 1, "scan_method": "associative"}),
}


def system(params, options):
    p, N = arrays(params), options.state_size
    R = len(p["dt_proj_kernel"])

    def run(x, missing, rate):
        hidden = missing[:, None]
        u, z = np.split(x @ p["in_proj_kernel"] + p.get("in_proj_bias", 0), 2, axis=-1)
        u = np.where(hidden, 0, u)
        v = np.where(hidden, 0, silu(convolve(p["conv_kernel"], u) + p["conv_bias"]))
        r, B, C = np.split(v @ p["x_proj_kernel"], [R, R + N], axis=-1)
        dt = softplus(r @ p["dt_proj_kernel"] + p["dt_proj_bias"]) * rate[:, None]
        h, y = np.zeros(p["A_log"].shape), []
        for k in range(len(x)):
            a = np.exp(-np.exp(p["A_log"]) * dt[k][:, None])
            h = a * h + (dt[k] * v[k])[:, None] * B[k]
            y.append((h * C[k]).sum(-1) + p["D"] * v[k])
        return (np.stack(y) * silu(z)) @ p["out_proj_kernel"] + p.get("out_proj_bias", 0)

    return Selective(run)
