"""The contract's cases of essm."""

import dataclasses

import dense
import numpy as np
import scipy.linalg

from contract import Case

CASES = {
    "essm": Case(linear=True),
    "essm_heads": Case({"heads": 2, "dt_per_state": False, "C_init": "hippo"}, linear=True),
    "essm_two": Case({"heads": 2, "bidirectional": True}, linear=True),
    "essm_two_scan": Case(
        {"conj_sym": False, "bidirectional": True, "mode": "scan", "backward_skips_current": False}, linear=True
    ),
}


@dataclasses.dataclass(frozen=True)
class Mixed(dense.System):
    """A system whose outputs are mixed."""

    weight: np.ndarray | None = None
    bias: np.ndarray | None = None

    def run(self, *args, **named):
        y, state = super().run(*args, **named)
        return y @ self.weight + self.bias, state

    def kernel(self, L, rate=1.0):
        return np.einsum("doil,om->dmil", super().kernel(L, rate), self.weight)


def system(params, options) -> dense.System:
    p = {n: np.asarray(v) * np.ones(1) for n, v in params.items()}
    real, imag = (p["Lambda"][..., i].ravel() for i in range(2))
    real = np.where(real.real < -1e-4, real, -1e-4)
    square = real**2 + imag**2
    B, C = (scipy.linalg.block_diag(*p[name]) for name in "BC")
    B = B * (square / (square + 1e-7))[:, None]
    C = np.concatenate([C * (2 if options.conj_sym else 1), np.zeros(C.shape)], axis=1)
    mixer = {}
    if options.heads > 1:
        mixer = {"weight": p["head_mixer_kernel"], "bias": p["head_mixer_bias"]}
    return (Mixed if mixer else dense.System)(
        A=dense.diagonal(real, imag),
        B=np.concatenate([B, np.zeros(B.shape)]),
        C=[C] * (1 + options.bidirectional),
        D=p["D"],
        Delta=np.exp(np.tile(np.broadcast_to(p["log_step"], p["B"].shape[:2]).ravel(), 2)),
        state_shape=real.shape,
        skip=options.backward_skips_current,
        **mixer,
    )
