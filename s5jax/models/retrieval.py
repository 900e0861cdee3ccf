"""One label a pair of documents (the Retrieval task of the Long Range Arena, arXiv 2011.04006, section 2.3)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from s5jax.models.layers import Options, Stack, pool

__all__ = ["Retrieval"]


class Head(nnx.Module):
    """Of two documents e1, e2: layer2(gelu(layer1([e1, e2, e1 - e2, e1 e2])))."""

    def __init__(self, d_model: int, num_classes: int, *, rngs: nnx.Rngs):
        self.layer1 = nnx.Linear(4 * d_model, d_model, rngs=rngs)
        self.layer2 = nnx.Linear(d_model, num_classes, rngs=rngs)

    def __call__(self, documents: Float[Array, "B 2 H"]) -> Float[Array, "B classes"]:
        e1, e2 = documents[:, 0], documents[:, 1]
        return self.layer2(jax.nn.gelu(self.layer1(jnp.concatenate([e1, e2, e1 - e2, e1 * e2], axis=-1))))


class Retrieval(nnx.Module):
    """One stack reads both documents, in one batch of 2 B: inputs (B, 2, L[, C]) to logits (B, num_classes)."""

    def __init__(self, options: Options, ssm: tuple[str, Any], input_size: int, num_classes: int, *, rngs: nnx.Rngs):
        self.pooling = options.pooling
        self.encoder = Stack(options, ssm, input_size, rngs=rngs)
        self.decoder = Head(options.d_model, num_classes, rngs=rngs)

    def __call__(
        self,
        inputs: Shaped[Array, "B 2 L ..."],
        lengths: Int[Array, "B 2"] | None = None,
        *,
        train: bool = False,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "B classes"]:
        """Logits; arguments as for `Classifier`, lengths (B, 2)."""
        B = inputs.shape[0]
        flat_lengths = None if lengths is None else lengths.reshape(2 * B)
        x = self.encoder(inputs.reshape(2 * B, *inputs.shape[2:]), flat_lengths, train=train, key=key)
        return self.decoder(pool(x, flat_lengths, self.pooling).reshape(B, 2, -1))
