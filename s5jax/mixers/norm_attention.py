"""NormAttention of TransNormer: linear attention whose sums are normalised instead of divided by a sum of weights (Qin,
Han, Sun, Li, Kong, Barnes, Zhong 2022, arXiv 2210.10340).

    q_k = R_k phi(W_q x_k + b_q),    k_i = R_i phi(W_k x_i + b_k),    v_i = W_v x_i + b_v
    y_k = W_o norm(sum_i (q_k . k_i) v_i) + b_o,    norm(z) = (z - mean z) / sqrt(var z + 1e-5) scale + bias

for each of `heads` heads of D = E / heads features, where E is H or `qkv_width`; i runs over all samples, or over those
up to k if causal. The norm is that of the E features of all heads together; with `rms` it is z / sqrt(mean z^2 + 1e-5)
scale. phi(x) = elu(x) + 1 (T2 of the paper), or elu(x) (T1). The rotation R_k of rotary positions acts after phi, on
features d and d + D/2 by the angle k 10000^(-2d/D), see `ssm.positions.rotate`. Parameters:

    q_kernel, k_kernel, v_kernel (H, E)   o_kernel (E, H)   q_bias, k_bias, v_bias (E,)   o_bias (H,)
    norm_scale, norm_bias (E,)

A dense layer is x @ kernel + bias; there is no norm_bias with `rms`. A missing sample is in no sum, and its own input
is replaced by zero. Positions count from the last reset and include missing samples. The recurrent mode has the state

    sums (B, heads, D, D): sum_i k_i v_i^T   count (B,): samples since the sequence started

The published code rotates neighbouring features, 2d and 2d + 1: the same function for another order of features. It can
also take batch norm for the norm. The paper has the RMS norm.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer, PRNGKeyArray

from s5jax.mixers import attention, check, find
from s5jax.mixers.linear_attention import feature_map, heads, project
from s5jax.ssm import linear_attention
from s5jax.ssm.parameters import check_between, check_choices
from s5jax.ssm.positions import following, places, rotate
from s5jax.ssm.sequence import NOT_RECURRENT, Flags, Sequences, border, reset_state

MASK = RESET = True

Params = dict[str, Array]
State = dict[str, Array]
Norm = Literal["layer", "rms"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of NormAttention."""

    heads: int = 8
    """Number of heads; must divide E."""
    causal: bool = True
    """A sample attends to itself and earlier samples only."""
    activation: Literal["1+elu", "elu"] = "1+elu"
    """phi. That of `elu` can be negative."""
    norm: Norm = "layer"
    """How the sums are normalised."""
    positions: Literal["rotary", "none"] = "rotary"
    """Rotate queries and keys."""
    qkv_width: int = 0
    """E, the width of queries, keys and values of all heads together; 0: that of the model."""

    def __post_init__(self) -> None:
        check_choices(self)
        check_between(self, 1, 2**16, "heads")
        check_between(self, 0, 2**16, "qkv_width")


def CAUSAL(options: Options) -> bool:
    return options.causal


def init(key: PRNGKeyArray, width: int, options: Options, *, depth: int = 1, length: int = 1) -> Params:
    """Initial parameters, float32: those of `init_projections` with half of the variance for queries, keys and values,
    and a norm that only normalises. `depth` and `length` are not used."""
    params = init_projections(key, width, options)
    params |= {f"{name}_kernel": params[f"{name}_kernel"] / jnp.sqrt(jnp.float32(2)) for name in "qkv"}
    return params | init_norm(params["q_kernel"].shape[1], options.norm)


def init_projections(key: PRNGKeyArray, width: int, options: Any) -> Params:
    """The four dense layers: kernels uniform with variance 2 / (inputs + outputs) (Glorot), biases zero. ValueError if
    the heads do not divide the width."""
    given = {"heads": options.heads, "qkv_width": options.qkv_width, "positions": "none"}
    shapes = jax.eval_shape(lambda key: attention.init(key, width, attention.Options(**given)), key)
    draw, keys = jax.nn.initializers.glorot_uniform(), dict(zip("qkvo", jax.random.split(key, 4), strict=True))
    params = {f"{name}_kernel": draw(k, shapes[f"{name}_kernel"].shape, jnp.float32) for name, k in keys.items()}
    return params | {f"{name}_bias": jnp.zeros(shapes[f"{name}_bias"].shape, jnp.float32) for name in keys}


def init_norm(features: int, norm: Norm) -> Params:
    """norm_scale of ones and, for the layer norm, norm_bias of zeros."""
    scale = {"norm_scale": jnp.ones(features, jnp.float32)}
    return scale if norm == "rms" else {**scale, "norm_bias": jnp.zeros(features, jnp.float32)}


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
) -> tuple[Float[Array, "B L H"], State | None]:
    """See `s5jax.mixers`. Time and memory grow as L; `key` and `dropout` are not used. Without a causal mask, resets
    double the time."""
    check(find(__name__), options, rate=rate, state=state)
    x, given = border(x, lengths, mask, reset)
    z, state = sums(params, x.astype(params["q_kernel"].dtype), options, given, state)
    return project(params, "o", normalize(params, z)), state


def sums(
    params: Params, x: Float[Array, "B L H"], options: Options, given: Sequences, state: State | None
) -> tuple[Float[Array, "B L E"], State | None]:
    """What the norm is applied to, and the next state; x is zero where there is no sample."""
    (B, L, _), start, count = x.shape, None, None
    if state is not None:
        start, count = reset_state(state["sums"], given.reset, given.lengths), state["count"]
    starts, present = given.starts(L), given.counted(L)
    position, sequence = places(L, starts, count)
    q, k, v = (heads(params, name, x, options.heads) for name in "qkv")
    q, k = (feature_map(z) if options.activation == "1+elu" else jax.nn.elu(z) for z in (q, k))
    if options.positions == "rotary":
        q, k = rotate(q, position), rotate(k, position)
    k = k if present is None else jnp.where(present[..., None, None], k, 0)
    labels = None if starts is None else sequence
    y, end = linear_attention.attend(q, k, v, sequence=labels, causal=options.causal, state=start)
    if end is not None and count is not None:
        state = {"sums": end, "count": following(position, given.lengths, count)}
    return y.reshape(B, L, -1), state


def normalize(params: Params, z: Float[Array, "B L E"]) -> Float[Array, "B L E"]:
    """The layer norm of the features or, without norm_bias, their RMS norm."""
    bias = params.get("norm_bias")
    z = z if bias is None else z - z.mean(-1, keepdims=True)
    z = z * jax.lax.rsqrt(jnp.mean(z * z, -1, keepdims=True) + 1e-5) * params["norm_scale"][None, None]
    return z if bias is None else z + bias[None, None]


def init_state(params: Params, options: Options, batch: Any, *, max_length: int | None = None) -> State:
    """Sums of zero. ValueError if not causal. `max_length` is not used."""
    k = discretize(params, options)["k_kernel"]
    D = k.shape[1] // options.heads
    return {"sums": jnp.zeros((batch, options.heads, D, D), k.dtype), "count": jnp.zeros(batch, jnp.int32)}


def discretize(params: Params, options: Options, *, rate: Any = None) -> Params:
    """Returns the parameters, which `step` takes as its cell. ValueError for a rate, or if not causal."""
    check(find(__name__), options, rate=rate)
    if not options.causal:
        raise ValueError(NOT_RECURRENT)
    return params


def step(
    cell: Params, state: State, x_k: Float[Array, "B H"], options: Options, *, mask: Flags = None, reset: Flags = None
) -> tuple[Float[Array, "B H"], State]:
    """One sample of `apply`: y_k and the next state."""
    mask, reset = (None if flag is None else flag[:, None] for flag in (mask, reset))
    y, after = apply(cell, x_k[:, None], options, mask=mask, reset=reset, state=state)
    assert after is not None
    return y[:, 0], after
