"""MEGA: a moving average, and gated attention with its queries and keys (Ma et al. 2022, arXiv 2209.10655, section 3).

The damped moving average has N states per feature, real and without oscillation:

    s_k = q s_{k-1} + p beta x_k,    a_k = silu(sum_n gamma_n s_kn / sqrt(N) + omega x_k),    p = sigma(delta),
    q = 1 - p sigma(alpha)

with sigma the logistic function. `ssm.gated_attention` has the rest of the equations, from a to y, and its parameters;
H is the width and N = ema_size. The norm, before or after, and the MLP are the block's. The other parameters:

    delta, alpha, beta, gamma (H, N)   omega (H,)

A bidirectional mixer has delta, alpha, beta and gamma of shape (2 H, N): first those of the forward direction, as
published. Both directions include the current sample.

Published code: facebookresearch/mega. It lets the padding of a batch reach omega x, and needs sequences of whole
chunks. Here padding and missing samples count nowhere, and the last chunk may be short. In recurrent mode the published
moving average is not truncated; here it is.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float, Integer, PRNGKeyArray

from s5jax.mixers import check, find
from s5jax.ssm import feature_system, gated_attention, parameters, scan, sequence, vandermonde, window
from s5jax.ssm.sequence import Flags, Sequences

MASK = OWN_RESIDUAL = DROPOUT = True
GROUPS = {"dynamics": "delta|alpha|beta|gamma|omega"}

Params = dict[str, Array]
State = dict[str, Any]


def CAUSAL(options: gated_attention.Options) -> bool:
    return not options.bidirectional


def RESET(options: "Options") -> bool:
    return not options.truncation


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(gated_attention.Options):
    """Options of MEGA."""

    ema_size: int = 16
    """N, the number of states per feature."""
    truncation: int = 0
    """Number of samples, in each direction, that the moving average sees. 0: all."""
    scan_method: scan.Method = "auto"
    """How a scan is computed where there is one, see `ssm.scan`. `plain` supports `jax.jvp`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        parameters.check_between(self, 1, 2**12, "ema_size")
        parameters.check_between(self, 0, 2**20, "truncation")


def init(key: PRNGKeyArray, width: int, options: Options, *, depth: int = 1, length: int = 1) -> Params:
    """Initial parameters, float32, as published: normal with standard deviation 0.2 (delta, alpha), 1 (gamma, omega)
    or 0.02 (the others); beta is this noise around 1, -1, 1, ...; biases of dense layers and qk_beta are zero.
    `depth` is not used."""
    keys, H, N = jax.random.split(key, 6), width, options.ema_size
    shape = (H * (1 + options.bidirectional), N)
    sign = (-1.0) ** jnp.arange(N, dtype=jnp.float32)[None]
    return {
        **gated_attention.init(keys[0], width, options, length),
        "delta": 0.2 * jax.random.normal(keys[1], shape, jnp.float32),
        "alpha": 0.2 * jax.random.normal(keys[2], shape, jnp.float32),
        "beta": sign + 0.02 * jax.random.normal(keys[3], shape, jnp.float32),
        "gamma": jax.random.normal(keys[4], shape, jnp.float32),
        "omega": jax.random.normal(keys[5], (H,), jnp.float32),
    }


class _Reads(NamedTuple):
    """What `feature_system` reads of a mixer's options."""

    bidirectional: bool
    scan_method: scan.Method
    backward_skips_current: bool = False


def _average(params: Params, options: Options) -> feature_system.System:
    """The moving average as a diagonal system of each feature. In two directions it has the states of both, of which
    each direction reads its own."""
    p, H, two = jax.nn.sigmoid(params["delta"]), len(params["omega"]), options.bidirectional

    def split(x: Float[Array, "H2 N"]) -> list[Complex[Array, "H N"]]:
        z = jax.lax.complex(x, jnp.zeros_like(x))
        return [z[:H], z[H:]] if two else [z]

    log_a = split(jnp.log1p(-p * jax.nn.sigmoid(params["alpha"])))
    B, C = split(p * params["beta"]), split(params["gamma"] / math.sqrt(options.ema_size))

    def kernel(L: int, rate: Any = None) -> Float[Array, "directions H {L}"]:
        seen = min(L, options.truncation or L)
        K = [vandermonde.vandermonde(c * b, a, seen) for a, b, c in zip(log_a, B, C, strict=True)]
        return jnp.pad(jnp.stack(K), ((0, 0), (0, 0), (0, L - seen)))

    def discrete(rate: Any = None) -> tuple[Complex[Array, "H S"], Complex[Array, "H S"]]:
        return jnp.concatenate(log_a, 1), jnp.concatenate(B, 1)

    nothing = jnp.zeros_like(C[0])
    Cs = [jnp.concatenate([C[0], nothing], 1), jnp.concatenate([nothing, C[1]], 1)] if two else C
    mode: Any = "convolution only" if options.truncation else "convolution"
    return feature_system.System(discrete, Cs, kernel, mode, options.truncation)


def kernel(params: Params, L: int, options: Options, *, rate: Any = None) -> Float[Array, "directions H {L}"]:
    """The impulse response of the moving average, without omega and silu. ValueError for a rate."""
    check(find(__name__), options, rate=rate)
    return _average(params, options).kernel(L, None)


def average(
    params: Params, x: Float[Array, "B L H"], options: Options, given: Sequences = Sequences(), state: Any = None
) -> tuple[Float[Array, "B L H"], Any]:
    """a, and the state of the moving average if one is given; x as from `sequence.border`."""
    reads = _Reads(options.bidirectional, options.scan_method)
    y, state = feature_system.apply(_average(params, options), x, reads, given.lengths, given.reset, None, state)
    return jax.nn.silu(y + jnp.broadcast_to(params["omega"], x.shape) * x), state


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
    """See `s5jax.mixers`. A missing sample is an input of zero that no sample attends to. The moving average is
    computed as by `s4d.apply`, attention in blocks of C queries and C keys, or with a reset or a state of up to 3 C."""
    check(find(__name__), options, reset=reset, rate=rate, state=state)
    x, skip, given = gated_attention.border(params, x, skip, lengths, mask, reset)
    a, ema = average(params, x, options, given, None if state is None else state["ema"])
    attend = gated_attention.in_chunks(params, options, given, None if state is None else state["cache"])
    y, cache = gated_attention.apply(params, options, x, a, skip, attend, key, dropout)
    return y, None if state is None else {"ema": ema, "cache": cache}


def init_state(params: Params, options: Options, batch: Any, *, max_length: int | None = None) -> State:
    """The zero state of the moving average, (batch, H, N) complex or, with a truncation, the last inputs; and an empty
    cache of one chunk or, without chunks, of `max_length` samples. ValueError if bidirectional."""
    cache = gated_attention.init_cache(params, options, batch, max_length)
    if options.truncation:
        return {"ema": window.init_state(batch, kernel(params, options.truncation, options)[0]), "cache": cache}
    return {"ema": feature_system.init_state(params["gamma"], batch), "cache": cache}


def discretize(params: Params, options: Options, *, rate: Any = None) -> dict[str, Any]:
    """The parameters and, as "ema", the moving average for `step`. ValueError for a rate, or if bidirectional."""
    check(find(__name__), options, rate=rate)
    if options.bidirectional:
        raise ValueError(sequence.NOT_RECURRENT)
    if options.truncation:
        return {**params, "ema": kernel(params, options.truncation, options)[0]}
    return {**params, "ema": feature_system.cell(_average(params, options), params["omega"], None)}


def step(
    cell: dict[str, Any],
    state: State,
    x_k: Float[Array, "B H"],
    options: Options,
    *,
    mask: Flags = None,
    reset: Flags = None,
    skip: Float[Array, "B H"] | None = None,
) -> tuple[Float[Array, "B H"], State]:
    """One sample of `apply`: y_k and the next state. Takes time in proportion to the chunk and the truncation."""
    at_once = [None if value is None else value[:, None] for value in (x_k, skip, mask, reset)]
    x, skip, given = gated_attention.border(cell, at_once[0], at_once[1], None, *at_once[2:])
    a, ema = average_step(cell, x[:, 0], options, state["ema"], reset)
    attend = gated_attention.in_chunks(cell, options, given, state["cache"])
    y, cache = gated_attention.apply(cell, options, x, a[:, None], skip, attend)
    return y[:, 0], {"ema": ema, "cache": cache}


def average_step(
    cell: dict[str, Any], x_k: Float[Array, "B H"], options: Options, state: Any, reset: Flags
) -> tuple[Float[Array, "B H"], Any]:
    """One sample of `average`."""
    if options.truncation:
        y, state = window.step(cell["ema"], state, x_k, reset=reset)
        y = y + cell["omega"][None] * x_k
    else:
        y, state = feature_system.step(cell["ema"], state, x_k, reset=reset)
    return jax.nn.silu(y), state
