"""Mixers that are given by their kernels, in float64 NumPy: products with dense matrices, sequence by sequence."""

import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class Convolution:
    """y_k = sum_l K[0]_l u_{k-l} + sum_l K[1]_l u_{k+l+1} + D u_k, then a function of each sample."""

    K: np.ndarray
    """(directions, H, W), zero beyond W."""
    D: np.ndarray
    after: Callable | None = None

    def run_batch(self, x, *, lengths=None, mask=None, reset=None, rate=None, state=None):
        """The valid part of each sequence: a list of outputs, and no states. There is no reset, rate or start."""
        assert reset is None and rate is None and state is None
        n = [len(x_i) for x_i in x] if lengths is None else [int(length) for length in lengths]
        x = x if mask is None else np.where(mask[..., None], 0, x)
        return [self.run(x_i[:n_i]) for x_i, n_i in zip(x, n, strict=True)], [None] * len(x)

    def run(self, u):
        """One sequence (L, H)."""
        L, W = len(u), self.K.shape[-1]
        lag = np.arange(L)[:, None] - np.arange(L)
        y = self.D * u
        for direction, K in enumerate(self.K):
            lag = lag if direction == 0 else -lag - 1
            seen = (lag >= 0) & (lag < W)
            matrix = np.where(seen, K[:, np.clip(lag, 0, W - 1)], 0)
            y = y + np.einsum("hij,jh->ih", matrix, u)
        return y if self.after is None else self.after(y)


def float64(params):
    """Parameters in float64, or complex for `dense.derivative`."""
    return {name: np.asarray(value) * np.ones(1) for name, value in params.items()}
