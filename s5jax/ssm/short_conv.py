"""Causal convolution of each feature with W taps, computed as a sum of W shifted sequences.

    y_k = sum_{l < W} K_l u_{k-l}

Inputs before a reset do not count. The state is the last W - 1 inputs; `window` has the functions `init_state` and
`step` for it, and a convolution for long kernels.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer

from s5jax.ssm.window import State


def apply(
    K: Float[Array, "H W"],
    u: Float[Array, "B L H"],
    lengths: Integer[Array, " B"] | None = None,
    starts: Bool[Array, "B L"] | None = None,
    state: State | None = None,
) -> tuple[Float[Array, "B L H"], State | None]:
    """The outputs, and the state after the last valid step if one is given. u is zero in the padding; `starts` is true
    at valid steps where a new sequence starts, see `Sequences.starts`."""
    (B, L, H), W = u.shape, K.shape[1]
    u = u.astype(K.dtype)
    whole = jnp.concatenate([jnp.zeros((B, W - 1, H), K.dtype) if state is None else state, u], axis=1)
    number = None
    if starts is not None:
        number = jnp.pad(jnp.cumsum(starts, axis=1, dtype=jnp.int32), ((0, 0), (W - 1, 0)))
    y = jnp.zeros_like(u)
    for lag in range(W):
        piece = whole[:, W - 1 - lag : W - 1 - lag + L]
        if number is not None and lag:
            same = number[:, W - 1 - lag : W - 1 - lag + L] == number[:, W - 1 :]
            piece = jnp.where(same[..., None], piece, 0)
        y = y + jnp.broadcast_to(K[:, lag], piece.shape) * piece
    if state is None:
        return y, None
    ends = jnp.full((B,), L, jnp.int32) if lengths is None else lengths.astype(jnp.int32)
    last = ends[:, None] + jnp.arange(W - 1, dtype=jnp.int32)[None]
    kept = jnp.take_along_axis(whole, last[..., None], axis=1)
    if number is not None:
        at, of_last = (jnp.take_along_axis(number, i, axis=1) for i in (last, ends[:, None] + W - 2))
        kept = jnp.where((at == of_last)[..., None], kept, 0)
    return y, kept
