"""The contract's cases of sgconv, and its kernel tap by tap."""

import numpy as np
from convolution import Convolution, float64

from contract import Case

CASES = {
    "sgconv": Case({"kernel_dim": 8}),
    "sgconv_two": Case({"kernel_dim": 8, "decay_max": 3.0, "bidirectional": True}),
    "sgconv_sum_nearest": Case({"kernel_dim": 6, "mode": "sum", "interpolation": "nearest"}),
    "sgconv_decay": Case({"kernel_dim": 8, "learnable_decay": True, "decay_min": 0.3, "decay_max": 1.2}),
}


def stretched(taps, factor, interpolation):
    """Each sample of the finer grid lies at its centre's place between the centres of the taps."""
    columns = []
    for j in range(taps.shape[-1] * factor):
        place = (j + 0.5) / factor - 0.5
        if interpolation == "nearest":
            columns.append(taps[..., j // factor])
            continue
        place = min(max(place, 0), taps.shape[-1] - 1)
        left = min(int(place), taps.shape[-1] - 2) if taps.shape[-1] > 1 else 0
        right = min(left + 1, taps.shape[-1] - 1)
        columns.append((1 - (place - left)) * taps[..., left] + (place - left) * taps[..., right])
    return np.stack(columns, -1)


def kernel(p, options):
    """(directions, H, W), divided by the stored norm, which is a constant."""
    taps = p["kernel_list"]
    S, directions, H, T = taps.shape
    k = np.zeros((directions, H, T * 2 ** (S - 1)), taps.dtype)
    end = 0
    for s in range(S):
        factor = 2**s if options.mode == "sum" or s == 0 else 2 ** (s - 1)
        piece = stretched(taps[s], factor, options.interpolation)
        if not options.learnable_decay:
            m = options.decay_min + (options.decay_max - options.decay_min) * np.arange(H) / max(H - 1, 1)
            piece = piece * m[:, None] ** (S - 1 - s)
        begin = 0 if options.mode == "sum" else end
        end = begin + piece.shape[-1]
        k[..., begin:end] += piece
    if options.learnable_decay:
        k = k * (1.0 + np.arange(k.shape[-1])) ** -p["decay"][:, None]
    return k / p["kernel_norm"].real


def system(params, options):
    p = float64(params)
    return Convolution(kernel(p, options), p["D"])
