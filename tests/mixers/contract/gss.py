"""The contract's cases of gss."""

import dataclasses

import dense
import numpy as np
from scipy.special import erf

from contract import Case

SMALL = {"state_size": 4, "features": 3, "expansion": 2}
CASES = {
    "gss": Case(SMALL, main=True),
    "gss_two": Case({**SMALL, "bidirectional": True, "imag_transform": "none"}),
}


def gelu(x):
    """With the derivative along an imaginary step."""
    real = x.real
    cumulative = (1 + erf(real / np.sqrt(2))) / 2
    y = real * cumulative
    if np.iscomplexobj(x):
        y = y + 1j * x.imag * (cumulative + real * np.exp(-(real**2) / 2) / np.sqrt(2 * np.pi))
    return y


@dataclasses.dataclass(frozen=True)
class Gated:
    params: dict
    dss: dense.System

    def run_batch(self, x, *, lengths=None, mask=None, reset=None, rate=None, state=None):
        """Like `dense.System.run_batch`, but from zero and without states."""
        assert state is None
        p = self.params
        missing = np.zeros(x.shape[:2], bool) if mask is None else mask
        x = np.where(missing[..., None], 0, x)
        u, v = gelu(x @ p["u_kernel"]), gelu(x @ p["v_kernel"])
        v = v - v.mean(-1, keepdims=True)
        v = v / np.sqrt((v**2).mean(-1, keepdims=True) + 1e-5) * p["norm_scale"] + p["norm_bias"]
        ys, _ = self.dss.run_batch(v, lengths=lengths, mask=mask, reset=reset, rate=rate)
        outputs = []
        for y, u_i in zip(ys, u, strict=True):
            outputs.append(((y @ p["gate_kernel"]) * u_i[: len(y)]) @ p["out_kernel"] + p["out_bias"])
        return outputs, [None] * len(x)


def system(params, options):
    p = {n: np.asarray(v) * np.ones(1) for n, v in params.items()}
    M, N = p["C" if "C" in p else "C1"].shape[:2]
    imag = np.exp(p["Lambda_imag"]) if options.imag_transform == "exp" else p["Lambda_imag"]
    ones = np.r_[np.ones(N), np.zeros(N)]
    block = np.eye(M)
    return Gated(
        p,
        dense.System(
            A=np.kron(block, dense.diagonal(-np.exp(p["Lambda_real"]), imag)),
            B=np.kron(block, ones[:, None]),
            C=[np.stack([np.kron(block[m], dense.row(C[m])) for m in range(M)]) for C in dense._readouts(p)],
            D=p["D"],
            Delta=np.ones(2 * M * N),
            state_shape=(M, N),
            skip=True,
        ),
    )
