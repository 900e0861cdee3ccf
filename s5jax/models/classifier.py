"""One label a sequence."""

from typing import Any

from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from s5jax.models.layers import Options, Stack, pool

__all__ = ["Classifier"]


class Classifier(nnx.Module):
    """Stack, pooling and a linear head: values (B, L, C) or token ids (B, L) to logits (B, num_classes)."""

    def __init__(self, options: Options, ssm: tuple[str, Any], input_size: int, num_classes: int, *, rngs: nnx.Rngs):
        self.pooling = options.pooling
        self.encoder = Stack(options, ssm, input_size, rngs=rngs)
        self.decoder = nnx.Linear(options.d_model, num_classes, rngs=rngs)

    def __call__(
        self,
        inputs: Shaped[Array, "B L ..."],
        lengths: Int[Array, " B"] | None = None,
        *,
        train: bool = False,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "B classes"]:
        """Logits.

        Args:
          inputs: values (B, L, C) or token ids (B, L).
          lengths: (B,), valid steps of each sequence; default: all are.
          train: normalise by the statistics of this batch, and update the running ones.
          key: of dropout; without it there is none.
        """
        x = self.encoder(inputs, lengths, train=train, key=key)
        return self.decoder(pool(x, lengths, self.pooling))
