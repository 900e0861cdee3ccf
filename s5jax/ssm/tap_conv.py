"""Causal convolution with few taps, summed tap by tap, for sequences in a row.

    y_k = sum_{l < W} K_l u_{k-dl}    over the lags l for which k - dl is in the same sequence as k

with a dilation d, by default 1. `window` computes the same by FFT, which is faster if W is large, but without dilation
and for one sequence per row only. States are those of `window`: the last d (W - 1) inputs.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer

State = Float[Array, "B past H"]


UNROLLED = 8
"""Largest number of taps that are written out one by one; more are a loop that recomputes its terms backwards."""


def apply(
    K: Float[Array, "H W"],
    u: Float[Array, "B L H"],
    lengths: Integer[Array, " B"] | None = None,
    state: State | None = None,
    *,
    starts: Bool[Array, "B L"] | None = None,
    dilation: int = 1,
) -> tuple[Float[Array, "B L H"], State | None]:
    """The outputs, and the state after the last valid step if one is given. u is zero in the padding; `starts` is true
    at valid steps where a new sequence starts, see `Sequences.starts`."""
    (B, L, _), W = u.shape, K.shape[1]
    span = dilation * (W - 1)
    past = jnp.zeros((B, span, K.shape[0]), K.dtype) if state is None else state
    u = jnp.concatenate([past, u.astype(K.dtype)], axis=1)
    which = None  # index of the sequence of each sample
    if starts is not None:
        which = jnp.pad(jnp.cumsum(starts, axis=1, dtype=jnp.int32), ((0, 0), (span, 0)))

    def added(y: Array, lag: Array | int) -> Array:
        def at(x: Array) -> Array:
            return jax.lax.dynamic_slice_in_dim(x, span - dilation * lag, L, axis=1)

        term = K[:, lag][None, None] * at(u)
        return y + (term if which is None else jnp.where((at(which) == which[:, span:])[..., None], term, 0))

    y = jnp.zeros_like(u[:, span:])
    if W <= UNROLLED:
        for lag in range(W):
            y = added(y, lag)
    else:
        lags = jnp.arange(W, dtype=jnp.int32)
        y, _ = jax.lax.scan(jax.checkpoint(lambda y, lag: (added(y, lag), None)), y, lags)
    if state is None:
        return y, None
    ends = jnp.full((B,), L, jnp.int32) if lengths is None else lengths.astype(jnp.int32)
    window = ends[:, None] + jnp.arange(span, dtype=jnp.int32)[None]
    last = jnp.take_along_axis(u, window[..., None], axis=1)
    if which is not None:
        same = jnp.take_along_axis(which, window, axis=1) == which.max(1, keepdims=True)
        last = jnp.where(same[..., None], last, 0)
    return y, last
