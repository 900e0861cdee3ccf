"""PoNet: pooling of a sequence as a whole, of its segments, and of neighbours, in place of attention (Tan, Chen, Wang,
Zhang, Zheng, Ling 2021, arXiv 2110.02442).

    g = sum_i softmax_i(q . k_i / sqrt(D)) k_i,    q = mean_i q_i
    s_k = max_{i in segment of k} segment_i,    l_k = max(local_{k-1}, local_k, local_{k+1})
    y_k = W ((g + s_k) * gate_k + l_k) + b

where q_k, k_k, gate_k, segment_k and local_k are dense layers of x_k, and g is computed for each of `heads` heads of
D = H / heads features: its values are the keys. The maxima are those of each feature. Sample k is in segment
floor(k / segment_length). Parameters, for each of query, key, gate, segment, local and out:

    <name>_kernel (H, H)   <name>_bias (H,)

A dense layer is x @ kernel + bias. Padding and missing samples are in no mean, softmax or maximum, and have the output
b. Every output depends on the whole sequence: there is no recurrent mode.

The published code has an option segment_num instead, and segments of floor(L / segment_num) + 1 samples, where L counts
padding. It gives values of -10000 to padding.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer, PRNGKeyArray

from s5jax.mixers import check, find
from s5jax.mixers.linear_attention import heads, project
from s5jax.ssm.parameters import check_between, check_choices
from s5jax.ssm.sequence import border, nan_where_invalid

MASK = True
LAYERS = ("query", "key", "gate", "segment", "local", "out")

Params = dict[str, Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of PoNet."""

    heads: int = 2
    """Number of heads of the global pooling; must divide the width."""
    segment_length: int = 32
    """Number of samples in a segment; 0: the whole sequence is one."""

    def __post_init__(self) -> None:
        check_choices(self)
        check_between(self, 1, 2**16, "heads")
        check_between(self, 0, 2**30, "segment_length")


def init(key: PRNGKeyArray, width: int, options: Options, *, depth: int = 1, length: int = 1) -> Params:
    """Initial parameters, float32, uniform in +-1 / sqrt(H), as published. ValueError if the heads do not divide the
    width. `depth` and `length` are not used."""
    if width % options.heads:
        raise ValueError(f"heads must divide the width; got {options.heads} heads for a width of {width}")
    params: Params = {}
    bound = 1 / math.sqrt(width)
    for name, k in zip(LAYERS, jax.random.split(key, len(LAYERS)), strict=True):
        drawn = jax.random.uniform(k, (width + 1, width), jnp.float32, -bound, bound)
        params |= {f"{name}_kernel": drawn[:-1], f"{name}_bias": drawn[-1]}
    return params


def apply(
    params: Params,
    x: Float[Array, "B L H"],
    options: Options,
    *,
    lengths: Integer[Array, " B"] | None = None,
    mask: Bool[Array, "B L"] | None = None,
    reset: Any = None,
    rate: Any = None,
    state: Any = None,
    key: PRNGKeyArray | None = None,
    dropout: Float[Array, ""] | float = 0.0,
) -> tuple[Float[Array, "B L H"], None]:
    """See `s5jax.mixers`. Time and memory grow as L; `key` and `dropout` are not used. ValueError for a reset, a rate
    or a state."""
    check(find(__name__), options, reset=reset, rate=rate, state=state)
    x, given = border(x, lengths, mask)
    x, present = x.astype(params["out_kernel"].dtype), given.counted(x.shape[1])
    present = jnp.ones(x.shape[:2], bool) if present is None else present
    pooled = _global(params, x, present, options.heads)[:, None]
    segment, local = (jnp.where(present[..., None], project(params, n, x), -jnp.inf) for n in ("segment", "local"))
    segment, local = _segment_max(segment, options.segment_length), _local_max(local)
    segment, local = (jnp.where(present[..., None], z, 0) for z in (segment, local))
    y = (pooled + segment) * project(params, "gate", x) + local
    y = project(params, "out", jnp.where(present[..., None], y, 0))
    return nan_where_invalid(y, given.lengths), None


def _global(params: Params, x: Float[Array, "B L H"], present: Bool[Array, "B L"], n: int) -> Float[Array, "B H"]:
    """g, zero where there are no samples."""
    present = present[..., None]
    q = jnp.sum(jnp.where(present, project(params, "query", x), 0), 1) / jnp.maximum(present.sum(1), 1).astype(x.dtype)
    k = heads(params, "key", x, n)
    logits = jnp.einsum("bhd,blhd->blh", q.reshape(q.shape[0], n, -1), k) / math.sqrt(k.shape[-1])
    weights = jnp.where(present, jax.nn.softmax(jnp.where(present, logits, -1e30), axis=1), 0)
    return jnp.einsum("blh,blhd->bhd", weights, k).reshape(q.shape)


def _segment_max(z: Float[Array, "B L H"], length: int) -> Float[Array, "B L H"]:
    """At each step, the maximum over its segment."""
    B, L, H = z.shape
    size = min(length or L, L)
    pieces = jnp.pad(z, ((0, 0), (0, -L % size), (0, 0)), constant_values=-jnp.inf).reshape(B, -1, size, H)
    most = jnp.broadcast_to(pieces.max(2, keepdims=True), pieces.shape)
    return most.reshape(B, -1, H)[:, :L]


def _local_max(z: Float[Array, "B L H"]) -> Float[Array, "B L H"]:
    """At each step, the maximum over it and its two neighbours."""
    padded = jnp.pad(z, ((0, 0), (1, 1), (0, 0)), constant_values=-jnp.inf)
    return jnp.maximum(jnp.maximum(padded[:, :-2], z), padded[:, 2:])
