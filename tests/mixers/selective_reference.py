"""What the references of the selective mixers share: float64 NumPy, sequence by sequence and sample by sample, like
`dense` for the linear mixers."""

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np


def softplus(x):
    return np.log(1 + np.exp(x))


def silu(x):
    return x / (1 + np.exp(-x))


def convolve(K, u):
    """K (H, W), the current sample's tap first; u (L, H)."""
    padded = np.concatenate([np.zeros((K.shape[1] - 1, len(K))), u])
    W = K.shape[1]
    return np.stack([sum(K[:, lag] * padded[k + W - 1 - lag] for lag in range(W)) for k in range(len(u))])


@dataclasses.dataclass(frozen=True)
class Selective:
    """`run(x, missing, rate)` is one sequence (L, H), from zero."""

    run: Callable

    def run_batch(self, x, *, lengths=None, mask=None, reset=None, rate=None, state=None):
        """As `dense.System.run_batch`, from zero and without states."""
        assert state is None
        outputs = []
        for i, x_i in enumerate(x):
            n = len(x_i) if lengths is None else int(lengths[i])
            missing = np.zeros(n, bool) if mask is None else mask[i, :n]
            factor = 1.0 if rate is None else rate if np.ndim(rate) == 0 else rate[i]
            factor = factor[:n] if np.ndim(factor) else factor * np.ones(n)
            flags = np.zeros(n, bool) if reset is None else reset[i, :n]
            u = np.where(missing[:, None], 0, x_i[:n])
            spans = [slice(*span) for span in itertools.pairwise([0, *np.flatnonzero(flags), n])]
            pieces = [self.run(u[s], missing[s], factor[s]) if s.stop > s.start else u[s] for s in spans]
            outputs.append(np.concatenate(pieces))
        return outputs, [None] * len(x)


def arrays(params):
    return {n: np.asarray(v) * np.ones(1) for n, v in params.items()}
