"""Causal convolution with a kernel of W samples, whose state is the last W - 1 inputs.

    y_k = sum_{l < W} K_l u_{k-l}

For mixers that are given by their kernel. A step costs O(W).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from s5jax.ssm import fft_conv
from s5jax.ssm.sequence import Flags

State = Float[Array, "B W-1 H"]


def init_state(batch: int, K: Float[Array, "H W"]) -> State:
    """Inputs of zero before the first one."""
    return jnp.zeros((batch, K.shape[1] - 1, K.shape[0]), K.dtype)


def apply(
    K: Float[Array, "H W"],
    u: Float[Array, "B L H"],
    lengths: Integer[Array, " B"] | None = None,
    state: State | None = None,
    *,
    plain: bool = False,
) -> tuple[Float[Array, "B L H"], State | None]:
    """The outputs, and the state after the last valid step if one is given. u is zero in the padding; `plain` as in
    `fft_conv.convolve`."""
    (B, L, _), W = u.shape, K.shape[1]
    u = u.astype(K.dtype)
    if state is None:
        return fft_conv.convolve(u, K[None, :, :L], plain=plain), None
    u = jnp.concatenate([state, u], axis=1)
    y = fft_conv.convolve(u, K[None, :, : L + W - 1], plain=plain)[:, W - 1 :]
    ends = jnp.full((B,), L, jnp.int32) if lengths is None else lengths.astype(jnp.int32)
    last = ends[:, None] + jnp.arange(W - 1, dtype=jnp.int32)[None]
    return y, jnp.take_along_axis(u, last[..., None], axis=1)


def step(
    K: Float[Array, "*batch H W"], state: State, u_k: Float[Array, "B H"], *, reset: Flags = None
) -> tuple[Float[Array, "B H"], State]:
    """One sample: y_k and the next state; K may be that of each sequence. Where `reset` is true, earlier inputs do not
    count."""
    u_k = u_k.astype(K.dtype)
    state = state if reset is None else jnp.where(reset[:, None, None], 0, state)
    u = jnp.concatenate([state, u_k[:, None]], axis=1)
    K = jnp.broadcast_to(K[..., ::-1], (u.shape[0], *K.shape[-2:]))
    return jnp.einsum("blh,bhl->bh", u, K), u[:, 1:]
