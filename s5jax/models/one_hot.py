"""The encoder of token ids as one-hot vectors, computed by look-up."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Integer, Shaped

from s5jax.models.block import add_bias
from s5jax.ssm.product import grouped


class OneHot(nnx.Linear):
    """A dense layer on one-hot vectors; an id out of range gives NaN."""

    def __call__(self, inputs: Shaped[Array, "B ..."], out_sharding: Any = None) -> Float[Array, "B ..."]:
        return add_bias(self, rows(self.kernel[...], inputs))


@jax.custom_jvp
def rows(W: Float[Array, "H P"], k: Integer[Array, "*batch L"]) -> Float[Array, "*batch L P"]:
    """Rows k of W, the product of one-hot vectors and W; NaN where k is out of range."""
    k = k.astype(jnp.int32)  # a narrow integer type may not hold len(W)
    valid = (k >= 0) & (k < len(W))
    return jnp.where(valid[..., None], W[jnp.where(valid, k, 0)], jnp.nan)


@rows.defjvp
def _rows_jvp(primals: tuple[Array, Array], tangents: tuple) -> tuple[Array, Array]:
    (W, k), (dW, _) = primals, tangents
    return rows(W, k), grouped(jax.nn.one_hot(k.astype(jnp.int32), len(W), dtype=W.dtype), dW)
