"""The head for pairs of documents."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from s5jax.models.heads import read_pooled
from s5jax.models.options import Options
from s5jax.models.recurrent import Pooled, empty_pool
from s5jax.ssm.sequence import Sequences


class PairHead(nnx.Module):
    """Outputs for pairs of documents: layer2(gelu(layer1([e1, e2, e1 - e2, e1 e2]))) (arXiv 2011.04006, section 2.3).

    e1 and e2 are the pooled features of the documents; one stack reads both, in one batch of 2 B sequences.
    """

    documents, per_step = 2, False

    def __init__(self, options: Options, outputs: int, *, rngs: nnx.Rngs):
        self.pooling, self.approximate = options.pooling, options.gelu == "tanh"
        self.layer1 = nnx.Linear(4 * options.d_model, options.d_model, rngs=rngs)
        self.layer2 = nnx.Linear(options.d_model, outputs, rngs=rngs)

    def fold(self, x: Any) -> Any:
        """Merges the axes (B, 2) into one; `None` and scalars are returned unchanged."""
        return x if x is None or jnp.ndim(x) == 0 else x.reshape(-1, *x.shape[2:])

    def read(self, x: Float[Array, "B2 L H"], sequences: Sequences, state: Any = None) -> tuple[Array, Any]:
        pooled, state = read_pooled(x, sequences, state, self.pooling)
        e1, e2 = jnp.moveaxis(pooled.reshape(-1, 2, pooled.shape[1]), 1, 0)
        features = jnp.concatenate([e1, e2, e1 - e2, e1 * e2], axis=-1)
        return self.layer2(jax.nn.gelu(self.layer1(features), approximate=self.approximate)), state

    def init_state(self, batch: int) -> Pooled:
        return empty_pool(2 * batch, self.layer1.out_features, self.layer1.kernel[...].dtype)
