"""The contract's cases of b2s6, and the reference sample by sample."""

import numpy as np
from selective_reference import Selective, arrays, softplus

from contract import Case

CASES = {
    "b2s6": Case({"state_size": 4, "blocks": 1}, main=True),
    "b2s6_blocks": Case({"state_size": 6, "blocks": 2}),
}


def system(params, options):
    p = arrays(params)
    P = len(p["D"]) // options.blocks

    def run(x, missing, rate):
        L, H = x.shape
        blocks = [slice(j * P, (j + 1) * P) for j in range(options.blocks)]
        y = np.zeros((L, H), np.result_type(x, rate, *p.values()))
        for i in range(H):
            j = i // P
            u, re, im = x[:, blocks[j]], 0, 0
            dt = softplus(u @ p["dt_kernel"][j] + p["dt_bias"][i]) * rate
            for k in range(L):
                size, turn = np.exp(-dt[k] * np.exp(p["A_real"])), dt[k] * p["A_imag"]
                B = np.einsum("p,pnc->nc", u[k], p["B_kernel"][j]) + p["B_bias"][i]
                old = re, im
                re = size * (np.cos(turn) * old[0] - np.sin(turn) * old[1]) + dt[k] * x[k, i] * B[:, 0]
                im = size * (np.cos(turn) * old[1] + np.sin(turn) * old[0]) + dt[k] * x[k, i] * B[:, 1]
                term = 2 * ((u[k] @ p["C_kernel"][j]) * re).sum() + p["D"][i] * x[k, i]
                y[k, i] = term
        return y

    return Selective(run)
