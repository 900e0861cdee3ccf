"""The contract's cases of s5."""

import functools

import dense

from contract import Case

system = functools.partial(dense.system, "s5")
CASES = {
    "s5": Case(main=True, linear=True),
    "s5_two": Case({"bidirectional": True}, main=True, linear=True),
    "s5_two_in_one_C": Case({"bidirectional": True, "C_init": "complex_normal"}, linear=True),
    "s5_bilinear": Case({"discretization": "bilinear"}, linear=True),
    "s5_whole": Case({"conj_sym": False, "clip_eigs": True}, linear=True),
    "s5_plain": Case({"scan_method": "plain"}, linear=True),
    "s5_ptd": Case({"init": "ptd-conjugate"}, linear=True),
}
