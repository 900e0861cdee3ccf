"""The contract's cases of dss."""

import dataclasses

import dense
import numpy as np

from contract import Case

CASES = {
    "dss": Case(linear=True),
    "dss_two": Case({"version": "exp-re-im", "bidirectional": True}, linear=True),
    "dss_softmax": Case({"version": "softmax", "softmax_length": 20, "sep_dt_re_im": False}, linear=True),
    "dss_no_scale": Case({"version": "clip-no-scale", "sep_dt_re_im": False}, linear=True),
    "dss_window": Case({"max_kernel_length": 12}),
    "dss_window_two": Case(
        {"version": "softmax", "softmax_length": 12, "max_kernel_length": 12, "bidirectional": True, "dt_min": 0.05}
    ),
}


def system(params, options):
    """One diagonal system per feature, each with its own multiple of Lambda."""
    p = {n: np.asarray(v) * np.ones(1) for n, v in params.items()}
    if "Lambda" in p:
        real, imag = p["Lambda"].T
        real = np.where(real.real < 1e-4, real, 1e-4) if "clip" in options.version else real
    else:
        real = -np.exp(p["Lambda_log_neg_re"])
        imag = np.exp(p["Lambda_log_im"]) if "Lambda_log_im" in p else p["Lambda_im"]
    Lambda, log_step = np.stack([real, imag], -1), p["log_step"]
    A = [Lambda * np.stack([np.exp(step[0] - step[-1]), 1]) for step in log_step]
    B = [inputs(a, np.exp(step[-1]), Lambda, options) for a, step in zip(A, log_step, strict=True)]
    found = dense._side_by_side(
        [dense.diagonal(*a.T) for a in A],
        [dense.column(b) for b in B],
        [dense.row(p[name]) for name in ("W", "W1", "W2") if name in p],
        {**p, "log_step": log_step[:, -1:]},
        "power" if "no-scale" in options.version else "zoh",
        options,
    )
    return Windowed(found, options.max_kernel_length) if options.max_kernel_length else found


def inputs(a, Delta, Lambda, options):
    """B (N, 2), which gives s by zero-order hold."""
    if "no-scale" in options.version:
        return np.stack([np.ones(len(a)), np.zeros(len(a))], -1)
    if options.version != "softmax":
        return dense.times(a, Lambda * [1, -1]) / squared(Lambda)
    # Of a growing mode from the last sample back: exp((l - n + 1) z) over the sum of all these.
    n, grows = options.softmax_length, a[:, :1].real > 0
    z = np.where(grows, -1, 1) * Delta * a
    total = sum(power(z, lag) for lag in range(n))
    x = dense.times(Lambda, dense.times(power(z, 1) - [1, 0], total))
    scale = dense.times(np.where(grows, -1, 1) * a, x * [1, -1]) / (squared(x) + 1e-7)
    return np.where(grows, dense.times(scale, power(z, n)), scale)


def power(z, n):
    """exp(n z) of pairs."""
    return np.exp(n * z[:, :1]) * np.stack([np.cos(n * z[:, 1]), np.sin(n * z[:, 1])], -1)


def squared(z):
    return (z**2).sum(-1, keepdims=True)


@dataclasses.dataclass(frozen=True)
class Windowed:
    """The system's kernel, cut after some lags."""

    system: dense.System
    lags: int

    def run_batch(self, x, *, lengths=None, mask=None, rate=None, state=None):
        assert state is None
        outputs = []
        for i, x_i in enumerate(x):
            u = x_i if mask is None else np.where(mask[i][:, None], 0, x_i)
            u = u[: len(u) if lengths is None else int(lengths[i])]
            factor = 1.0 if rate is None else rate if np.ndim(rate) == 0 else rate[i]
            kernels = self.system.kernel(self.lags, factor)
            y = [self.system.D * u_k for u_k in u]
            for k in range(len(u)):
                for lag in range(self.lags):
                    if k >= lag:
                        y[k] = y[k] + kernels[0, :, :, lag] @ u[k - lag]
                    ahead = k + lag + self.system.skip
                    if len(kernels) == 2 and ahead < len(u):
                        y[k] = y[k] + kernels[1, :, :, lag] @ u[ahead]
            outputs.append(np.array(y).reshape(-1, x.shape[-1]))
        return outputs, [None] * len(x)
