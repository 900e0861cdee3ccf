"""The contract's cases of longconv, and its kernel and output layer in float64 NumPy.

Their lam is so large that about a third of the taps become zero."""

import functools

import numpy as np
import scipy.special
from convolution import Convolution, float64

from contract import Case

CASES = {
    "longconv": Case({"lam": 0.05}),
    "longconv_two": Case({"lam": 0.05, "init": "double_exp", "bidirectional": True}),
    "longconv_smooth": Case({"lam": 0.02, "smoothing": 5, "init": "double_exp"}),
    "longconv_channels": Case({"lam": 0.05, "channels": 2}),
}


def kernel(p, options):
    """(directions, channels * H, W)."""
    K, W = p["kernel"], p["kernel"].shape[-1]
    if options.smoothing:
        half = options.smoothing // 2
        total = np.zeros_like(K)
        for shift in range(-half, half + 1):
            first, end = max(0, -shift), min(W, W - shift)
            total[..., first:end] += K[..., first + shift : end + shift]
        K = total / options.smoothing
    K = np.where(np.abs(K.real) > options.lam, K - options.lam * np.sign(K.real), 0)
    return K.reshape(1 + options.bidirectional, -1, K.shape[-1])


def erf(z):
    """The error function of a real number plus an infinitesimal imaginary one, see `dense.derivative`."""
    return scipy.special.erf(z.real) + 2 / np.sqrt(np.pi) * np.exp(-(z.real**2)) * (z - z.real)


def read_out(p, y):
    g = y / 2 * (1 + erf(y / np.sqrt(2)))
    a, b = np.split(g @ p["output_kernel"] + p["output_bias"], 2, axis=-1)
    return a / (1 + np.exp(-b))


class Channels(Convolution):
    """Each channel has the same input."""

    def run(self, u):
        return super().run(np.tile(u, (1, self.K.shape[1] // u.shape[-1])))


def system(params, options):
    p = float64(params)
    after = functools.partial(read_out, p) if options.channels > 1 else None
    return Channels(kernel(p, options), p["D"].ravel(), after)
