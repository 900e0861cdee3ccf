"""The contract's cases of lru."""

import functools

import dense

from contract import Case

system = functools.partial(dense.system, "lru")
CASES = {
    "lru": Case(main=True, linear=True),
    "lru_two": Case({"bidirectional": True}, linear=True),
}
