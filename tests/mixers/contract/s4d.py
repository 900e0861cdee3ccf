"""The contract's cases of s4d."""

import functools

import dense

from contract import Case

system = functools.partial(dense.system, "s4d")
CASES = {
    "s4d": Case(main=True, linear=True),
    "s4d_two": Case({"bidirectional": True}, main=True, linear=True),
    "s4d_two_scan": Case({"bidirectional": True, "mode": "scan", "backward_skips_current": False}, linear=True),
    "s4d_scan": Case({"mode": "scan"}, linear=True),
    "s4d_legs": Case({"init": "legs"}, linear=True),
    "s4d_ptd": Case({"init": "ptd-conjugate"}, linear=True),
    "s4d_inv_bilinear": Case({"init": "inv", "discretization": "bilinear"}, linear=True),
    "s4d_real_bilinear": Case({"init": "real", "discretization": "bilinear", "B_init": "random"}, linear=True),
    "s4d_best_softplus": Case({"real_transform": "best", "dt_transform": "softplus"}, linear=True),
    "s4d_real_modes": Case({"modes": "real", "init": "real"}, linear=True),
    "s4d_dss": Case({"discretization": "dss", "dss_length": 20, "dt_per_state": True}, values=1e-4, linear=True),
}
