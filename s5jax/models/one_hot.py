"""The encoder of token ids as one-hot vectors."""

from typing import Any

from flax import nnx
from jaxtyping import Array, Float, Shaped

from s5jax.models.encoders import add_bias
from s5jax.ssm.rows import rows

__all__ = ["OneHot"]


class OneHot(nnx.Linear):
    """A dense layer on one-hot vectors, computed by look-up in its kernel; an id out of range gives the bias alone."""

    def __call__(self, inputs: Shaped[Array, "B ..."], out_sharding: Any = None) -> Float[Array, "B ..."]:
        return add_bias(self, rows(self.kernel[...], inputs))
