"""Sequence mixers: one module each, under one contract.

    Options     a frozen dataclass; its fields become a section of the config
    init(key, width, options, *, depth, length) -> params
    apply(params, x, options, *, lengths, mask, reset, rate, state, key, dropout) -> (y, state)

`width` is H; `depth` (blocks of the model) and `length` (steps of the training sequences) are for mixers whose initial
parameters depend on them; params are nested dicts of real arrays. x and y are (B, L, H), L >= 1. The other arguments:

    lengths (B,)     number of valid steps; outputs at valid steps do not depend on what is in the padding. Default: L
    mask (B, L)      true where a sample is missing: its input is ignored, and time goes on. Default: false
    reset (B, L)     true where a new sequence starts. In `apply`, NaN or infinity from before it may
                     still affect what comes after it. Default: false
    rate             factor on the step size, (), (B,) or (B, L): sample k comes rate[k] step sizes after sample k - 1;
                     2 for inputs at half the sampling rate of training. If it is (B, L), the backward direction uses at
                     sample k the rate of sample k + 1, and 1 at the last step of a sequence. Default: 1
    state            the state before the first step, from `init_state` or an earlier call; then the state after the
                     last valid step is returned. Default: none, and `None` is returned
    key, dropout     random key and probability, for mixers with `DROPOUT`
    skip (B, L, H)   the block's input, only for mixers with `OWN_RESIDUAL`

`ssm.sequence.border` raises ValueError for another shape or type and for lengths outside 0..L, `sequence.known_rate`
for rates that are negative or not finite. Under `jax.jit`, where values cannot be checked, invalid ones make the
outputs of their sequences NaN; for a rate (B, L), from there on.

Optional functions (the recurrent mode needs `init_state` and `step`; x_k and y_k are (B, H)):

    init_state(params, options, batch, *, max_length) -> state    a pytree; `max_length`: samples that a cache holds
    discretize(params, options, *, rate) -> cell                  rate () or (B,); without `discretize`, cell is params
    step(cell, state, x_k, options, *, mask, reset) -> (y_k, state)    mask and reset (B,)
    kernel(params, L, options, *, rate)       impulse response, (directions, H, L), or (directions, output, input, L)
    eigenvalues(params, options)              of A (S4: of its diagonal part), complex, in 1/time
    time_step(params, options)                step sizes, in the same unit of time
    transfer_function(params, s, options)     (*s.shape, output, input), G(s) = C (s I - A)^-1 B + D of the real system,
                                              s in radians per time; a second direction adds C2 (-s I - A)^-1 B

A mixer may have buffers, nested dicts of arrays that training updates without gradients; they are stored with the
batch statistics. `apply` takes them as `buffers` and returns (y, state, buffers), of which the last is used only in
training; `discretize` takes them too:

    init_buffers(key, width, options) -> buffers

Constants declare what a mixer supports (`ABILITIES` has the defaults); `check` raises for arguments that it does not
support.
"""

import importlib
from types import ModuleType
from typing import Any

import jax.numpy as jnp

ABILITIES: dict[str, Any] = {"CAUSAL": False, "RATE": "none", "PADDING": "exact", "MASK": False, "RESET": False}
ABILITIES |= {"OWN_RESIDUAL": False, "DROPOUT": False, "GROUPS": {}}
"""The constants of mixers, with their defaults. All except `GROUPS` may be functions of the options.

`CAUSAL`: outputs depend on current and earlier inputs only. `RATE`: "none"; "scalar", one factor per sequence; or
"step", one per step. `PADDING`: "exact" if outputs at valid steps do not depend on the padding, "zeros" if they depend
on the number of padded steps. `MASK`, `RESET`: these arguments are supported. `OWN_RESIDUAL`: the mixer takes `skip`
and adds it itself. `DROPOUT`: it uses `key` and `dropout`; "own" if its options also have a probability of dropout, so
that training needs a key even where the model's dropout is 0. `GROUPS`: named sets of parameters, as regular
expressions that match a parameter's whole name."""


def find(name: str) -> ModuleType:
    """Imports the mixer `s5jax/mixers/<name>.py` or, for a name with dots, any other module."""
    return importlib.import_module(name if "." in name else f"{__name__}.{name}")


def ability(mixer: ModuleType, name: str, options: Any) -> Any:
    """The value of one of `ABILITIES` for a mixer with these options."""
    value = getattr(mixer, name, ABILITIES[name])
    return value(options) if callable(value) else value


def check(
    mixer: ModuleType, options: Any, *, mask: Any = None, reset: Any = None, rate: Any = None, state: Any = None
) -> None:
    """Raises ValueError for a mask, reset, rate or state that the mixer does not support with these options."""
    known, problem = ability(mixer, "RATE", options), ""
    if mask is not None and not ability(mixer, "MASK", options):
        problem = "takes no mask of missing samples"
    elif reset is not None and not ability(mixer, "RESET", options):
        problem = "takes no reset: it expects one sequence per row"
    elif rate is not None and known == "none":
        problem = "takes no rate: it has no step size"
    elif rate is not None and known == "scalar" and jnp.ndim(rate) > 1:
        problem = "takes one rate per sequence, not one per step"
    elif state is not None and not ability(mixer, "CAUSAL", options):
        problem = "reads in both directions: it cannot start from a state"
    if problem:
        raise ValueError(f"{mixer.__name__.rpartition('.')[2]} {problem}")


def require(mixer: ModuleType, *functions: str) -> None:
    """Raises ValueError if a mixer lacks one of the functions that a tool needs."""
    missing = [name for name in functions if not hasattr(mixer, name)]
    if missing:
        raise ValueError(f"{mixer.__name__} has no {' and no '.join(missing)}")
