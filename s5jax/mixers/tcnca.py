"""TCNCA: MEGA with a temporal convolutional network in the place of the moving average (Terzic et al. 2023, arXiv
2312.05605).

    c_0 = x,    c_{i+1} = c_i + silu(sum_{j < T} K_ij c_i(k - j f^i) + b_i),    a = c_levels

There is no published code, and of the paper only the abstract was at hand: dilated convolutions instead of MEGA's
recurrence, with a large receptive field in few levels, and attention in chunks. OUR choices are one convolution per
level, of each feature by itself, with T = `taps`; dilations f^i with f = `dilation`; silu; and the residual sum. An
output sees (T - 1) (1 + f + ... + f^(levels-1)) earlier samples. In two directions each level has a second kernel that
reads from the end; both include the current sample, as in MEGA.

`ssm.gated_attention` has the equations from a to y, and the other parameters. H is the width. Parameters:

    tcn_kernel (directions, levels, H, T)   tcn_bias (levels, H)

At a missing sample x is zero; the network goes on there, and no sample attends to it.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer, PRNGKeyArray

from s5jax.mixers import check, find
from s5jax.ssm import gated_attention, parameters, sequence, tap_conv
from s5jax.ssm.sequence import Flags, Sequences

MASK = RESET = OWN_RESIDUAL = DROPOUT = True
GROUPS = {"dynamics": "tcn_kernel|tcn_bias"}

Params = dict[str, Array]
State = dict[str, Any]


def CAUSAL(options: gated_attention.Options) -> bool:
    return not options.bidirectional


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(gated_attention.Options):
    """Options of TCNCA."""

    taps: int = 3
    """T, the number of taps of each convolution."""
    levels: int = 4
    """Number of convolutions, one after the other."""
    dilation: int = 2
    """f, the factor between the dilations of two levels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        parameters.check_between(self, 1, 2**10, "taps")
        parameters.check_between(self, 1, 64, "levels", "dilation")
        if (self.taps - 1) * self.dilation ** (self.levels - 1) > 2**24:
            raise ValueError(f"a network of {self.levels} levels with dilation {self.dilation} sees too many samples")


def init(key: PRNGKeyArray, width: int, options: Options, *, depth: int = 1, length: int = 1) -> Params:
    """Initial parameters, float32: those of the gated attention as published for MEGA, tcn_kernel normal with a
    standard deviation of 1/sqrt(T), tcn_bias zero. `depth` is not used."""
    keys = jax.random.split(key)
    shape = (1 + options.bidirectional, options.levels, width, options.taps)
    return {
        **gated_attention.init(keys[0], width, options, length),
        "tcn_kernel": options.taps**-0.5 * jax.random.normal(keys[1], shape, jnp.float32),
        "tcn_bias": jnp.zeros(shape[1:3], jnp.float32),
    }


def _network(
    params: Params, x: Float[Array, "B L H"], options: Options, given: Sequences, states: Any = None
) -> tuple[Float[Array, "B L H"], Any]:
    """a, and the last inputs of each level if states are given."""
    L, ends = x.shape[1], []
    valid = None if given.lengths is None else sequence.valid_steps(given.lengths, L)[..., None]
    starts, turned = given.starts(L), None
    if options.bidirectional and (starts is not None):
        turned = jnp.broadcast_to(sequence.end_before(starts, None, L), x.shape[:2])[:, ::-1]
    for i in range(options.levels):
        x = x if valid is None else jnp.where(valid, x, 0)
        K, d, state = params["tcn_kernel"][:, i], options.dilation**i, None if states is None else states[i]
        y, end = tap_conv.apply(K[0], x, given.lengths, state, starts=starts, dilation=d)
        if options.bidirectional:
            y = y + tap_conv.apply(K[1], x[:, ::-1], starts=turned, dilation=d)[0][:, ::-1]
        x = x + jax.nn.silu(y + params["tcn_bias"][None, None, i])
        ends.append(end)
    return x, None if states is None else tuple(ends)


def apply(
    params: Params,
    x: Float[Array, "B L H"],
    options: Options,
    *,
    lengths: Integer[Array, " B"] | None = None,
    mask: Bool[Array, "B L"] | None = None,
    reset: Bool[Array, "#B #L"] | None = None,
    rate: Any = None,
    state: State | None = None,
    key: PRNGKeyArray | None = None,
    dropout: Float[Array, ""] | float = 0.0,
    skip: Float[Array, "B L H"] | None = None,
) -> tuple[Float[Array, "B L H"], State | None]:
    """See `s5jax.mixers` and, for the attention, `mega.apply`."""
    check(find(__name__), options, reset=reset, rate=rate, state=state)
    x, skip, given = gated_attention.border(params, x, skip, lengths, mask, reset)
    a, levels = _network(params, x, options, given, None if state is None else state["levels"])
    attend = gated_attention.in_chunks(params, options, given, None if state is None else state["cache"])
    y, cache = gated_attention.apply(params, options, x, a, skip, attend, key, dropout)
    return y, None if state is None else {"levels": levels, "cache": cache}


def init_state(params: Params, options: Options, batch: Any, *, max_length: int | None = None) -> State:
    """The last inputs of each level, which are zero, and an empty cache of one chunk or, without chunks, of
    `max_length` samples. ValueError if bidirectional."""
    cache = gated_attention.init_cache(params, options, batch, max_length)
    _, levels, H, T = params["tcn_kernel"].shape
    spans = [options.dilation**i * (T - 1) for i in range(levels)]
    return {"levels": tuple(jnp.zeros((batch, span, H), cache.k.dtype) for span in spans), "cache": cache}


def discretize(params: Params, options: Options, *, rate: Any = None) -> Params:
    """Returns the parameters, which `step` takes as its cell. ValueError for a rate, or if bidirectional."""
    check(find(__name__), options, rate=rate)
    if options.bidirectional:
        raise ValueError(sequence.NOT_RECURRENT)
    return params


def step(
    cell: Params,
    state: State,
    x_k: Float[Array, "B H"],
    options: Options,
    *,
    mask: Flags = None,
    reset: Flags = None,
    skip: Float[Array, "B H"] | None = None,
) -> tuple[Float[Array, "B H"], State]:
    """One sample of `apply`: y_k and the next state. Takes time in proportion to the chunk and, to move the states, to
    the receptive field."""
    x, mask, reset, skip = (None if value is None else value[:, None] for value in (x_k, mask, reset, skip))
    assert x is not None
    y, after = apply(cell, x, options, mask=mask, reset=reset, state=state, skip=skip)
    assert after is not None
    return y[:, 0], after
