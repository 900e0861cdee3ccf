"""Encoders: from a task's inputs to features."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Shaped

from s5jax.models.options import Options
from s5jax.ssm.product import rows

__all__ = ["Encoder", "OneHot", "add_bias", "make_encoder"]


class OneHot(nnx.Linear):
    """A dense layer on one-hot vectors, computed as rows of its kernel; zero for an id that does not exist."""

    def __call__(self, inputs: Shaped[Array, "B ..."], out_sharding: Any = None) -> Float[Array, "B ..."]:
        return add_bias(self, rows(self.kernel[...], inputs))


Encoder = nnx.Linear | nnx.Embed


def make_encoder(options: Options, input_size: int, rngs: nnx.Rngs) -> Encoder:
    """The encoder of a model.

    Args:
      options: of the model.
      input_size: values per step, or the number of tokens.
      rngs: with a stream `params`.
    """
    kinds = {"dense": nnx.Linear, "one_hot": OneHot, "embedding": nnx.Embed}
    return kinds[options.encoder](input_size, options.d_model, rngs=rngs)


def add_bias(layer: nnx.Linear, y: Array) -> Array:
    """What is left of a linear layer after its product."""
    assert layer.bias is not None
    return y + jnp.broadcast_to(layer.bias[...], y.shape)
