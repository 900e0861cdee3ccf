"""One label a pair of documents (the Retrieval task of the Long Range Arena, arXiv 2011.04006, section 2.3)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from s5jax.models.layers import Options, pool
from s5jax.models.stack import Recurrence, Stack, StackState
from s5jax.ssm.parameters import StepRescale

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
        step_rescale: StepRescale = 1.0,
    ) -> Float[Array, "B classes"]:
        """Logits; arguments as for `Classifier`, lengths (B, 2) and `step_rescale`, if not one number, (B, 2, L)."""
        lengths, step_rescale = _merge(lengths), _merge(step_rescale)
        x = self.encoder(_merge(inputs), lengths, train=train, key=key, step_rescale=step_rescale)
        return self._decode(pool(x, lengths, self.pooling))

    def _decode(self, documents: Float[Array, "documents H"]) -> Float[Array, "B classes"]:
        return self.decoder(documents.reshape(-1, 2, documents.shape[1]))

    def initial_state(self, batch_size: int) -> StackState:
        """Of a causal model that has read nothing yet of `batch_size` pairs."""
        return self.encoder.initial_state(2 * batch_size)

    def prefill(
        self,
        state: StackState,
        inputs: Shaped[Array, "B 2 L ..."],
        lengths: Int[Array, "B 2"] | None = None,
        *,
        step_rescale: StepRescale = 1.0,
    ) -> tuple[StackState, Float[Array, "B classes"]]:
        """As for `Classifier`, of both documents."""
        state, pooled = self.encoder.prefill(state, _merge(inputs), _merge(lengths), step_rescale=_merge(step_rescale))
        return state, self._decode(pooled)

    def recurrence(self, step_rescale: StepRescale = 1.0) -> Recurrence:
        """As for `Classifier`, with a factor on the step sizes, (B, 2) or one for all."""
        return self.encoder.recurrence(_merge(step_rescale))

    def step(
        self,
        state: StackState,
        inputs: Shaped[Array, "B 2 ..."],
        recurrence: Recurrence | None = None,
        *,
        step_rescale: StepRescale | None = None,
    ) -> tuple[StackState, Float[Array, "B classes"]]:
        """As for `Classifier`: one sample of both documents."""
        state, pooled = self.encoder.step(state, _merge(inputs), recurrence, step_rescale=_merge(step_rescale))
        return state, self._decode(pooled)

    def rollout(
        self, state: StackState, inputs: Shaped[Array, "B 2 L ..."], recurrence: Recurrence | None = None
    ) -> tuple[StackState, Float[Array, "B L classes"]]:
        """As for `Classifier`, of both documents."""
        state, pooled = self.encoder.rollout(state, _merge(inputs), recurrence)
        return state, jax.vmap(self._decode, 1, 1)(pooled)


def _merge(x: Any) -> Any:
    """The axes (B, 2) of an array as one; what has none stays as it is."""
    return x if x is None or jnp.ndim(x) == 0 else x.reshape(-1, *x.shape[2:])
