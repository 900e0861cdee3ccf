"""MEGA's gated attention (Ma et al. 2022, arXiv 2209.10655, section 3.3), for any sequence a(x) in the place of the
moving average:

    u, z, r, h = split(a W_a + b_a),    u = sigma(u),    z = silu(z),    r = silu(r),    v = silu(x W_v + b_v),
    q_i = gamma_0 z_i + beta_0,    k_i = gamma_1 z_i + beta_1,    o = attention(q, k, v),
    y = skip + u (silu(h + (o r) W_h + b_h) - skip)

x is what the mixer reads, and skip its input, by default x; see `chunk_attention` for the attention. With
`dropout`, a and silu(h + ...) are dropped, independently at each sample.

Letters: H width, Z = key_size, E = value_size. A dense layer is x @ kernel + bias. Parameters:

    v_kernel (H, E)   v_bias (E,)   a_kernel (H, H + Z + E + H), a_bias: in the order u, z, r, h   h_kernel (E, H)
    h_bias (H,)   qk_gamma, qk_beta (2, Z)   bias (2 M - 1,), or bias_a, bias_b (Z,) for rotary positions

M = `chunk` or, without chunks, `max_positions`, by default the training length. sigma is the logistic function.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from s5jax.ssm import chunk_attention, parameters, sequence
from s5jax.ssm.chunk_attention import Cache
from s5jax.ssm.dropout import drop
from s5jax.ssm.product import product
from s5jax.ssm.sequence import Sequences

Params = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the gated attention."""

    key_size: int = 64
    """Z, the number of features of queries and keys."""
    value_size: int = 0
    """E, the number of features of values. 0: twice the width."""
    attention: chunk_attention.Function = "softmax"
    """How attention weights are computed, see `ssm.chunk_attention`."""
    positions: Literal["simple", "rotary"] = "simple"
    """The bias of a distance between samples: a table, or the product of two vectors that are rotated."""
    chunk: int = 0
    """Samples in a chunk; a sample attends to its own chunk only. 0: the whole sequence is one chunk, and the recurrent
    mode needs a `max_length`, beyond which there is a ValueError or, under `jax.jit`, outputs are NaN."""
    max_positions: int = 0
    """M for simple positions without chunks, at least the length of the longest sequence. 0: the training length."""
    bidirectional: bool = False
    """Read the sequence in both directions; there is no recurrent mode then."""

    def __post_init__(self) -> None:
        parameters.check_choices(self)
        parameters.check_between(self, 1, 2**14, "key_size")
        parameters.check_between(self, 0, 2**20, "value_size", "chunk", "max_positions")
        if self.positions == "rotary" and self.key_size % 2:
            raise ValueError(f"rotary positions need an even key_size, got {self.key_size}")


def init(key: PRNGKeyArray, width: int, options: Options, length: int) -> Params:
    """Initial parameters, float32: normal with standard deviation 0.02; biases of dense layers and qk_beta are zero.
    `length` is the default of M."""
    H, Z, E, M = width, options.key_size, options.value_size or 2 * width, options.max_positions or length
    shapes: dict[str, tuple[int, ...]] = {"v_kernel": (H, E), "a_kernel": (H, 2 * H + Z + E), "h_kernel": (E, H)}
    shapes |= {"qk_gamma": (2, Z)}
    shapes |= {"bias_a": (Z,), "bias_b": (Z,)} if options.positions == "rotary" else {}
    shapes |= {"bias": (2 * (options.chunk or M) - 1,)} if options.positions == "simple" else {}
    keys = jax.random.split(key, len(shapes))
    params = {n: 0.02 * jax.random.normal(k, shapes[n], jnp.float32) for n, k in zip(shapes, keys, strict=True)}
    zeros = {"v_bias": (E,), "a_bias": shapes["a_kernel"][1:], "h_bias": (H,), "qk_beta": (2, Z)}
    return params | {name: jnp.zeros(shape, jnp.float32) for name, shape in zeros.items()}


def border(
    params: Params, x: Any, skip: Any, lengths: Any, mask: Any, reset: Any
) -> tuple[Float[Array, "B L H"], Float[Array, "B L H"], Sequences]:
    """x and skip as from `sequence.border`, of the parameters' type."""
    dtype, (x, given) = params["v_kernel"].dtype, sequence.border(x, lengths, mask, reset)
    skip = x if skip is None else sequence.border(skip, given.lengths, given.mask)[0]
    return x.astype(dtype), skip.astype(dtype), given


def apply(
    params: Params,
    options: Options,
    x: Float[Array, "B L H"],
    a: Float[Array, "B L H"],
    skip: Float[Array, "B L H"],
    attend: Callable[[Array, Array, Array], tuple[Array, Any]],
    key: PRNGKeyArray | None = None,
    dropout: Float[Array, ""] | float = 0.0,
) -> tuple[Float[Array, "B L H"], Any]:
    """y, and what attend(q, k, v) returns after o."""
    keys = (None, None) if key is None else jax.random.split(key)
    H, E, Z = x.shape[-1], len(params["h_kernel"]), options.key_size
    v = jax.nn.silu(_dense(params, "v", x))
    u, z, r, h = jnp.split(_dense(params, "a", drop(a, keys[0], dropout)), (H, H + Z, H + Z + E), axis=-1)
    z = jax.nn.silu(z)
    q, k = (z * params["qk_gamma"][None, None, i] + params["qk_beta"][None, None, i] for i in range(2))
    o, rest = attend(q, k, v)
    h = jax.nn.silu(h + _dense(params, "h", o * jax.nn.silu(r)))
    return skip + jax.nn.sigmoid(u) * (drop(h, keys[1], dropout) - skip), rest


def in_chunks(
    params: Params, options: Options, given: Sequences, cache: Cache | None
) -> Callable[[Array, Array, Array], tuple[Array, Cache | None]]:
    """The attention of MEGA, for `apply`; returns the next cache if one is given."""

    def attend(q: Array, k: Array, v: Array) -> tuple[Array, Cache | None]:
        C = options.chunk or (q.shape[1] if cache is None else cache.k.shape[1])
        how: Any = {"chunk": C, "causal": not options.bidirectional, "endless": bool(options.chunk)}
        bias = distance_bias(params, options, C)
        return chunk_attention.attend(q, k, v, bias, options.attention, given, cache, **how)

    return attend


def distance_bias(params: Params, options: Options, C: int) -> Float[Array, " distances"]:
    """b(d) for d = 1 - C .. C - 1. ValueError if the table is shorter."""
    if options.positions == "rotary":
        return chunk_attention.rotary_bias(params["bias_a"], params["bias_b"], C)
    M = (len(params["bias"]) + 1) // 2
    if M < C:
        raise ValueError(f"a sequence of {C} steps is longer than the {M} positions of the table")
    return params["bias"][M - C : M + C - 1]


def _dense(params: Params, name: str, x: Float[Array, "B L _"]) -> Float[Array, "B L _"]:
    y = product(x, params[f"{name}_kernel"])
    return y + jnp.broadcast_to(params[f"{name}_bias"], y.shape)


def init_cache(params: Params, options: Options, batch: Any, max_length: int | None) -> Cache:
    """An empty cache of a chunk or, without chunks, of max_length samples. ValueError if neither is set, or if
    bidirectional."""
    if options.bidirectional:
        raise ValueError(sequence.NOT_RECURRENT)
    size = options.chunk or max_length
    if not size:
        raise ValueError("attention without chunks needs a max_length for its cache")
    if options.positions == "simple":
        size = min(size, (len(params["bias"]) + 1) // 2)
    E, dtype = params["v_kernel"].shape[1], params["v_kernel"].dtype
    return chunk_attention.init_cache(batch, size, options.key_size, E, dtype)
