"""The contract's cases of s4."""

import functools

import dense

from contract import Case

system = functools.partial(dense.system, "s4")
CASES = {
    "s4": Case({"rank": 2}, main=True, linear=True),
    "s4_two": Case({"rank": 2, "bidirectional": True}, linear=True),
    "s4_two_current": Case({"bidirectional": True, "backward_skips_current": False}, linear=True),
    "s4_legt": Case({"init": "legt", "rank": 2}, linear=True),
    "s4_fout": Case({"init": "fout", "rank": 2}, linear=True),
    "s4_legs_fout": Case({"init": "legs_fout", "rank": 2}, linear=True),
}
