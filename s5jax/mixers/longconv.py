"""Long convolutions: a kernel whose taps are the parameters, regularised by shrinking them (Fu, Epstein, Nguyen,
Thomas, Zhang, Dao, Rudra, Ré 2023, arXiv 2302.06646).

    y_k = sum_{l < W} K_l u_{k-l} + D u_k,    K = dropout(squash(smooth(kernel)))

    smooth: moving average over lags, with zeros beyond both ends    squash: sign(k) max(|k| - lam, 0)

Letters: H features, C channels, M = C H, W taps, L length. W is the length of the training sequences. Parameters, where
the kernels of the backward direction, which starts at the next sample, follow those of the forward one:

    kernel (C or 2 C, H, W)   D (C, H)   and, with several channels, output_kernel (C H, 2 H)   output_bias (2 H,)

Each channel convolves all features by kernels of its own. One channel's output is y. Several need the published output
layer in the mixer, y = a sigmoid(b) with [a, b] = output_kernel^T dropout(gelu(y_1 .. y_C)) + output_bias; the block's
activation is then none. With one channel the same layer is the block's full_glu.

A sequence of L < W steps uses the first L taps. In the published code the kernel wraps round there, so that early
outputs depend on later inputs. Its standalone version stores 2 L taps, whose second half reaches into the future by
such wrapping: `bidirectional` here.
"""

import dataclasses
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer, PRNGKeyArray

from s5jax.mixers import check, find
from s5jax.ssm import fft_conv, window
from s5jax.ssm.dropout import drop
from s5jax.ssm.parameters import check_between, check_choices, check_least, check_share
from s5jax.ssm.product import product
from s5jax.ssm.sequence import NOT_RECURRENT, Flags, border

Params = dict[str, Array]
State = Float[Array, "B past H"]

RATE, MASK = "none", True
GROUPS = {"dynamics": "kernel"}


def CAUSAL(options: "Options") -> bool:
    return not options.bidirectional


def DROPOUT(options: "Options") -> bool | Literal["own"]:
    return "own" if options.kernel_dropout else options.channels > 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of long convolutions."""

    channels: int = 1
    """C. With several channels, the mixer contains a gated output layer: use the block's activation none."""
    init: Literal["random", "double_exp"] = "random"
    """Initial taps: normal with standard deviation 0.002, or 0.02 exp(-(l / W) floor(H / 2)^(h / H)) at lag l of
    feature h."""
    lam: float = 0.003
    """The soft threshold: every tap moves towards zero by lam; smaller taps are zero and get no gradient. With init
    `random` and the default 0.003 this holds for 87 % of the taps at the start; `double_exp` has larger taps."""
    smoothing: int = 0
    """Width of the moving average, odd. 0: none."""
    kernel_dropout: float = 0.0
    """Probability of dropping a tap in training, whatever the model's dropout is."""
    bidirectional: bool = False
    """Read the sequence in both directions; there is no recurrent mode then."""
    conv_method: Literal["fft", "plain"] = "fft"
    """How the convolution is differentiated, see `ssm.fft_conv`. `plain` supports `jax.jvp`."""

    def __post_init__(self) -> None:
        check_choices(self)
        check_between(self, 1, 64, "channels")
        check_least(self, 0, "lam")
        check_share(self, "kernel_dropout")
        if self.smoothing and not (0 < self.smoothing < 2**16 and self.smoothing % 2):
            raise ValueError(f"smoothing must be 0 or an odd number of taps below 65536, got {self.smoothing}")


def init(key: PRNGKeyArray, width: int, options: Options = Options(), *, depth: int = 1, length: int = 1) -> Params:
    """Initial parameters, float32, as published: D standard normal, the output layer uniform up to 1 / sqrt(C H).
    `depth` is not used."""
    kernel_key, D_key, *output_keys = jax.random.split(key, 4)
    C, H = options.channels, width
    taps = jax.random.normal(kernel_key, (C * (1 + options.bidirectional), H, length), jnp.float32)
    if options.init == "random":
        taps = 0.002 * taps
    else:
        rate = (H // 2) ** (jnp.arange(H, dtype=jnp.float32) / H)
        time = jnp.arange(length, dtype=jnp.float32) / length
        taps = 0.02 * taps * jnp.exp(-rate[:, None] * time[None])[None]
    params = {"kernel": taps, "D": jax.random.normal(D_key, (C, H), jnp.float32)}
    if C > 1:
        shapes, bound = {"output_kernel": (C * H, 2 * H), "output_bias": (2 * H,)}, 1 / math.sqrt(C * H)
        for k, (name, shape) in zip(output_keys, shapes.items(), strict=True):
            params[name] = jax.random.uniform(k, shape, jnp.float32, -bound, bound)
    return params


def _kernel(params: Params, options: Options, key: PRNGKeyArray | None = None) -> Float[Array, "directions M W"]:
    """K of all channels, the features of the first channel first; with a key, some taps are dropped."""
    K = params["kernel"]
    W, width = K.shape[-1], options.smoothing
    if width:
        padded = jnp.pad(K, ((0, 0), (0, 0), (width // 2, width // 2)))
        K = sum((padded[..., i : i + W] for i in range(1, width)), padded[..., :W]) / width
    K = jnp.where(jnp.abs(K) > options.lam, K - options.lam * jnp.sign(K), 0)
    K = drop(K, key, options.kernel_dropout) if options.kernel_dropout else K
    return K.reshape(1 + options.bidirectional, -1, W)


def _read_out(
    params: Params, y: Float[Array, "B *L M"], key: PRNGKeyArray | None = None, dropout: Any = 0.0
) -> Float[Array, "B *L H"]:
    """The output layer of several channels; dropout is tied over time, as in the block."""
    if "output_kernel" not in params:
        return y
    g = drop(jax.nn.gelu(y, approximate=False), key, dropout, (y.shape[0], 1, y.shape[-1]))
    z = product(g, params["output_kernel"])
    a, b = jnp.split(z + jnp.broadcast_to(params["output_bias"], z.shape), 2, axis=-1)
    return a * jax.nn.sigmoid(b)


def _through(params: Params, u: Float[Array, "B *L M"]) -> Float[Array, "B *L M"]:
    """D u of each channel."""
    return jnp.broadcast_to(params["D"].reshape(-1), u.shape) * u


def _check_length(K: Float[Array, "directions H W"], L: int) -> None:
    W = K.shape[-1]
    if L > W:
        raise ValueError(f"a sequence of {L} steps is longer than the kernel of longconv, the training length, {W}")


def kernel(params: Params, L: int, options: Options, *, rate: Any = None) -> Float[Array, "directions H {L}"]:
    """K of each direction, without D, for 1..W lags. ValueError for more lags, a rate, or several channels, whose
    output is not linear."""
    check(find(__name__), options, rate=rate)
    if options.channels > 1:
        raise ValueError("longconv has an impulse response only with one channel: the output layer is not linear")
    K = _kernel(params, options)
    _check_length(K, L)
    return K[..., :L]


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
    dropout: Float[Array, ""] | float = 0.0,
) -> tuple[Float[Array, "B L H"], State | None]:
    """See `s5jax.mixers`. A missing sample is an input of zero. With a key, taps of the kernel are dropped, and with
    several channels `dropout` is that of the output layer. ValueError for more than W steps."""
    check(find(__name__), options, reset=reset, rate=rate, state=state)
    x, (lengths, *_) = border(x, lengths, mask)
    L, H, plain = x.shape[1], x.shape[2], options.conv_method == "plain"
    tap_key, output_key = (None, None) if key is None else jax.random.split(key)
    K = _kernel(params, options, tap_key)
    _check_length(K, L)
    u = jnp.tile(x.astype(K.dtype), (1, 1, options.channels))
    if options.bidirectional:
        y = fft_conv.convolve(u, K[..., :L], plain=plain)
    else:
        start = None if state is None else jnp.tile(state, (1, 1, options.channels))
        y, last = window.apply(K[0], u, lengths, start, plain=plain)
        state = None if last is None else last[..., :H]
    return _read_out(params, y + _through(params, u), output_key, dropout), state


def init_state(params: Params, options: Options, batch: Any, *, max_length: int | None = None) -> State:
    """The last W - 1 inputs, (batch, W - 1, H), which are zero. ValueError if bidirectional. `max_length` is not
    used."""
    return window.init_state(batch, discretize(params, options)["kernel"][: params["D"].shape[1]])


def discretize(params: Params, options: Options, *, rate: Any = None) -> dict[str, Array]:
    """The parameters for `step`, with the kernel (M, W) after squash. ValueError for a rate, or if bidirectional."""
    check(find(__name__), options, rate=rate)
    if options.bidirectional:
        raise ValueError(NOT_RECURRENT)
    return params | {"kernel": _kernel(params, options)[0]}


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
    u = jnp.tile(x_k, (1, options.channels))
    y, last = window.step(cell["kernel"], jnp.tile(state, (1, 1, options.channels)), u, reset=reset)
    return _read_out(cell, y + _through(cell, u)), last[..., : x_k.shape[-1]]
