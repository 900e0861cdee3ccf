"""Multi-head softmax attention (Vaswani et al. 2017, arXiv 1706.03762), with rotary positions (Su et al. 2021, arXiv
2104.09864), learned ones, or none.

    q_k = W_q (x_k + p_k) + b_q,    k_i = W_k (x_i + p_i) + b_k,    v_i = W_v x_i + b_v
    y_k = W_o sum_i softmax_i(q_k . k_i / sqrt(D)) v_i + b_o

for each of `heads` heads of D = E / heads features, where E is H or `qkv_width`; i runs over the samples that sample k
attends to. p is learned, or zero; rotary positions rotate features d and d + D/2 of q_k and k_k by the angle
k 10000^(-2d/D). Parameters:

    q_kernel, k_kernel, v_kernel (H, E)   o_kernel (E, H)   q_bias, k_bias, v_bias (E,)   o_bias (H,)
    positions (length, H)

Biases exist only with `bias`, positions only with `positions="learned"`. A dense layer is x @ kernel + bias.

A missing sample is never attended to, and its own input is replaced by zero. If there is no sample to attend to, the
sum is zero. Positions count from the last reset and include missing samples. The recurrent mode has a cache of the last
M samples, a ring buffer with position p in slot p mod M. The state is

    k, v (B, M, heads, D)   valid (B, M): may be attended to   count (B,): samples since the sequence started

With a window, M is at most the window. If M equals the window, a sequence may have any length below 2^31; otherwise
`cache` specifies what happens after M samples. A full cache, or a position beyond the table of learned
positions, raises ValueError if this is known at trace time. Otherwise, as under `jax.jit`, the outputs at such
positions are NaN.
"""

import dataclasses
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer, PRNGKeyArray

from s5jax.ssm.dropout import drop
from s5jax.ssm.parameters import check_between, check_choices
from s5jax.ssm.positions import places, rotate
from s5jax.ssm.sequence import NOT_RECURRENT, border, reset_state, valid_steps

__all__ = ["CAUSAL", "DROPOUT", "GROUPS", "MASK", "RESET", "Options"]
__all__ += ["apply", "discretize", "init", "init_state", "step"]

MASK = RESET = DROPOUT = True
GROUPS: dict[str, str] = {}

Params = dict[str, Array]
State = dict[str, Array]
Positions = Literal["rotary", "learned", "none"]
Cache = Literal["raise", "slide"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of attention."""

    heads: int = 4
    """Number of heads; must divide the width."""
    causal: bool = True
    """A sample attends to itself and earlier samples only."""
    window: int = 0
    """Sample k attends to samples i > k - window, and i < k + window if not causal. 0: no limit."""
    positions: Positions = "rotary"
    """Learned positions are a table of as many rows as the `length` of `init`; no sequence may be longer."""
    cache: Cache = "raise"
    """A full cache raises ValueError, or slides: it forgets the oldest sample, like a window of `max_length`."""
    qkv_width: int = 0
    """E, the width of queries, keys and values of all heads together; 0: that of the model."""
    bias: bool = True
    """Whether the four projections (q, k, v, o) have biases; initialised to zero."""

    def __post_init__(self):
        check_choices(self)
        check_between(self, 1, 2**16, "heads")
        check_between(self, 0, 2**30, "window")
        check_between(self, 0, 2**16, "qkv_width")


def CAUSAL(options: Options) -> bool:
    return options.causal


def init(key: PRNGKeyArray, width: int, options: Options, *, depth: int = 1, length: int = 1) -> Params:
    """Initial parameters, float32: kernels with variance 1 / inputs (LeCun), positions with standard deviation 0.02,
    and biases zero. ValueError if the heads do not divide the width, or with rotary positions and an odd D."""
    E = options.qkv_width or width
    if E % options.heads:
        raise ValueError(f"heads must divide the width; got {options.heads} heads for a width of {E}")
    if options.positions == "rotary" and E // options.heads % 2:
        raise ValueError(f"rotary positions need an even width per head; got {E // options.heads}")
    *keys, last = jax.random.split(key, 5)
    kernel, shapes = jax.nn.initializers.lecun_normal(), {"q": (width, E), "k": (width, E), "v": (width, E)}
    shapes["o"] = (E, width)
    params = {f"{name}_kernel": kernel(k, shapes[name], jnp.float32) for name, k in zip("qkvo", keys, strict=True)}
    if options.bias:
        params |= {f"{name}_bias": jnp.zeros(shapes[name][1], jnp.float32) for name in "qkvo"}
    if options.positions == "learned":
        params["positions"] = 0.02 * jax.random.normal(last, (length, width), jnp.float32)
    return params


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
    """y (B, L, H), and the state after the last valid step if one was given. Time and memory grow as L (M + L).

    `s5jax.mixers` explains the arguments; `dropout` is the probability of dropping an attention weight. ValueError: a
    rate, a state if not causal, dropout without a key, a full cache, or positions beyond the table.
    """
    if rate is not None or state is not None:
        discretize(params, options, rate=rate)  # raises
    L, (x, (lengths, mask, reset, _)) = x.shape[1], border(x, lengths, mask, reset)
    x = x.astype(params["q_kernel"].dtype)
    state = None if state is None else state | {n: reset_state(state[n], reset, lengths) for n in "kv"}
    position, sequence = places(L, reset, None if state is None else state["count"])  # that of the state is 0
    valid = jnp.ones_like(position, bool) if lengths is None else valid_steps(lengths, L)
    beyond = _beyond(params, options, state, position, valid, L if lengths is None and reset is None else 0)
    present = valid if mask is None else valid & ~mask
    q, k, v = _project(params, x, position, options)
    distance = position[:, :, None] - position[:, None, :]
    allowed = present[:, None, :] & (sequence[:, :, None] == sequence[:, None, :])
    window = (options.window or L) if state is None else state["k"].shape[1]  # M is at most the window
    allowed &= (distance < window) & (distance > (-1 if options.causal else -window))
    new_state = None if state is None else _write(state, k, v, present, position, sequence, valid)
    if new_state is not None and L == 1:  # the ring holds all samples and need not be copied
        k, v, allowed = new_state["k"], new_state["v"], new_state["valid"][:, None, :]
    elif state is not None:
        newest = state["count"][:, None] - 1
        slots = newest - (newest - jnp.arange(window, dtype=jnp.int32)[None]) % window  # position in each slot
        near = position[:, :, None] - slots[:, None, :] < window
        allowed = jnp.concatenate([state["valid"][:, None, :] & (sequence == 0)[:, :, None] & near, allowed], 2)
        k, v = jnp.concatenate([state["k"], k], 1), jnp.concatenate([state["v"], v], 1)
    y = _attend(q, k, v, allowed[:, None], key, dropout)
    y = _dense(params, "o", y.reshape(*x.shape[:2], params["o_kernel"].shape[0]))
    return jnp.where(beyond[..., None], jnp.nan, y), new_state


def init_state(params: Params, options: Options, batch: Any, *, max_length: int | None = None) -> State:
    """An empty cache of max_length or window samples, the smaller if both are set. ValueError if neither is set, or if
    not causal. `batch` is an integer, or symbolic under `jax.export`."""
    discretize(params, options)
    if not (max_length or options.window):
        raise ValueError("attention without a window needs a max_length for its cache")
    M = min(size for size in (max_length, options.window) if size)
    E, dtype = params["q_kernel"].shape[1], params["q_kernel"].dtype
    k, v = (jnp.zeros((batch, M, options.heads, E // options.heads), dtype) for _ in "kv")  # each may be donated
    return {"k": k, "v": v, "valid": jnp.zeros((batch, M), bool), "count": jnp.zeros(batch, jnp.int32)}


def discretize(params: Params, options: Options, *, rate: Any = None) -> Params:
    """Returns the parameters, which `step` takes as its cell. ValueError for a rate, or if not causal."""
    if rate is not None:
        raise ValueError("attention takes no rate: it has no step size")
    if not options.causal:
        raise ValueError(NOT_RECURRENT)
    return params


def step(
    cell: Params,
    state: State,
    x_k: Float[Array, "B H"],
    options: Options,
    *,
    mask: Bool[Array, " B"] | None = None,
    reset: Bool[Array, " B"] | None = None,
) -> tuple[Float[Array, "B H"], State]:
    """One sample: y_k (B, H) and the next state; `mask` and `reset` are (B,), default false. Time grows with M. A state
    that is donated, or carried by a scan, is updated in place."""
    mask, reset = (None if flag is None else flag[:, None] for flag in (mask, reset))
    y, after = apply(cell, x_k[:, None], options, mask=mask, reset=reset, state=state)
    assert after is not None
    return y[:, 0], after


def _beyond(params, options, state, position, valid, known):
    """True at valid steps beyond the position table or the cache. Raises ValueError if such steps are known at
    trace time: `known`, a number of steps that are certainly valid, exceeds a limit, or the positions are concrete and
    one is beyond it."""
    limits = {}
    if options.positions == "learned":
        limits["a sequence is longer than the table of {} positions"] = params["positions"].shape[0]
    if state is not None and options.cache == "raise" and (M := state["k"].shape[1]) != options.window:
        limits["the cache is full: it holds {} samples"] = M
    beyond = jnp.zeros_like(position, bool)
    for message, limit in limits.items():
        late = valid & (position >= limit)
        if known > limit or (not isinstance(late, jax.core.Tracer) and late.any()):
            raise ValueError(message.format(limit))
        beyond |= late
    return beyond


def _write(state, k, v, present, position, sequence, valid):
    """The state after writing the last M valid steps of the last sequence to their slots."""
    M, last = state["k"].shape[1], jnp.where(valid, sequence, 0).max(1, keepdims=True)
    keep = valid & (sequence == last)
    count = jnp.maximum(jnp.where(last[:, 0] > 0, 0, state["count"]), jnp.where(keep, position + 1, 0).max(1))
    keep &= position >= count[:, None] - M
    nowhere = M + jnp.arange(k.shape[1], dtype=jnp.int32)[None]
    at = jnp.arange(k.shape[0], dtype=jnp.int32)[:, None], jnp.where(keep, position % M, nowhere)
    old, new = state | {"valid": state["valid"] & (last == 0)}, {"k": k, "v": v, "valid": present}
    return {n: old[n].at[at].set(new[n], mode="drop", unique_indices=True) for n in new} | {"count": count}


def _dense(params, name, x):
    y = jnp.einsum("blh,hi->bli", x, params[f"{name}_kernel"])
    return y + params[f"{name}_bias"][None, None] if f"{name}_bias" in params else y


def _project(params, x, position, options):
    """Queries, keys, values (B, L, heads, D)."""
    placed = x + jnp.take(params["positions"], position, 0, mode="clip") if options.positions == "learned" else x
    shape = (*x.shape[:2], options.heads, params["q_kernel"].shape[1] // options.heads)
    q, k, v = (_dense(params, name, z).reshape(shape) for name, z in (("q", placed), ("k", placed), ("v", x)))
    return (rotate(q, position), rotate(k, position), v) if options.positions == "rotary" else (q, k, v)


def _attend(q, k, v, allowed, key, dropout):
    # jax.nn.dot_product_attention always computes its softmax in float32 and has no dropout.
    wide = jnp.float64 if q.dtype == jnp.float64 else jnp.float32
    logits = jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=wide) / math.sqrt(q.shape[-1])
    weights = jax.nn.softmax(jnp.where(allowed, logits, -1e30), axis=-1)
    weights = jnp.where(allowed, weights, 0)  # rows without a sample to attend to
    if key is None and (isinstance(dropout, jax.Array) or dropout > 0):
        raise ValueError("dropout needs a key")
    weights = drop(weights, key, dropout)
    return jnp.einsum("bhqk,bkhd->bqhd", weights.astype(v.dtype), v)
