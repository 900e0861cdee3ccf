"""The contract's cases of h3: products, a loop over the taps of the shift, and a dense diagonal system."""

import dataclasses

import dense
import numpy as np

from contract import Case
from s5jax.mixers import s4d

CASES = {
    "h3": Case({"state_size": 6}, main=True),
    "h3_heads": Case({"state_size": 4, "head_dim": 2, "discretization": "zoh"}),
}


@dataclasses.dataclass(frozen=True)
class Products:
    params: dict
    diagonal: dense.System

    def run_batch(self, x, *, lengths=None, mask=None, reset=None, rate=None, state=None):
        """As `dense.System.run_batch`, from zero and without states."""
        assert state is None
        outputs = []
        for i, x_i in enumerate(x):
            n = len(x_i) if lengths is None else int(lengths[i])
            missing = np.zeros(n, bool) if mask is None else mask[i, :n]
            starts = np.zeros(n, bool) if reset is None else reset[i, :n]
            factor = 1.0 if rate is None else rate if np.ndim(rate) == 0 else rate[i]
            factor = factor[:n] if np.ndim(factor) else factor
            outputs.append(self.run(np.where(missing[:, None], 0, x_i[:n]), missing, starts, factor))
        return outputs, [None] * len(x)

    def run(self, x, missing, starts, rate):
        p, n = self.params, len(x)
        q, k, v = (x @ p[f"{name}_kernel"] + p[f"{name}_bias"] for name in "qkv")
        k, v = (np.where(missing[:, None], 0, z) for z in (k, v))
        N, G = p["shift_B"].shape[1], len(p["D"])
        first = np.maximum.accumulate(np.where(starts, np.arange(n), 0))
        shifted = p["shift_D"] * k
        for t in range(n):
            for lag in range(min(N, t - first[t] + 1)):
                tap = (p["shift_C"][:, lag:] * p["shift_B"][:, : N - lag]).sum(1)
                shifted = dense._added(shifted, t, tap * k[t - lag])
        heads = [z.reshape(n, G, q.shape[1] // G) for z in (q, shifted, v)]
        pairs = np.einsum("tgi,tgj->tijg", *heads[1:])
        y = self.diagonal.run(pairs.reshape(n, len(self.diagonal.D)), rate, reset=starts)[0].reshape(pairs.shape)
        return np.einsum("tijg,tgi->tgj", y, heads[0]).reshape(q.shape) @ p["o_kernel"] + p["o_bias"]


def system(params, options):
    """A head's d^2 diagonal systems are features of S4D with one copy of A and B for each head."""
    p = {n: np.asarray(v) * np.ones(1) for n, v in params.items()}
    copies = options.head_dim**2
    inner = {name: p[name] for name in ("A_real", "A_imag", "B")}
    inner |= {name: np.tile(p[name], (copies, *(1,) * (p[name].ndim - 1))) for name in ("C", "D", "log_step")}
    inner_options = s4d.Options(state_size=options.state_size, discretization=options.discretization)
    return Products(p, dense.system("mixers.s4d", inner, inner_options))
