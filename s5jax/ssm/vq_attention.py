"""Softmax attention on quantised keys, in time that grows linearly with the length (Lingle 2023, arXiv 2309.16354).

    o_i = sum_j w_ij v_j / sum_j w_ij,    w_ij = exp(q_i . c(k_j) / sqrt(Z) + b(j - i)),    b(d) = 0 where |d| >= C

c(k) is the code nearest to k. j runs over the samples of i's sequence that are not missing and, if causal, not after i.
All samples with the same code that are far, |j - i| >= C, have the same weight: the sums of their values, one per code,
are enough. If there is no sample to attend to, o_i is zero.

Gradients of w_ij pass through the quantisation to k_j (straight-through) where sample j is near; far samples' codes are
constants. Letters: Z features of keys, E of values, S codes; blocks of C samples.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.export import register_namedtuple_serialization
from jaxtyping import Array, Bool, Float, Integer

from s5jax.ssm.chunk_attention import blocks, reach, toeplitz
from s5jax.ssm.sequence import Sequences, reset_state


class Memory(NamedTuple):
    """The last C samples of a sequence, quantised, and the sums of all samples before them by code."""

    k: Float[Array, "B C Z"]
    v: Float[Array, "B C E"]
    code: Integer[Array, "B C"]
    present: Bool[Array, "B C"]
    sums: Float[Array, "B S E1"]
    """Sums of values, and last the number of samples."""


register_namedtuple_serialization(Memory, serialized_name="s5jax.ssm.vq_attention.Memory")


def init_memory(batch: int, C: int, S: int, Z: int, E: int, dtype: jnp.dtype) -> Memory:
    """A memory without samples."""
    k, v, sums = (jnp.zeros((batch, *shape), dtype) for shape in ((C, Z), (C, E), (S, E + 1)))
    return Memory(k, v, jnp.zeros((batch, C), jnp.int32), jnp.zeros((batch, C), bool), sums)


def nearest(k: Float[Array, "*batch Z"], codes: Float[Array, "S Z"]) -> Integer[Array, "*batch"]:
    """The index of the code nearest to each key."""
    k, codes = jax.lax.stop_gradient((k, codes))
    product = jnp.einsum("...z,sz->...s", k, codes, precision="highest")
    distance = jnp.broadcast_to(jnp.sum(codes**2, -1), product.shape) - 2 * product
    return jnp.argmin(distance, -1).astype(jnp.int32)


def moved(
    codes: Float[Array, "S Z"],
    weight: Float[Array, " S"],
    k: Float[Array, "B L Z"],
    counted: Bool[Array, "B L"] | None,
    decay: float,
) -> tuple[Float[Array, "S Z"], Float[Array, " S"]]:
    """Codes and their weights after a batch: the moving averages of the keys nearest to each, and of their number."""
    one = _one_hot(nearest(k, codes), len(codes), counted, k.dtype)
    k = jax.lax.stop_gradient(k if counted is None else jnp.where(counted[..., None], k, 0))
    number, total = one.sum((0, 1)), jnp.einsum("bls,blz->sz", one, k)
    weight = decay * weight + (1 - decay) * number
    share = (1 - decay) / jnp.maximum(weight, 1e-20)
    return codes + share[:, None] * (total - number[:, None] * codes), weight


def attend(
    q: Float[Array, "B L Z"],
    k: Float[Array, "B L Z"],
    v: Float[Array, "B L E"],
    bias: Float[Array, " distances"],
    codes: Float[Array, "S Z"],
    given: Sequences,
    memory: Memory | None = None,
    *,
    causal: bool,
) -> tuple[Float[Array, "B L E"], Memory | None]:
    """o, and the memory after the last valid sample if one was given. `bias` is b(d) for d = 1 - C .. C - 1."""
    (B, L, _), C, S, starts = q.shape, (len(bias) + 1) // 2, len(codes), given.starts(q.shape[1])
    if memory is not None:
        clean = {n: reset_state(getattr(memory, n), given.reset, given.lengths) for n in ("k", "v", "sums")}
        memory = memory._replace(**clean)
    size, scale = min(C, L), 1 / math.sqrt(q.shape[-1])
    code, present = nearest(k, codes), given.counted(L)
    k = k + jax.lax.stop_gradient(codes[code] - k)
    present = jnp.broadcast_to(True if present is None else present, (B, L))
    which = jnp.zeros((B, L), jnp.int32) if starts is None else jnp.cumsum(starts, 1, dtype=jnp.int32)
    front = init_memory(B, C, S, q.shape[2], v.shape[2], k.dtype) if memory is None and L > C else memory
    filled = jnp.pad(which, ((0, 0), (0, -L % size)), mode="edge")
    q_b, code_b, there_b, v_b, which_b = (blocks(x, size) for x in (q, code, present, v, filled))
    first = [None] * 4 if front is None else [front.k, front.v, front.present, jnp.zeros((B, C), jnp.int32)]
    around = (reach(x, x_0, causal) for x, x_0 in zip((blocks(k, size), v_b, there_b, which_b), first, strict=True))
    k_n, v_n, there_n, which_n = around

    before = 0 if front is None else C
    distance = np.arange(k_n.shape[2])[None] - before - np.arange(size)[:, None]
    allowed = there_n[:, :, None] & (which_b[..., None] == which_n[:, :, None])
    allowed = allowed & jnp.asarray(distance <= 0)[None, None] if causal else allowed
    logits = jnp.einsum("bnqz,bnkz->bnqk", q_b, k_n)
    if (near := np.abs(distance) < C).sum() < near.size:
        constant = jnp.einsum("bnqz,bnkz->bnqk", q_b, jax.lax.stop_gradient(k_n))
        logits = jnp.where(jnp.asarray(near)[None, None], logits, constant)
    logits = scale * logits + toeplitz(bias, size, k_n.shape[2], before)[None, None]
    parts = [(logits, allowed, _with_one(v_n))]
    if front is not None:
        of_codes, one, v_b = (
            scale * jnp.einsum("bnqz,sz->bnqs", q_b, codes),
            _one_hot(code_b, S, there_b, v.dtype),
            _with_one(v_b),
        )
        held = jnp.einsum("bcs,bce->bse", _one_hot(front.code, S, front.present, v.dtype), _with_one(front.v))
        far = [_far(front.sums, held, one, v_b, which_b)]
        if not causal:
            turned = (x[:, ::-1, ::-1] for x in (one, v_b, which_b))
            sums, same = _far(jnp.zeros_like(front.sums), jnp.zeros_like(held), *turned)
            far += [(sums[:, ::-1], same[:, ::-1, ::-1])]
            far = [(far[0][0] + far[1][0], same)] if starts is None else far  # one sequence: the sums of both sides
        parts += [(of_codes, same[..., None] & (sums[..., -1] > 0)[:, :, None], sums) for sums, same in far]
    o = _combined(parts).reshape(B, -1, v.shape[-1])[:, :L]
    return o, None if memory is None else _moved_memory(memory, k, v, code, present, which, given.lengths)


def _far(
    sums: Float[Array, "B S E1"],
    held: Float[Array, "B S E1"],
    one: Float[Array, "B n C S"],
    v: Float[Array, "B n C E1"],
    which: Integer[Array, "B n C"],
) -> tuple[Float[Array, "B n S E1"], Bool[Array, "B n C"]]:
    """For each block the sums over the samples of a sequence up to the block before the last one, and which queries are
    in that sequence. In front of the first block are two, of sequence 0: one with `held`, and before it `sums`."""
    last = which[:, :, -1]
    before = jnp.concatenate([jnp.zeros_like(last[:, :1]), last[:, :-1]], 1)
    own = jnp.einsum("bncs,bnce->nbse", jnp.where((which == last[..., None])[..., None], one, 0), v)
    goes_on = (last == before).T[..., None, None]

    def add(total: Array, block: tuple[Array, Array]) -> tuple[Array, Array]:
        own, goes_on = block
        return (after := own + jnp.where(goes_on, total, 0)), after

    _, totals = jax.lax.scan(add, sums + held, (own[:-2], goes_on[:-2]))
    totals = jnp.concatenate([jnp.stack([sums, sums + held]), totals])[: which.shape[1]]
    of = jnp.pad(last, ((0, 0), (2, 0)))[:, :-2]
    return jnp.swapaxes(totals, 0, 1), which == of[..., None]


def _combined(parts: list[tuple[Array, Array, Array]]) -> Float[Array, "B n C E"]:
    """The weighted mean of the values of all parts: logits, where they count, and values with a one behind."""
    logits = [jnp.where(allowed, logits, -1e30) for logits, allowed, _ in parts]
    largest = jax.lax.stop_gradient(jnp.concatenate([x.max(-1, keepdims=True) for x in logits], -1)).max(-1)[..., None]
    total = jnp.zeros((), logits[0].dtype)
    for x, (_, allowed, v) in zip(logits, parts, strict=True):
        total = total + jnp.einsum("bnqk,bnke->bnqe", jnp.where(allowed, jnp.exp(x - largest), 0), v)
    return total[..., :-1] / jnp.where(total[..., -1:] > 0, total[..., -1:], 1)


def _moved_memory(memory, k, v, code, present, which, lengths) -> Memory:
    """The memory after the valid samples: those that leave the last C are added to the sums."""
    (B, L), C = code.shape, memory.code.shape[1]
    ends = jnp.full((B,), L, jnp.int32) if lengths is None else lengths.astype(jnp.int32)
    final = jnp.take_along_axis(which, jnp.maximum(ends - 1, 0)[:, None], axis=1)
    final = jnp.where(ends[:, None] > 0, final, 0)
    new = (k, v, code, present & (which == final))
    old = (memory.k, memory.v, memory.code, memory.present & (final == 0))
    k, v, code, present = (jnp.concatenate(pair, 1) for pair in zip(old, new, strict=True))
    left = present & (jnp.arange(C + L, dtype=jnp.int32)[None] < ends[:, None])
    added = jnp.einsum("bls,ble->bse", _one_hot(code, memory.sums.shape[1], left, v.dtype), _with_one(v))
    held = ends[:, None] + jnp.arange(C, dtype=jnp.int32)[None]
    k, v, code, present = (
        jnp.take_along_axis(x, held[..., None] if x.ndim == 3 else held, axis=1) for x in (k, v, code, present)
    )
    return Memory(k, v, code, present, jnp.where(final[..., None] == 0, memory.sums, 0) + added)


def _one_hot(code: Array, S: int, counted: Array | None, dtype: jnp.dtype) -> Array:
    one = jax.nn.one_hot(code, S, dtype=dtype)
    return one if counted is None else jnp.where(counted[..., None], one, 0)


def _with_one(v: Float[Array, "*batch E"]) -> Float[Array, "*batch E1"]:
    """Values with a one behind, whose weighted sum is the sum of the weights."""
    return jnp.concatenate([v, jnp.ones_like(v[..., :1])], -1)
