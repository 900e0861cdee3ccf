"""Linear attention: sums of values weighted by q . k without a softmax, in time proportional to L.

    y_k = sum_i (q_k . k_i) v_i = S_k^T q_k,    S_k = sum_i k_i v_i^T

i runs over the samples of the same sequence, or over those up to k (Katharopoulos, Vyas, Pappas, Fleuret 2020, arXiv
2006.16236, equations 6 and 18). The causal sums are computed in blocks of `BLOCK` samples: within a block from all
pairs, and from S at its start.
"""

import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim
from jaxtyping import Array, Float, Integer

BLOCK = 64

Heads = Float[Array, "B L heads D"]
State = Float[Array, "B heads D E"]


def attend(
    q: Heads,
    k: Heads,
    v: Float[Array, "B L heads E"],
    *,
    sequence: Integer[Array, "B L"] | None = None,
    causal: bool = True,
    state: State | None = None,
) -> tuple[Float[Array, "B L heads E"], State | None]:
    """y, and S after the last sample if `state`, the S of earlier samples, is given. Samples with a key of zero do not
    count.

    `sequence`: the number of resets so far in the row, see `positions.places`; `state` belongs to sequence 0. Default:
    each row is one sequence. If not causal, there is no state.
    """
    if causal:
        return _causal(q, k, v, sequence, state)
    if sequence is None:
        return jnp.einsum("blhd,bhde->blhe", q, jnp.einsum("blhd,blhe->bhde", k, v)), None
    y, _ = _causal(q, k, v, sequence, None)
    q, k, v, sequence = (z[:, ::-1] for z in (q, k, v, sequence))
    return y + _causal(q, k, v, sequence, None, strict=True)[0][:, ::-1], None


def _causal(q, k, v, sequence, state, strict=False):
    """`attend` for i <= k or, with `strict`, i < k."""
    B, L, heads, D = k.shape
    size = BLOCK if is_symbolic_dim(L) else min(BLOCK, L)
    blocks = -(-L // size)

    def split(z):
        widths = ((0, 0), (0, blocks * size - L), *((0, 0),) * (z.ndim - 2))
        z = jnp.pad(z, widths, mode="constant" if z.ndim > 2 else "edge")  # labels go on
        return z.reshape(B, blocks, size, *z.shape[2:])

    q, k, v = split(q), split(k), split(v)
    seen = jnp.tril(jnp.ones((size, size), bool), -1 if strict else 0)[None, None]
    start = jnp.zeros((B, heads, D, v.shape[-1]), v.dtype) if state is None else state
    into, onward, through = q, k, None  # queries that see S at the start of the block, keys in S at its end
    if sequence is not None:
        label = split(sequence)
        last = label[:, :, -1]
        first = jnp.zeros_like(last[:, :1]) if not strict else label[:, 0, :1]
        before = jnp.concatenate([first, last[:, :-1]], 1)
        seen = seen & (label[..., None] == label[:, :, None])
        into = jnp.where((label == before[..., None])[..., None, None], q, 0)
        onward = jnp.where((label == last[..., None])[..., None, None], k, 0)
        through = (last == before).T
    weights = jnp.where(seen[:, :, None], jnp.einsum("bgihd,bgjhd->bghij", q, k), 0)
    y = jnp.einsum("bghij,bgjhe->bgihe", weights, v)
    added = jnp.einsum("bgjhd,bgjhe->gbhde", onward, v)

    def advance(S, block):
        U, goes_on = block
        kept = S if goes_on is None else jnp.where(goes_on[:, None, None, None], S, 0)
        return kept + U, S

    end, starts = jax.lax.scan(advance, start, (added, through))
    if is_symbolic_dim(L) or blocks > 1 or state is not None:
        y = y + jnp.einsum("bgihd,gbhde->bgihe", into, starts)
    return y.reshape(B, blocks * size, heads, -1)[:, :L], None if state is None else end
