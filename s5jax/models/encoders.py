"""Encoders: from the inputs of a task, values (B, L, C) or token ids (B, L), to features (B, L, H)."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Shaped

from s5jax.models.options import Options
from s5jax.ssm.product import rows

__all__ = ["Encoder", "OneHot", "add_bias", "make_encoder"]


class OneHot(nnx.Linear):
    """A dense layer on one-hot vectors, computed by look-up in its kernel; an id out of range gives the bias alone."""

    def __call__(self, inputs: Shaped[Array, "B ..."], out_sharding: Any = None) -> Float[Array, "B ..."]:
        return add_bias(self, rows(self.kernel[...], inputs))


Encoder = nnx.Linear | nnx.Embed


def make_encoder(options: Options, input_size: int, rngs: nnx.Rngs) -> Encoder:
    """Makes the encoder of a model.

    Args:
      options: the options of the model.
      input_size: number of values per step, or of tokens.
      rngs: random keys, with a stream `params`.
    """
    kinds = {"dense": nnx.Linear, "one_hot": OneHot, "embedding": nnx.Embed}
    return kinds[options.encoder](input_size, options.d_model, rngs=rngs)


def add_bias(layer: nnx.Linear, y: Array) -> Array:
    """Adds the bias of a linear layer to its product y."""
    assert layer.bias is not None
    return y + jnp.broadcast_to(layer.bias[...], y.shape)
