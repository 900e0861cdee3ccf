"""State space duality: a system with one decay for each head and step, computed chunk by chunk with matrix products
(Dao, Gu 2024, arXiv 2405.21060).

    h_k = exp(a_k) h_{k-1} + x_k B_k^T,    y_k = h_k C_k    in each head, h (P, N)

Inside a chunk y_i = sum_{j <= i} exp(a_{j+1} + .. + a_i) (C_i . B_j) x_j. The states at the ends of chunks follow from
a scan over the chunks. The sums of a are not differences of running sums, which would cancel.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from s5jax.ssm.diagonal_scan import diagonal_scan
from s5jax.ssm.parameters import with_rank

BLOCK = 64
"""Steps in a chunk."""


def ssd(
    x: Float[Array, "B L heads P"],
    a: Float[Array, "B L heads"],
    B: Float[Array, "B L G N"],
    C: Float[Array, "B L G N"],
    *,
    reset: Bool[Array, "B L"] | None = None,
    state: Float[Array, "B heads P N"] | None = None,
    block: int = BLOCK,
    scan_method: str = "auto",
) -> tuple[Float[Array, "B L heads P"], Float[Array, "B heads P N"]]:
    """The outputs, and the state after the last step.

    Args:
      x: inputs, already multiplied by their step sizes.
      a: logs of the decays, step sizes included; 0 keeps the state.
      B, C: G groups of heads / G successive heads share them.
      reset: true where a new sequence starts.
      state: before the first step, default zero.
      block: steps in a chunk, any L is allowed.
      scan_method: method of the scan over chunks, see `ssm.scan`; only "plain" supports forward mode.

    Raises:
      ValueError: L = 0, or G does not divide the heads.
    """
    (batch, L, heads, P), (G, N) = x.shape, B.shape[2:]
    if L == 0:
        raise ValueError("a sequence must have at least one step, got length 0")
    if heads % G:
        raise ValueError(f"groups of B and C must divide {heads} heads, got {G}")
    T = min(block, L)
    chunks, M = -(-L // T), heads // G

    def cut(v: Array, *shape: int) -> Array:
        v = jnp.pad(v, ((0, 0), (0, chunks * T - L), *((0, 0),) * (v.ndim - 2)))
        return v.reshape(batch, chunks, T, *shape)

    x, a, B, C = cut(x, G, M, P), cut(a, G, M), cut(B, G, N), cut(C, G, N)
    number = None if reset is None else jnp.cumsum(cut(reset), axis=2, dtype=jnp.int32)
    decay = _decays(a, number)  # (B, chunks, G, M, T, T), from step j to step i
    weights = jnp.einsum("bcign,bcjgn->bcgij", C, B)[:, :, :, None] * decay
    y = jnp.einsum("bcgmij,bcjgmp->bcigmp", weights, x)

    to_end = jnp.moveaxis(decay[..., -1, :], -1, 2)
    own = jnp.einsum("bcjgmp,bcjgn->bcgmpn", x * to_end[..., None], B).reshape(batch, chunks, -1)
    from_start = jnp.exp(jnp.cumsum(a, axis=2))
    if number is not None:
        from_start = jnp.where((number == 0)[..., None, None], from_start, 0)
    across = jnp.broadcast_to(from_start[:, :, -1, ..., None], (batch, chunks, G, M, P * N)).reshape(own.shape)
    start = jnp.zeros_like(own[:, 0]) if state is None else state.reshape(batch, -1)
    ends, last = diagonal_scan(across, own, initial_state=start, method=scan_method)
    before = jnp.concatenate([start[:, None], ends[:, :-1]], axis=1).reshape(batch, chunks, G, M, P, N)
    y = y + jnp.einsum("bcign,bcgmpn->bcigmp", C, before) * from_start[..., None]
    return y.reshape(batch, chunks * T, heads, P)[:, :L], last.reshape(batch, heads, P, N)


def _decays(a: Float[Array, "B c T G M"], number: Any) -> Float[Array, "B c G M T T"]:
    """exp(a_{j+1} + .. + a_i) at [i, j], 0 for j > i and where a sequence starts between j and i."""
    T = a.shape[2]
    a = jnp.moveaxis(a, 2, -1)
    up_to = jnp.tril(jnp.ones((T, T), a.dtype))
    # Row i of the second factor is a_i at j < i.
    later = with_rank(jnp.tril(jnp.ones((T, T), bool), -1), a.ndim + 1)
    sums = jnp.matmul(up_to, jnp.where(later, a[..., None], 0), precision="highest")
    reached = with_rank(up_to > 0, a.ndim + 1)
    if number is not None:
        reached = reached & (number[..., :, None] == number[..., None, :])[:, :, None, None]
    return jnp.where(reached, jnp.exp(sums), 0)
