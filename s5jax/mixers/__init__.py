"""Sequence mixers: one module each, under one contract.

A mixer is a module with

    Options         a frozen dataclass; its fields are a section of the config
    init(key, width, options, *, depth, length) -> params
    apply(params, x, options, *, lengths, mask, reset, rate, state, key, dropout) -> (y, state)

and, where they make sense, `init_state`, `discretize`, `step` (recurrent mode), `kernel`, `eigenvalues`,
`transfer_function`, `time_step`. `x` and `y` are (B, L, H). The arguments of `apply`:

    lengths (B,)     valid steps; outputs before them depend on nothing after them
    mask (B, L)      true where a sample is missing: nothing enters there, and time goes on
    reset (B, L)     true where a new sequence starts; a state that has become NaN or infinite before goes on in `apply`
    rate             factor on time, (), (B,) or (B, L); the gap before sample k is `rate[k]` step sizes: 2 for inputs
                     sampled at half the rate of training; a state that runs backwards decays by the gap that it crosses
    state            as from `init_state` or an earlier call; then the state after the last valid step comes back
    key, dropout     for mixers that drop something inside

Constants say what a mixer understands (`ABILITIES` has what an absent one means); `check` refuses the rest.
"""

import importlib
from types import ModuleType
from typing import Any

import jax.numpy as jnp

ABILITIES: dict[str, Any] = {"CAUSAL": False, "RATE": "none", "PADDING": "exact", "MASK": False, "RESET": False}
ABILITIES |= {"OWN_RESIDUAL": False, "DROPOUT": False, "GROUPS": {}}
"""What an absent constant means.

`CAUSAL`: outputs depend on earlier inputs only. `RATE`: "none"; "scalar", one factor for a sequence; or "step", one for
each step. `PADDING`: "exact", or "zeros" where outputs depend on how far a sequence is padded. `MASK`, `RESET`: takes
these arguments. `OWN_RESIDUAL`: gets `skip=x` and adds it itself. `DROPOUT`: uses `key` and `dropout`. `GROUPS`: named
sets of leaves, regular expressions that match a leaf's whole name. All but `GROUPS` may be functions of the options."""


def find(name: str) -> ModuleType:
    """The mixer `s5jax/mixers/<name>.py` or, for a name with dots, any module that can be imported."""
    return importlib.import_module(name if "." in name else f"{__name__}.{name}")


def ability(mixer: ModuleType, name: str, options: Any) -> Any:
    """One of `ABILITIES` of a mixer with these options."""
    value = getattr(mixer, name, ABILITIES[name])
    return value(options) if callable(value) else value


def check(
    mixer: ModuleType, options: Any, *, mask: Any = None, reset: Any = None, rate: Any = None, state: Any = None
) -> None:
    """Raises ValueError for an argument of `apply` that a mixer would ignore."""
    name = mixer.__name__.rpartition(".")[2]
    if mask is not None and not ability(mixer, "MASK", options):
        raise ValueError(f"{name} takes no mask of missing samples")
    if reset is not None and not ability(mixer, "RESET", options):
        raise ValueError(f"{name} takes no reset: it reads one sequence at a time")
    if rate is not None:
        known = ability(mixer, "RATE", options)
        if known == "none":
            raise ValueError(f"{name} takes no rate: it does not know time")
        if known == "scalar" and jnp.ndim(rate) > 1:
            raise ValueError(f"{name} takes one rate for a sequence, not one for each step")
    if state is not None and not ability(mixer, "CAUSAL", options):
        raise ValueError(f"{name} reads in both directions: it has no state to start from")


def require(mixer: ModuleType, *functions: str) -> None:
    """Raises ValueError if a mixer lacks one of the functions that a tool needs."""
    missing = [name for name in functions if not hasattr(mixer, name)]
    if missing:
        raise ValueError(f"{mixer.__name__} has no {' and no '.join(missing)}")
