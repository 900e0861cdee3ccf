"""The contract's cases of tcnca: MEGA's reference with a network of dilated convolutions for the average."""

import numpy as np

from contract import Case
from contract.mega import Mega, gated, silu

SMALL = {"key_size": 4, "value_size": 3, "chunk": 4, "taps": 3, "levels": 3}
CASES = {
    "tcnca": Case(SMALL),
    "tcnca_two": Case({**SMALL, "bidirectional": True, "taps": 2, "dilation": 3, "attention": "laplace"}),
}


class Network(Mega):
    def run(self, x, missing):
        if not len(x):
            return x
        x = np.where(missing[:, None], 0, x)
        p, a = self.params, x
        for i in range(self.options.levels):
            y = np.zeros(a.shape, np.result_type(a, p["tcn_kernel"])) + p["tcn_bias"][i]
            for tap in range(self.options.taps):
                lag = tap * self.options.dilation**i
                if lag < len(x):
                    y[lag:] += p["tcn_kernel"][0, i, :, tap] * a[: len(x) - lag]
                    if self.options.bidirectional:
                        y[: len(x) - lag] += p["tcn_kernel"][1, i, :, tap] * a[lag:]
            a = a + silu(y)
        return gated(x, a, p, self.options, missing)


def system(params, options) -> Network:
    return Network({n: np.asarray(v) * np.ones(1) for n, v in params.items()}, options)
