"""One label a sequence."""

from typing import Any

from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from s5jax.models.layers import Options, pool
from s5jax.models.stack import Recurrence, Stack, StackState
from s5jax.ssm.parameters import StepRescale

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
        step_rescale: StepRescale = 1.0,
    ) -> Float[Array, "B classes"]:
        """Logits.

        Args:
          inputs: values (B, L, C) or token ids (B, L).
          lengths: (B,), valid steps of each sequence; default: all are.
          train: normalise by the statistics of this batch, and update the running ones.
          key: of dropout; without it there is none.
          step_rescale: factor on the step sizes of all SSMs, 2 for inputs at half the rate of training; for s5 and s4d
            also one for each step, (B, L).
        """
        x = self.encoder(inputs, lengths, train=train, key=key, step_rescale=step_rescale)
        return self.decoder(pool(x, lengths, self.pooling))

    def initial_state(self, batch_size: int) -> StackState:
        """Of a causal model that has read nothing yet."""
        return self.encoder.initial_state(batch_size)

    def prefill(
        self,
        state: StackState,
        inputs: Shaped[Array, "B L ..."],
        lengths: Int[Array, " B"] | None = None,
        *,
        step_rescale: StepRescale = 1.0,
    ) -> tuple[StackState, Float[Array, "B classes"]]:
        """Reads on from a state, all samples at once: the state after the last valid one, and the logits there.

        Raises:
          ValueError: the SSMs read in both directions.
        """
        state, pooled = self.encoder.prefill(state, inputs, lengths, step_rescale=step_rescale)
        return state, self.decoder(pooled)

    def recurrence(self, step_rescale: StepRescale = 1.0) -> Recurrence:
        """What `step` and `rollout` need of the blocks, with a factor on the step sizes, (B,) or one for all.

        Raises:
          ValueError: the SSMs read in both directions.
        """
        return self.encoder.recurrence(step_rescale)

    def step(
        self,
        state: StackState,
        inputs: Shaped[Array, "B ..."],
        recurrence: Recurrence | None = None,
        *,
        step_rescale: StepRescale | None = None,
    ) -> tuple[StackState, Float[Array, "B classes"]]:
        """Reads one sample, values (B, C) or token ids (B,): the next state, and the logits of all read so far.

        Args:
          recurrence: as from `recurrence`. Without it, it is computed, which takes longer than the step itself.
          step_rescale: as for `recurrence`, where that is to be computed, as for samples that come irregularly.
        """
        state, pooled = self.encoder.step(state, inputs, recurrence, step_rescale=step_rescale)
        return state, self.decoder(pooled)

    def rollout(
        self, state: StackState, inputs: Shaped[Array, "B L ..."], recurrence: Recurrence | None = None
    ) -> tuple[StackState, Float[Array, "B L classes"]]:
        """Steps through samples in one compiled loop: the state after the last, and the logits after each."""
        state, pooled = self.encoder.rollout(state, inputs, recurrence)
        return state, self.decoder(pooled)
