"""Hyena: products of projections of the input with long convolutions between them, whose filters are functions of the
lag (Poli, Massaroli, Nguyen, Fu, Dao, Baccus, Bengio, Ermon, Ré 2023, arXiv 2302.10866, section 3).

    x_0, ..., x_{o-1}, v = short(x W_in + b_in),    short: a causal convolution of each feature with S taps, and a bias
    v <- h_i * (x_{o-i} v) + D_i x_{o-i} v    for i = 1, ..., o - 1,    h * u the causal convolution with W taps
    y = (x_0 v) W_out + b_out

The filters are a network of the lag l, with one vector of frequencies for all its layers, in a window that falls off at
a rate of its own in each feature and each convolution:

    h(l) = network(z_l) (exp(-delta l / (W - 1)) + shift),    network: dense and sin(freq .), ..., dense without a bias
    z_l = (l / (W - 1), cos(f_1 w_l), ..., -sin(f_1 w_l), ...) at the start,    w_l = 2 pi l / W

with (E - 1) / 2 values of f from 1e-4 to (E - 3) / 2, and delta from ln(100) / slow_decay to ln(100) / fast_decay.

Letters: H features, o the order, S taps of the short filters, W the length of the training sequences, E the size of
z_l, F that of the network's layers. A dense layer is x @ kernel + bias. Parameters:

    in_kernel (H, (o + 1) H)   in_bias ((o + 1) H,)   short_kernel ((o + 1) H, S), by lags   short_bias ((o + 1) H,)
    positions (W, E), which are z   freq (F,)   filter_0_kernel (E, F)   filter_0_bias (F,)   filter_1_kernel (F, F) ...
    filter_n_kernel (F, H (o - 1)), feature by feature   D (H, o - 1)   out_kernel (H, H)   out_bias (H,)

z is trained, as published, with a learning rate of 1e-5: the rule ("@positions", {"lr": 1e-5, "weight_decay": 0.0}).

At a missing sample the projections and the inputs of the long convolutions are zero, which a zero input alone would not
ensure, because of the biases.

The published code has two options that are not what their names say. Its `normalized` divides by a norm over all
features at each lag, not by that of each filter. Its `num_blocks` cuts the sequence into blocks of n steps and
convolves each by FFTs of length 2 n; but the filters have more than n taps, and those from n to 2 n - 1 wrap round, so
that outputs depend on later inputs of the block. Both are options here and do the same. A sequence that cannot be cut
into equal blocks is refused there; here zeros follow it.
"""

import dataclasses
import itertools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer, PRNGKeyArray

from s5jax.mixers import check, find
from s5jax.ssm import fft_conv, tap_conv, window
from s5jax.ssm.parameters import check_between, check_choices, check_least
from s5jax.ssm.product import product
from s5jax.ssm.sequence import NOT_RECURRENT, Flags, border, nan_where_invalid

RATE, MASK = "none", True
GROUPS = {"dynamics": "positions|freq|filter_.*", "positions": "positions"}

Params = dict[str, Array]
State = dict[str, Any]


def CAUSAL(options: "Options") -> bool:
    return options.blocks == 1


def PADDING(options: "Options") -> Literal["exact", "zeros"]:
    return "exact" if options.blocks == 1 else "zeros"  # the length of a block depends on that of the padded sequence


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of Hyena."""

    order: int = 2
    """o, the number of gates; there are o - 1 long convolutions."""
    short_filter: int = 3
    """S, the number of taps of the short filters."""
    filter_width: int = 64
    """F, the number of features of the hidden layers of the filters' network."""
    filter_layers: int = 2
    """Number of hidden layers of the network after the first one."""
    embedding: int = 3
    """E, the number of features of a lag; odd."""
    frequency: float = 1.0
    """The initial freq, the factor in the sines."""
    slow_decay: float = 1.5
    """The slowest window falls to 1/100 after this multiple of the training length."""
    fast_decay: float = 0.3
    """The same for the fastest window."""
    shift: float = 0.0
    """Added to the windows; at least 0."""
    normalized: bool = False
    """Divide the filters, at each lag, by the sum of their absolute values over all features, as published."""
    blocks: int = 1
    """Number of blocks of a sequence, in each of which the long convolutions stay, as published. With several blocks
    outputs depend on later inputs, and there is no recurrent mode."""
    conv_method: Literal["fft", "plain"] = "fft"
    """How the convolution is differentiated, see `ssm.fft_conv`. `plain` supports `jax.jvp`."""

    def __post_init__(self) -> None:
        check_choices(self)
        check_between(self, 2, 64, "order")
        check_between(self, 1, 2**10, "short_filter", "blocks")
        check_between(self, 1, 2**16, "filter_width")
        check_between(self, 0, 64, "filter_layers")
        check_least(self, 0, "shift")
        if self.embedding % 2 == 0 or not 3 <= self.embedding < 2**16:
            raise ValueError(f"embedding must be odd and at least 3, got {self.embedding}")
        if not 0 < self.fast_decay <= self.slow_decay:
            fault = f"0 < fast_decay <= slow_decay, got {self.fast_decay} and {self.slow_decay}"
            raise ValueError(f"fast_decay and slow_decay must satisfy {fault}")


def init(key: PRNGKeyArray, width: int, options: Options, *, depth: int = 1, length: int = 1) -> Params:
    """Initial parameters, float32, as published: dense layers and short filters uniform in +-1 / sqrt(inputs), D
    standard normal, positions and freq as above. `depth` is not used."""
    H, S, gated = width, options.short_filter, (options.order + 1) * width
    sizes = [options.embedding, *[options.filter_width] * (options.filter_layers + 1), H * (options.order - 1)]
    dense = {"in": (H, gated), "out": (H, H)}
    dense |= {f"filter_{i}": shape for i, shape in enumerate(itertools.pairwise(sizes))}
    D_key, *keys = jax.random.split(key, 2 * len(dense) + 3)

    def draw(shape: tuple[int, ...], inputs: int) -> Float[Array, "..."]:
        bound = 1 / math.sqrt(inputs)
        return jax.random.uniform(keys.pop(), shape, jnp.float32, -bound, bound)

    params = {"short_kernel": draw((gated, S), S), "short_bias": draw((gated,), S)}
    for name, (inputs, outputs) in dense.items():
        params |= {f"{name}_kernel": draw((inputs, outputs), inputs), f"{name}_bias": draw((outputs,), inputs)}
    del params[f"filter_{len(sizes) - 2}_bias"]
    lags = np.arange(length)
    bands = np.linspace(1e-4, options.embedding // 2 - 1, options.embedding // 2)
    angles = 2 * np.pi / length * np.outer(lags, bands)
    z = np.concatenate([lags[:, None] / max(1, length - 1), np.cos(angles), -np.sin(angles)], axis=1)
    return params | {
        "positions": jnp.asarray(z, jnp.float32),
        "freq": jnp.full(options.filter_width, options.frequency, jnp.float32),
        "D": jax.random.normal(D_key, (H, options.order - 1), jnp.float32),
    }


def filters(params: Params, L: int, options: Options) -> Float[Array, "convolutions H {L}"]:
    """h of each long convolution for L lags. ValueError for more than W."""
    W, last = params["positions"].shape[0], 1 + options.filter_layers
    if L > W:
        raise ValueError(f"a sequence of {L} steps is longer than the filters of hyena, the training length, {W}")
    z = params["positions"][:L]
    for i in range(last + 1):
        z = jnp.matmul(z, params[f"filter_{i}_kernel"], precision="highest")
        z = z if i == last else jnp.sin(params["freq"][None] * (z + params[f"filter_{i}_bias"][None]))
    slow, fast = (math.log(100) / share for share in (options.slow_decay, options.fast_decay))
    delta = np.linspace(slow, fast, z.shape[1], dtype=np.float32)  # as published, also if z is in float64
    decay = np.linspace(0, 1, W, dtype=np.float32)[:L, None].astype(np.float64) * delta
    z = z * jnp.asarray(np.exp(-decay) + options.shift, z.dtype)
    if options.normalized:
        total = jnp.sum(jnp.abs(z), axis=1, keepdims=True)
        z = z / jnp.where(total > 0, total, 1)
    return z.reshape(L, *params["D"].shape).transpose(2, 1, 0)


def _in_blocks(h: Float[Array, "H L"], u: Float[Array, "B L H"], options: Options) -> Float[Array, "B L H"]:
    """The published convolution in blocks of n steps, circular over 2 n steps."""
    (B, L, H), n = u.shape, -(-u.shape[1] // options.blocks)
    h = jnp.pad(h[:, : 2 * n], ((0, 0), (0, max(0, 2 * n - L))))
    u = jnp.pad(u, ((0, 0), (0, n * options.blocks - L), (0, 0))).reshape(B * options.blocks, n, H)
    both = jnp.stack([h[:, :n], h[:, : -n - 1 : -1]])
    return fft_conv.convolve(u, both, plain=options.conv_method == "plain").reshape(B, -1, H)[:, :L]


def _dense(params: Params, name: str, x: Float[Array, "*batch H"]) -> Float[Array, "*batch P"]:
    y = product(x, params[f"{name}_kernel"])
    return y + jnp.broadcast_to(params[f"{name}_bias"], y.shape)


def _where(counted: Bool[Array, "*samples"] | None, x: Float[Array, "*samples H"]) -> Float[Array, "*samples H"]:
    return x if counted is None else jnp.where(counted[..., None], x, 0)


def _gates(params: Params, p: Float[Array, "*samples P"]) -> list[Float[Array, "*samples H"]]:
    """x_0, ..., x_{o-1} and v from the outputs of the short convolution."""
    p = p + jnp.broadcast_to(params["short_bias"], p.shape)
    return jnp.split(p, p.shape[-1] // params["D"].shape[0], axis=-1)


def apply(
    params: Params,
    x: Float[Array, "B L H"],
    options: Options,
    *,
    lengths: Integer[Array, " B"] | None = None,
    mask: Bool[Array, "B L"] | None = None,
    reset: Any = None,
    rate: Any = None,
    state: State | None = None,
    key: PRNGKeyArray | None = None,
    dropout: float = 0.0,
) -> tuple[Float[Array, "B L H"], State | None]:
    """See `s5jax.mixers`; `key` and `dropout` are not used. ValueError for more than W steps."""
    check(find(__name__), options, reset=reset, rate=rate, state=state)
    x, given = border(x, lengths, mask)
    L, counted, plain = x.shape[1], given.counted(x.shape[1]), options.conv_method == "plain"
    h = filters(params, L if state is None else params["positions"].shape[0], options)
    p, short = _where(counted, _dense(params, "in", x.astype(params["D"].dtype))), None
    p, short = tap_conv.apply(params["short_kernel"], p, given.lengths, None if state is None else state["short"])
    *gates, v = _gates(params, p)
    pasts = []
    for i, gate in enumerate(gates[:0:-1]):
        u = _where(counted, gate * v)
        if options.blocks > 1:
            v, past = _in_blocks(h[i], u, options), None
        else:
            v, past = window.apply(h[i], u, given.lengths, None if state is None else state["long"][i], plain=plain)
        v = v + jnp.broadcast_to(params["D"][:, i], u.shape) * u
        pasts.append(past)
    y = nan_where_invalid(_dense(params, "out", gates[0] * v), given.lengths)
    return y, None if state is None else {"short": short, "long": tuple(pasts)}


def init_state(params: Params, options: Options, batch: Any, *, max_length: int | None = None) -> State:
    """The last inputs, which are zero: of the short convolution (batch, S - 1, (o + 1) H), and, in a tuple, of each
    long one (batch, W - 1, H). ValueError with several blocks. `max_length` is not used."""
    long = discretize(params, options)["long"]
    short = window.init_state(batch, params["short_kernel"])
    return {"short": short, "long": tuple(window.init_state(batch, h) for h in long)}


def discretize(params: Params, options: Options, *, rate: Any = None) -> Params:
    """The parameters and, as "long", the filters, for `step`. ValueError for a rate, or with several blocks."""
    check(find(__name__), options, rate=rate)
    if options.blocks > 1:
        raise ValueError(NOT_RECURRENT)
    return {**params, "long": filters(params, params["positions"].shape[0], options)}


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
    counted = None if mask is None else jnp.logical_not(mask)
    p = _where(counted, _dense(cell, "in", _where(counted, x_k.astype(cell["D"].dtype))))
    p, short = window.step(cell["short_kernel"], state["short"], p, reset=reset)
    *gates, v = _gates(cell, p)
    pasts = []
    for i, gate in enumerate(gates[:0:-1]):
        u = _where(counted, gate * v)
        v, past = window.step(cell["long"][i], state["long"][i], u, reset=reset)
        v = v + cell["D"][:, i][None] * u
        pasts.append(past)
    return _dense(cell, "out", gates[0] * v), {"short": short, "long": tuple(pasts)}
