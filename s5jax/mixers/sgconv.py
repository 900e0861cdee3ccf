"""SGConv: a structured global convolution, whose kernel is built from a few taps at each of several scales (Li, Cai,
Zhang, Chen, Dey 2022, arXiv 2210.09298).

    y_k = sum_{l < W} K_l u_{k-l} + D u_k,    K = k / |k at initialisation|,    |.| the l2 norm over lags

    cat:    k = concatenation over s < S of m^(S-1-s) f_s(k_s),  where f_s stretches by max(1, 2^(s-1))
    sum:    k = sum over s < S of m^(S-1-s) f_s(k_s),            where f_s stretches by 2^s

Letters: H features, S scales, T taps per scale (`kernel_dim`), W = T 2^(S-1) lags, L length. m goes from `decay_min` to
`decay_max` over the features. With `learnable_decay`, k_l is multiplied by (l + 1)^-decay instead, and m is 1.
Parameters, with C = 1, or 2 with two directions, of which the backward one starts at the next sample:

    kernel_list (S, C, H, T)   kernel_norm (C, H, 1)   D (H,)   and, with `learnable_decay`, decay (H,)

S is the smallest number for which W is at least the length of the training sequences. Lags from W on are zero.

The published code takes the norm at the first forward call and keeps it as a constant; here `init` takes it, and
kernel_norm gets no gradient. It is an array of its own because, folded into kernel_list, it would make each Adam step
change the kernel about 150 times (1,024 steps, with 64 taps and m = 2) to 2,500 times (16,384 steps) as much. Weight
decay must not act on it: optimizer rules with weight decay, as published, start with ("@constants", {"frozen": True}).
"""

import dataclasses
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer, PRNGKeyArray

from s5jax.mixers import check, find
from s5jax.ssm import fft_conv, window
from s5jax.ssm.parameters import check_between, check_choices, feedthrough
from s5jax.ssm.sequence import NOT_RECURRENT, Flags, border

Params = dict[str, Array]
State = Float[Array, "B past H"]

RATE, MASK = "none", True
GROUPS = {"dynamics": "kernel_list|decay|kernel_norm", "constants": "kernel_norm"}


def CAUSAL(options: "Options") -> bool:
    return not options.bidirectional


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of SGConv."""

    kernel_dim: int = 64
    """T, the number of taps at each scale."""
    scales: int = 0
    """S, the number of scales. 0: as many as the length of the training sequences needs."""
    mode: Literal["cat", "sum"] = "cat"
    """Scales one after the other, or all of them added from lag 0 on."""
    interpolation: Literal["linear", "nearest"] = "linear"
    """How taps are stretched. `linear`: between the centres of the taps, constant beyond the first and the last."""
    decay_min: float = 2.0
    """m of the first feature: each scale has 1/m of the weight of the scale before. With `learnable_decay`, the lower
    bound of the initial `decay`, which is drawn uniformly."""
    decay_max: float = 2.0
    """m of the last feature. With `learnable_decay`, the upper bound of the initial `decay`."""
    learnable_decay: bool = False
    """Multiply by a trained power of the lag instead of powers of m."""
    bidirectional: bool = False
    """Read the sequence in both directions; there is no recurrent mode then."""
    conv_method: Literal["fft", "plain"] = "fft"
    """How the convolution is differentiated, see `ssm.fft_conv`. `plain` supports `jax.jvp`."""

    def __post_init__(self) -> None:
        check_choices(self)
        check_between(self, 1, 2**16, "kernel_dim")
        check_between(self, 0, 24, "scales")
        if not 0 < self.decay_min <= self.decay_max:
            fault = f"must satisfy 0 < decay_min <= decay_max, got {self.decay_min} and {self.decay_max}"
            raise ValueError(f"decay_min and decay_max {fault}")


def init(key: PRNGKeyArray, width: int, options: Options = Options(), *, depth: int = 1, length: int = 1) -> Params:
    """Initial parameters, float32, as published: kernel_list and D standard normal. `depth` is not used."""
    kernel_key, decay_key, D_key = jax.random.split(key, 3)
    T, directions = options.kernel_dim, 1 + options.bidirectional
    S = options.scales or 1 + (math.ceil(length / T) - 1).bit_length()
    if not options.learnable_decay and (S - 1) * math.log10(options.decay_max) > 30:
        raise ValueError(f"decay_max {options.decay_max} to the power of {S - 1} scales is too large for float32")
    params = {
        "kernel_list": jax.random.normal(kernel_key, (S, directions, width, T), jnp.float32),
        "D": jax.random.normal(D_key, (width,), jnp.float32),
    }
    if options.learnable_decay:
        params["decay"] = jax.random.uniform(
            decay_key, (width,), jnp.float32, minval=options.decay_min, maxval=options.decay_max
        )
    return params | {"kernel_norm": jnp.linalg.norm(_without_norm(params, options), axis=-1, keepdims=True)}


def _without_norm(params: Params, options: Options) -> Float[Array, "directions H W"]:
    """k, all W lags."""
    taps = params["kernel_list"]
    S, directions, H, T = taps.shape
    m = np.ones(H) if options.learnable_decay else np.linspace(options.decay_min, options.decay_max, H)
    weights = m ** np.arange(S - 1, -1, -1)[:, None]
    stretch = [2**s if options.mode == "sum" else 2 ** max(0, s - 1) for s in range(S)]
    pieces = [
        jax.image.resize(taps[s], (directions, H, T * stretch[s]), options.interpolation)
        * jnp.asarray(weights[s], taps.dtype)[None, :, None]
        for s in range(S)
    ]
    if options.mode == "cat":
        k = jnp.concatenate(pieces, axis=-1)
    else:
        k = sum((_resized(piece, T * 2 ** (S - 1)) for piece in pieces[1:]), _resized(pieces[0], T * 2 ** (S - 1)))
    if options.learnable_decay:
        lags = jnp.arange(1, k.shape[-1] + 1, dtype=k.dtype)
        k = k * jnp.exp(-params["decay"][:, None] * jnp.log(lags)[None])[None]
    return k


def _resized(k: Float[Array, "directions H W"], L: int) -> Float[Array, "directions H {L}"]:
    """The first L lags, zeros where there are fewer."""
    return jnp.pad(k[..., :L], ((0, 0), (0, 0), (0, max(0, L - k.shape[-1]))))


def _kernel(params: Params, options: Options) -> Float[Array, "directions H W"]:
    return _without_norm(params, options) / jax.lax.stop_gradient(params["kernel_norm"])


def kernel(params: Params, L: int, options: Options, *, rate: Any = None) -> Float[Array, "directions H {L}"]:
    """K of each direction, without D, for L >= 1 lags. ValueError for a rate."""
    check(find(__name__), options, rate=rate)
    return _resized(_kernel(params, options), L)


def apply(
    params: Params,
    x: Float[Array, "B L H"],
    options: Options = Options(),
    *,
    lengths: Integer[Array, " B"] | None = None,
    mask: Bool[Array, "B L"] | None = None,
    reset: Any = None,
    rate: Any = None,
    state: State | None = None,
    key: PRNGKeyArray | None = None,
    dropout: float = 0.0,
) -> tuple[Float[Array, "B L H"], State | None]:
    """See `s5jax.mixers`. A missing sample is an input of zero; `key` and `dropout` are not used."""
    check(find(__name__), options, reset=reset, rate=rate, state=state)
    x, (lengths, *_) = border(x, lengths, mask)
    x, plain = x.astype(params["D"].dtype), options.conv_method == "plain"
    if options.bidirectional:
        y = fft_conv.convolve(x, kernel(params, x.shape[1], options), plain=plain)
    else:
        y, state = window.apply(_kernel(params, options)[0], x, lengths, state, plain=plain)
    return y + feedthrough(params, x), state


def init_state(params: Params, options: Options, batch: Any, *, max_length: int | None = None) -> State:
    """The last W - 1 inputs, (batch, W - 1, H), which are zero. ValueError if bidirectional. `max_length` is not
    used."""
    return window.init_state(batch, discretize(params, options)["kernel"])


def discretize(params: Params, options: Options, *, rate: Any = None) -> dict[str, Array]:
    """The kernel (H, W) and D (H,), for `step`. ValueError for a rate, or if bidirectional."""
    check(find(__name__), options, rate=rate)
    if options.bidirectional:
        raise ValueError(NOT_RECURRENT)
    return {"kernel": _kernel(params, options)[0], "D": params["D"]}


def step(
    cell: Params,
    state: State,
    x_k: Float[Array, "B H"],
    options: Options,
    *,
    mask: Flags = None,
    reset: Flags = None,
) -> tuple[Float[Array, "B H"], State]:
    """One sample of `apply`: y_k and the next state. Takes time in proportion to W."""
    x_k = x_k.astype(cell["D"].dtype)
    x_k = x_k if mask is None else jnp.where(mask[:, None], 0, x_k)
    y, state = window.step(cell["kernel"], state, x_k, reset=reset)
    return y + feedthrough(cell, x_k), state
