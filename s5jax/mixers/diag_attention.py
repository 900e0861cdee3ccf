"""DiagAttention of TransNormer: attention within blocks of a sequence (Qin, Han, Sun, Li, Kong, Barnes, Zhong 2022,
arXiv 2210.10340).

    q_k = R_k (W_q x_k + b_q) / sqrt(D),    k_i = R_i (W_k x_i + b_k),    v_i = W_v x_i + b_v
    softmax:  y_k = W_o sum_i softmax_i(q_k . k_i) v_i + b_o                 (T2 of the paper)
    relu:     y_k = W_o norm(sum_i max(q_k . k_i, 0) v_i) + b_o              (T1)

for each of `heads` heads of D = E / heads features, where E is H or `qkv_width`; i runs over the samples of the block
of k, if causal up to k. Sample k is in block floor(k / block). R_k and the norm are those of `norm_attention`.
Parameters:

    q_kernel, k_kernel, v_kernel (H, E)   o_kernel (E, H)   q_bias, k_bias, v_bias (E,)   o_bias (H,)
    and, with relu, norm_scale, norm_bias (E,)

A dense layer is x @ kernel + bias; there is no norm_bias with norm `rms`. A missing sample is never attended to, and
its own input is replaced by zero. If there is no sample to attend to, the sum is zero. Positions, and blocks, count
from the last reset and include missing samples. The recurrent mode has the state

    k, v (B, block, heads, D): of the current block   valid (B, block): may be attended to   count (B,): its samples

The published softmax also counts what it should not. It is here with `published_softmax`: zeros that fill up the last
block of the padded sequence are keys with logit 0 and value 0; the causal mask sets weights to zero after the softmax,
whose denominator still has later samples; and no sample is masked, so that padding and missing samples are inputs of
zero. This form looks ahead.
"""

import dataclasses
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer, PRNGKeyArray

from s5jax.mixers import check, find, norm_attention
from s5jax.mixers.linear_attention import heads, project
from s5jax.ssm.dropout import drop
from s5jax.ssm.parameters import check_between, check_choices
from s5jax.ssm.positions import following, places, rotate
from s5jax.ssm.sequence import NOT_RECURRENT, Flags, border, nan_where_invalid, reset_state

MASK = DROPOUT = True

Params = dict[str, Array]
State = dict[str, Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of DiagAttention."""

    heads: int = 8
    """Number of heads; must divide E."""
    block: int = 64
    """Number of samples in a block."""
    causal: bool = True
    """A sample attends to itself and earlier samples only."""
    weights: Literal["softmax", "relu"] = "softmax"
    """Weights of the values. Those of `relu` are followed by a norm."""
    published_softmax: bool = False
    """The softmax of the published code, see above. There is no recurrent mode then."""
    norm: norm_attention.Norm = "layer"
    """How the sums are normalised with `relu`."""
    positions: Literal["rotary", "none"] = "rotary"
    """Rotate queries and keys."""
    qkv_width: int = 0
    """E, the width of queries, keys and values of all heads together; 0: that of the model."""

    def __post_init__(self) -> None:
        check_choices(self)
        check_between(self, 1, 2**16, "heads")
        check_between(self, 1, 2**16, "block")
        check_between(self, 0, 2**16, "qkv_width")
        if self.published_softmax and self.weights != "softmax":
            raise ValueError(f"published_softmax needs weights softmax, got {self.weights}")


def CAUSAL(options: Options) -> bool:
    return options.causal and not options.published_softmax


def RESET(options: Options) -> bool:
    return not options.published_softmax


def PADDING(options: Options) -> str:
    return "zeros" if options.published_softmax else "exact"


def init(key: PRNGKeyArray, width: int, options: Options, *, depth: int = 1, length: int = 1) -> Params:
    """Initial parameters, float32: see `norm_attention.init_projections`. `depth` and `length` are not used."""
    params = norm_attention.init_projections(key, width, options)
    if options.weights == "softmax":
        return params
    return params | norm_attention.init_norm(params["q_kernel"].shape[1], options.norm)


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
    """See `s5jax.mixers`. Time and memory grow as L block, twice that with resets or a state, and three times with
    resets if not causal. `dropout` is the probability of dropping a weight. ValueError for dropout without a key."""
    check(find(__name__), options, reset=reset, rate=rate, state=state)
    x, given = border(x, lengths, mask, reset)
    if state is not None:
        state = state | {n: reset_state(state[n], given.reset, given.lengths) for n in "kv"}
    x, (B, L, _), W = x.astype(params["q_kernel"].dtype), x.shape, options.block
    starts, present = given.starts(L), given.counted(L)
    present = jnp.ones((B, L), bool) if present is None or options.published_softmax else present
    position, _ = places(L, starts, None if state is None else state["count"])
    q, k, v = (heads(params, name, x, options.heads) for name in "qkv")
    q = q / math.sqrt(q.shape[-1])
    if options.positions == "rotary":
        q, k = rotate(q, position % W), rotate(k, position % W)
    index = jnp.broadcast_to(jnp.arange(L, dtype=jnp.int32)[None], (B, L))
    first = index - position % W  # the index of the block's first sample, negative if it is in the state
    size = W if options.published_softmax else min(W, L)

    def split(z: Array) -> Array:
        """(B, L, ...) in pieces of `size` samples: blocks if no reset and no state moves them."""
        z = jnp.pad(z, ((0, 0), (0, -L % size), *((0, 0),) * (z.ndim - 2)))
        return z.reshape(B, -1, size, *z.shape[2:])

    def near(z: Array, before: Array | None) -> Array:
        """The samples that may be in the block of those of each piece; `before` (B, W, ...) comes first."""
        pieces = split(z)
        found = [pieces]
        if starts is not None or state is not None:
            before = jnp.zeros((B, W, *z.shape[2:]), z.dtype) if before is None else before
            found = [jnp.concatenate([before[:, None], pieces[:, :-1]], 1) if pieces.shape[1] > 1 else before[:, None]]
            found.append(pieces)
        if starts is not None and not options.causal:
            found.append(jnp.concatenate([pieces[:, 1:], jnp.zeros_like(pieces[:, :1])], 1))
        return jnp.concatenate(found, 2)

    old: dict[str, Any] = dict.fromkeys(("k", "v", "valid", "first", "index"))
    if state is not None:
        old |= state | {
            "first": jnp.broadcast_to(-state["count"][:, None], (B, W)),
            "index": jnp.full((B, W), -1, jnp.int32),
        }
    allowed = near(present, old["valid"])[:, :, None] & (
        near(first, old["first"])[:, :, None] == split(first)[..., None]
    )
    if options.causal:
        allowed &= near(index, old["index"])[:, :, None] <= split(index)[..., None]
    logits = jnp.einsum("bgihd,bgjhd->bghij", split(q), near(k, old["k"]))
    weights = drop(_weights(logits, allowed[:, :, None], options), _checked(key, dropout), dropout)
    y = jnp.einsum("bghij,bgjhe->bgihe", weights, near(v, old["v"]))
    y = y.reshape(B, -1, params["o_kernel"].shape[0])[:, :L]
    y = y if options.weights == "softmax" else norm_attention.normalize(params, y)
    after = None if state is None else _after(state, k, v, present, position, given.lengths)
    return nan_where_invalid(project(params, "o", y), given.lengths), after


def _weights(logits: Array, allowed: Array, options: Options) -> Array:
    if options.weights == "relu":
        return jnp.where(allowed, jax.nn.relu(logits), 0)
    counted = logits if options.published_softmax else jnp.where(allowed, logits, -1e30)
    return jnp.where(allowed, jax.nn.softmax(counted, axis=-1), 0)


def _checked(key: PRNGKeyArray | None, dropout: Float[Array, ""] | float) -> PRNGKeyArray | None:
    if key is None and (isinstance(dropout, jax.Array) or dropout > 0):
        raise ValueError("dropout needs a key")
    return key


def _after(state: State, k: Array, v: Array, present: Array, position: Array, lengths: Array | None) -> State:
    """The state after the last valid step."""
    W, L = state["k"].shape[1], k.shape[1]
    count = following(position, lengths, state["count"]) % W
    slot = jnp.arange(W, dtype=jnp.int32)[None]
    end = jnp.full_like(count, L) if lengths is None else lengths
    index = end[:, None] - count[:, None] + slot  # of the sample in each slot; negative if the state has it
    index = jnp.where(index < 0, slot, jnp.minimum(index, L - 1) + W)
    both = {n: jnp.concatenate([state[n], new], 1) for n, new in {"k": k, "v": v, "valid": present}.items()}
    kept = {n: jnp.take_along_axis(z, index.reshape(*index.shape, *(1,) * (z.ndim - 2)), 1) for n, z in both.items()}
    return kept | {"valid": kept["valid"] & (slot < count[:, None]), "count": count}


def init_state(params: Params, options: Options, batch: Any, *, max_length: int | None = None) -> State:
    """An empty block. ValueError if the mixer looks ahead. `max_length` is not used."""
    kernel = discretize(params, options)["k_kernel"]
    shape = (batch, options.block, options.heads, kernel.shape[1] // options.heads)
    k, v = (jnp.zeros(shape, kernel.dtype) for _ in "kv")  # each may be donated
    return {"k": k, "v": v, "valid": jnp.zeros(shape[:2], bool), "count": jnp.zeros(batch, jnp.int32)}


def discretize(params: Params, options: Options, *, rate: Any = None) -> Params:
    """Returns the parameters, which `step` takes as its cell. ValueError for a rate, or if the mixer looks ahead."""
    check(find(__name__), options, rate=rate)
    if not CAUSAL(options):
        raise ValueError(NOT_RECURRENT)
    return params


def step(
    cell: Params, state: State, x_k: Float[Array, "B H"], options: Options, *, mask: Flags = None, reset: Flags = None
) -> tuple[Float[Array, "B H"], State]:
    """One sample of `apply`: y_k and the next state. Time grows with `block`."""
    mask, reset = (None if flag is None else flag[:, None] for flag in (mask, reset))
    y, after = apply(cell, x_k[:, None], options, mask=mask, reset=reset, state=state)
    assert after is not None
    return y[:, 0], after
