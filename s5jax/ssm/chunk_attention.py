"""Single-head attention within chunks of C consecutive samples, as in MEGA (Ma et al. 2022, arXiv 2209.10655).

    o_i = sum_j A_ij v_j,    A_i = softmax_j(q_i . k_j / sqrt(Z) + b(j - i)),    or A_ij = f(q_i . k_j / n_i + b(j - i))

j runs over the samples that sample i attends to: those of its own chunk that are not missing and, if causal, not after
i; n_i is their number, at least 1. f(s) is `laplace`, (1 + erf((s - mu) / (sigma sqrt(2)))) / 2 with the published
mu = 0.707107 and sigma = 0.282095, or `relu2`, max(s, 0)^2. If there is no sample to attend to, o_i is zero.

The chunks of a sequence start at its first sample. The last one may be short. Samples that a state holds (`Cache`) are
in front of the first sample, at the places -C to -1. Letters: Z features of queries and keys, E of values.
"""

import functools
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.export import register_namedtuple_serialization
from jax.scipy.special import erf
from jaxtyping import Array, Bool, Float, Integer

from s5jax.ssm.sequence import Sequences, reset_state

Function = Literal["softmax", "laplace", "relu2"]


class Cache(NamedTuple):
    """The last C samples: keys, values, whether each is there, and the number of samples of the chunk so far."""

    k: Float[Array, "B C Z"]
    v: Float[Array, "B C E"]
    present: Bool[Array, "B C"]
    filled: Integer[Array, " B"]


register_namedtuple_serialization(Cache, serialized_name="s5jax.ssm.chunk_attention.Cache")


def init_cache(batch: int, chunk: int, Z: int, E: int, dtype: jnp.dtype) -> Cache:
    """A cache without samples."""
    k, v = (jnp.zeros((batch, chunk, size), dtype) for size in (Z, E))
    return Cache(k, v, jnp.zeros((batch, chunk), bool), jnp.zeros(batch, jnp.int32))


def rotary_bias(a: Float[Array, " Z"], b: Float[Array, " Z"], chunk: int) -> Float[Array, " distances"]:
    """b(d) = (R_i a) . (R_(i+d) b) for d = 1 - chunk .. chunk - 1, where R_i rotates features f and f + Z/2 by the
    angle i 10000^(-2f/Z)."""
    half = len(a) // 2
    angle = np.arange(1 - chunk, chunk)[:, None] * 10000.0 ** (-np.arange(half) / half)
    cos, sin = jnp.asarray(np.cos(angle), a.dtype), jnp.asarray(np.sin(angle), a.dtype)
    a, b = a.reshape(2, half), b.reshape(2, half)
    return cos @ (a[0] * b[0] + a[1] * b[1]) + sin @ (a[1] * b[0] - a[0] * b[1])


def attend(
    q: Float[Array, "B L Z"],
    k: Float[Array, "B L Z"],
    v: Float[Array, "B L E"],
    bias: Float[Array, " distances"],
    function: Function,
    given: Sequences,
    cache: Cache | None = None,
    *,
    chunk: int,
    causal: bool,
    endless: bool = True,
) -> tuple[Float[Array, "B L E"], Cache | None]:
    """o, and the cache after the last valid sample if one was given.

    Args:
      bias: b(d) for d = 1 - chunk .. chunk - 1.
      given: lengths, mask and reset; a reset starts a new chunk.
      chunk: C. With a cache, its size.
      causal: needed for a cache.
      endless: another chunk follows a full one. Otherwise o is NaN after C samples; ValueError if that is known.
    """
    (B, L, _), C, starts = q.shape, chunk, given.starts(q.shape[1])
    if cache is not None:
        clean = {n: reset_state(getattr(cache, n), given.reset, given.lengths) for n in "kv"}
        cache = cache._replace(**clean)
    S = min(C, L)
    present, start = given.counted(L), None
    if present is None and L % S:
        present = jnp.ones((1, L), bool)  # the blocks are filled up with samples that are not
    if cache is not None or starts is not None:  # chunks do not start at multiples of C
        index = jnp.arange(L, dtype=jnp.int32)[None]
        position = index if cache is None else cache.filled[:, None] + index
        if starts is not None:
            last = jax.lax.cummax(jnp.where(starts, index, -1), axis=1)
            position = jnp.where(last < 0, position, index - last)
        start = index - (position % C if endless else position)
    before, in_blocks = 0, functools.partial(blocks, size=S)
    if start is None:
        k_b, v_b, allowed = in_blocks(k), in_blocks(v), None if present is None else in_blocks(present)[:, :, None]
    else:
        present = jnp.broadcast_to(True if present is None else present, (B, L))
        start, before = jnp.broadcast_to(start, (B, L)), 0 if cache is None and S == L else C
        front: tuple[Any, ...] = (None,) * 4
        if cache is not None:
            first = jnp.broadcast_to(-cache.filled[:, None], (B, C))
            there = cache.present & (jnp.arange(-C, 0, dtype=jnp.int32)[None] >= first)
            front = (cache.k, cache.v, there, first)
        near = (k, v, present, start)
        k_b, v_b, there_b, start_b = (reach(in_blocks(x), f, causal) for x, f in zip(near, front, strict=True))
        allowed = there_b[:, :, None] & (in_blocks(start)[..., None] == start_b[:, :, None])
    columns = k_b.shape[2]
    if causal:
        past = jnp.asarray(np.arange(columns)[None] - before <= np.arange(S)[:, None])[None, None]
        allowed = past if allowed is None else allowed & past
    scores = jnp.einsum("bnqz,bnkz->bnqk", in_blocks(q), k_b)
    weights = _weights(scores, toeplitz(bias, S, columns, before)[None, None], allowed, function, q.shape[-1])
    o = jnp.einsum("bnqk,bnke->bnqe", weights, v_b).reshape(B, -1, v.shape[-1])[:, :L]
    if cache is None:
        return o, None
    if not endless:
        full = (position >= C) & (True if given.lengths is None else index < given.lengths[:, None])
        if not isinstance(full, jax.core.Tracer) and full.any():
            raise ValueError(f"the cache is full: it holds {C} samples")
        o = jnp.where(full[..., None], jnp.nan, o)
    return o, _moved(cache, k, v, present, position, given.lengths, C if endless else None)


def _moved(cache, k, v, present, position, lengths, C) -> Cache:
    """The cache after the valid samples."""
    (B, L), M = k.shape[:2], cache.k.shape[1]
    ends = jnp.full((B,), L, jnp.int32) if lengths is None else lengths.astype(jnp.int32)
    held = ends[:, None] + jnp.arange(M, dtype=jnp.int32)[None]

    def last(old: Array, new: Array) -> Array:
        whole = jnp.concatenate([old, new], 1)
        return jnp.take_along_axis(whole, held.reshape(*held.shape, *(1,) * (whole.ndim - 2)), axis=1)

    final = jnp.take_along_axis(jnp.broadcast_to(position, (B, L)), jnp.maximum(ends - 1, 0)[:, None], axis=1)[:, 0] + 1
    filled = jnp.where(ends > 0, final % C if C else final, cache.filled)
    return Cache(last(cache.k, k), last(cache.v, v), last(cache.present, present), filled)


def blocks(x: Array, size: int) -> Array:
    """(B, L, ...) to (B, blocks, size, ...), filled up with zeros."""
    missing = -x.shape[1] % size
    x = jnp.pad(x, ((0, 0), (0, missing), *((0, 0),) * (x.ndim - 2))) if missing else x
    return x.reshape(x.shape[0], -1, size, *x.shape[2:])


def reach(x: Array, front: Array | None, causal: bool) -> Array:
    """Blocks together with the block before each and, if not causal, the block after it; `front` is before the first.
    Zeros where there is none."""
    if x.shape[1] == 1:
        return x if front is None else jnp.concatenate([front[:, None], x], 2)
    none = jnp.zeros_like(x[:, :1])
    parts = [jnp.concatenate([none if front is None else front[:, None], x[:, :-1]], 1), x]
    parts += [] if causal else [jnp.concatenate([x[:, 1:], none], 1)]
    return jnp.concatenate(parts, 2)


def toeplitz(
    bias: Float[Array, " distances"], rows: int, columns: int, before: int
) -> Float[Array, "{rows} {columns}"]:
    """b(c - before - r) in row r and column c; 0 for distances that `bias` does not have."""
    reach = len(bias) // 2
    low, high = 1 - rows - before, columns - 1 - before  # the distances that occur
    inside = bias[max(0, low + reach) : reach + min(high, reach) + 1]
    line = jnp.pad(inside, (max(0, -reach - low), max(0, high - reach)))
    size = rows + columns  # with one element more than there are distances, each row is that before it, moved by one
    tiled = jnp.tile(jnp.pad(line, (0, 1)), rows)[: rows * (size - 1)]
    return tiled.reshape(rows, size - 1)[:, rows - 1 :]


def _weights(scores, bias, allowed, function: Function, Z: int) -> Float[Array, "B n q k"]:
    if function == "softmax":
        logits = scores / math.sqrt(Z) + bias
        if allowed is None:
            return jax.nn.softmax(logits, -1)
        return jnp.where(allowed, jax.nn.softmax(jnp.where(allowed, logits, -1e30), -1), 0)
    count = scores.shape[-1]
    if allowed is not None:
        count = jnp.maximum(allowed.sum(-1, keepdims=True, dtype=jnp.int32), 1).astype(scores.dtype)
    s = scores / count + bias
    if function == "laplace":
        weights = 0.5 * (1 + erf((s - 0.707107) / (0.282095 * math.sqrt(2))))
    else:
        weights = jnp.square(jax.nn.relu(s))
    return weights if allowed is None else jnp.where(allowed, weights, 0)
