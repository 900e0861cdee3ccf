"""Encoders: from the inputs of a task, values (B, L, C) or token ids (B, L), to features (B, L, H)."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from s5jax.models.options import Options

__all__ = ["Encoder", "add_bias", "make_encoder"]


Encoder = nnx.Linear | nnx.Embed


def make_encoder(options: Options, input_size: int, rngs: nnx.Rngs) -> Encoder:
    """Makes the encoder of a model.

    Args:
      options: the options of the model.
      input_size: number of values per step, or of tokens.
      rngs: random keys, with a stream `params`.
    """
    if options.encoder == "one_hot":
        from s5jax.models.one_hot import OneHot

        return OneHot(input_size, options.d_model, rngs=rngs)
    kind = nnx.Linear if options.encoder == "dense" else nnx.Embed
    return kind(input_size, options.d_model, rngs=rngs)


def add_bias(layer: nnx.Linear, y: Array) -> Array:
    """Adds the bias of a linear layer to its product y."""
    assert layer.bias is not None
    return y + jnp.broadcast_to(layer.bias[...], y.shape)
