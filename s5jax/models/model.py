"""A model: stack and head."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Integer, PRNGKeyArray, Shaped

from s5jax.models import heads
from s5jax.models.options import Options
from s5jax.models.sequences import Sequences
from s5jax.models.stack import Cells, Stack

__all__ = ["Model", "State"]


class State(NamedTuple):
    """All that a causal model remembers of the samples it has read."""

    mixers: tuple[Any, ...]
    """The state of each block's mixer."""
    head: Any
    """The features pooled so far; nothing for the head `step`."""


class Model(nnx.Module):
    """Values (B, L, C) or token ids (B, L) to outputs (B, outputs), or (B, L, outputs) with the head `step`.

    With the head `pair` all arrays have an axis of 2 documents after B. A model of causal mixers also runs in pieces,
    down to single samples: `init_state`, `prefill`, `step`, `rollout`.

    Args:
      options: the section `model` of a config.
      mixer_options: for each name in the pattern, the mixer and its options.
      input_size: C, or the number of tokens.
      outputs: numbers that come out.
      head: what they describe: a sequence, a pair of documents, or each step.
      length: steps that the model will be trained on; some mixers have parameters for each.
    """

    def __init__(
        self,
        options: Options,
        mixer_options: Mapping[str, tuple[str, Any]],
        input_size: int,
        outputs: int,
        *,
        head: heads.Kind = "sequence",
        length: int = 1,
        rngs: nnx.Rngs,
    ):
        self.encoder = Stack(options, mixer_options, input_size, length, rngs=rngs)
        self.decoder = heads.make_head(head, options, outputs, rngs)

    def __call__(
        self,
        inputs: Shaped[Array, "B ..."],
        lengths: Integer[Array, "B ..."] | None = None,
        *,
        mask: Bool[Array, "B ..."] | None = None,
        reset: Bool[Array, "B ..."] | None = None,
        rate: Float[Array, "..."] | float | None = None,
        train: bool = False,
        key: PRNGKeyArray | None = None,
        dropout: Float[Array, ""] | float | None = None,
    ) -> Float[Array, "B ..."]:
        """Outputs.

        Args:
          inputs: values or token ids.
          lengths: (B,), valid steps of each sequence; default: all are.
          mask: (B, L), true where a sample is missing.
          reset: (B, L), true where a new sequence starts.
          rate: factor on time, (), (B,) or (B, L): 2 for inputs at half the rate of training.
          train: normalise by the statistics of this batch, and update the running ones.
          key: of dropout; without it nothing is dropped.
          dropout: probability, instead of that of the options.
        """
        fold = self.decoder.fold
        sequences = Sequences(*map(fold, (lengths, mask, reset, rate)))
        x, _ = self.encoder(fold(inputs), sequences, train=train, key=key, dropout=dropout)
        return self.decoder.read(x, sequences)[0]

    def init_state(self, batch: int, *, max_length: int | None = None) -> State:
        """The state before anything is read, for a batch of sequences or pairs of documents.

        Mixers with a cache need `max_length`, the samples that will be read at most. A mixer that has no recurrent mode
        raises ValueError.
        """
        of_mixers = self.encoder.init_state(self.decoder.documents * batch, max_length=max_length)
        return State(of_mixers, self.decoder.init_state(batch))

    def prefill(
        self,
        state: State,
        inputs: Shaped[Array, "B ..."],
        lengths: Integer[Array, "B ..."] | None = None,
        **given: Any,
    ) -> tuple[Float[Array, "B ..."], State]:
        """Reads on from a state, all samples at once: the outputs for all that has been read, and the next state.

        `mask`, `reset`, `rate`, `train`, `key` and `dropout` as for a call; of some sequences there may be nothing to
        read, lengths 0.
        """
        fold = self.decoder.fold
        of_training = {name: given.pop(name) for name in ("train", "key", "dropout") if name in given}
        sequences = Sequences(fold(lengths), **{name: fold(value) for name, value in given.items()})
        x, of_mixers = self.encoder(fold(inputs), sequences, state=state.mixers, **of_training)
        outputs, of_head = self.decoder.read(x, sequences, state.head)
        assert of_mixers is not None
        return outputs, State(of_mixers, of_head)

    def discretize(self, rate: Float[Array, "..."] | float | None = None) -> Cells:
        """What `step` and `rollout` need of the blocks, with a factor on time, () or (B,)."""
        return self.encoder.discretize(self.decoder.fold(rate))

    def step(
        self,
        state: State,
        inputs: Shaped[Array, "B ..."],
        cells: Cells | None = None,
        *,
        mask: Bool[Array, "B ..."] | None = None,
        reset: Bool[Array, "B ..."] | None = None,
        rate: Float[Array, "..."] | float | None = None,
    ) -> tuple[Float[Array, "B outputs"], State]:
        """Reads one sample, values (B, C) or token ids (B,): the outputs for all that has been read, the next state.

        Without `cells`, as from `discretize`, they are computed for a rate, which takes longer than the step itself.
        `mask` and `reset` are (B,).

        Raises:
          ValueError: both `cells` and `rate` are given, or a mixer has no recurrent mode.
        """
        if cells is None:
            cells = self.discretize(rate)
        elif rate is not None:
            raise ValueError("rate is a part of the cells that are given: discretize(rate)")
        inputs, mask, reset = map(self.decoder.fold, (inputs, mask, reset))
        x, of_mixers = self.encoder.step(state.mixers, inputs, cells, mask=mask, reset=reset)
        mask, reset = (None if given is None else given[:, None] for given in (mask, reset))
        outputs, of_head = self.decoder.read(x[:, None], Sequences(mask=mask, reset=reset), state.head)
        return outputs[:, 0] if self.decoder.per_step else outputs, State(of_mixers, of_head)

    def rollout(
        self, state: State, inputs: Shaped[Array, "B ..."], cells: Cells | None = None
    ) -> tuple[Float[Array, "B L outputs"], State]:
        """Steps through samples in one compiled loop: the outputs after each, and the state after the last."""
        cells = self.discretize() if cells is None else cells

        def advance(state: State, sample: Array) -> tuple[State, Array]:
            outputs, state = self.step(state, sample, cells)
            return state, outputs

        state, outputs = jax.lax.scan(advance, state, jnp.moveaxis(inputs, self.decoder.documents, 0))
        return jnp.moveaxis(outputs, 0, 1), state
