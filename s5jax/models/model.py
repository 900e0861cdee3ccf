"""A model: a stack and a head."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.export import register_namedtuple_serialization
from jaxtyping import Array, Float, PRNGKeyArray

from s5jax.models.heads import Head
from s5jax.models.options import Options
from s5jax.models.stack import Stack
from s5jax.ssm.sequence import Sequences, in_shape

Given = Any
"""A jax or NumPy array, or nested lists."""


class State(NamedTuple):
    """The recurrent state of a causal model: that of each block's mixer, and of the head (`recurrent.Pooled` or ())."""

    mixers: tuple[Any, ...]
    head: Any


register_namedtuple_serialization(State, serialized_name="s5jax.models.model.State")


class Model(nnx.Module):
    """Maps values (B, L, C) or token ids (B, L) to outputs (B, outputs), or (B, L, outputs) with the head `step`.

    With the head `pair` all input arrays have an axis of 2 documents after B. A model of causal mixers also has a
    recurrent mode, for pieces of sequences or single samples: `init_state`, `prefill`, `step`, `rollout`.
    As in the published code, `encoder` is the whole stack (its own encoder is `encoder.encoder`), `decoder` the head.

    Args:
      options: the section `model` of a config.
      mixer_options: for each name in the pattern, the name of the mixer's module and its options.
      input_size: C, or the size of the vocabulary.
      outputs: number of outputs per sequence, pair or step; `head` says which of these.
      length: number of steps of the training sequences; some mixers have parameters for each step. Default 1.
    """

    def __init__(
        self,
        options: Options,
        mixer_options: Mapping[str, tuple[str, Any]],
        input_size: int,
        outputs: int,
        *,
        head: Literal["sequence", "pair", "step"] = "sequence",
        length: int = 1,
        rngs: nnx.Rngs,
    ):
        self.encoder = Stack(options, mixer_options, input_size, length, rngs=rngs)
        self.decoder: Any
        if head == "pair":
            from s5jax.models.pair_head import PairHead

            self.decoder = PairHead(options, outputs, rngs=rngs)
        else:
            self.decoder = Head(options, outputs, per_step=head == "step", rngs=rngs)

    def __call__(
        self,
        inputs: Given,
        lengths: Given = None,
        *,
        mask: Given = None,
        reset: Given = None,
        rate: Given = None,
        train: bool = False,
        key: PRNGKeyArray | None = None,
        dropout: Float[Array, ""] | float | None = None,
    ) -> Float[Array, "B ..."]:
        """Outputs for values or token ids. `s5jax.mixers` explains lengths (B,), mask and reset (B, L), and rate.

        `train`: normalise by the statistics of this batch, and update the running statistics. `key`: random key of
        dropout, needed to train with dropout; default: no dropout. `dropout`: its probability; default: that of the
        options.

        Raises ValueError for arguments of a wrong shape or type, lengths outside 1..L, token ids outside the
        vocabulary, rates that are negative or not finite, and pooled sequences whose samples are all missing. Under
        `jax.jit`, where values cannot be checked, invalid ones make the outputs of their sequences NaN.
        """
        inputs, sequences = self._border(inputs, lengths=lengths, mask=mask, reset=reset, rate=rate)
        x, _ = self.encoder(inputs, sequences, train=train, key=key, dropout=dropout)
        return self._or_nan(self.decoder.read(x, sequences)[0], x, sequences, 1)

    def _border(self, inputs: Any, *, steps: bool = True, least: int = 1, **given: Any) -> tuple[Array, Sequences]:
        """Checks and folds the arguments, those of `__call__` or, without `steps`, of `step`; `least` is the least
        length of a sequence. Rates that are invalid, which not every mixer notices, become NaN."""
        given = {name: value for name, value in given.items() if value is not None}
        documents, options, encoder = self.decoder.documents, self.encoder.options, self.encoder.encoder
        tokens, known = options.encoder != "dense", (inputs, given)
        size = encoder.num_embeddings if options.encoder == "embedding" else encoder.in_features
        inputs, axes = jnp.asarray(inputs), ["B", *["2"] * (documents - 1), *["L"] * steps, *[str(size)] * (not tokens)]
        fits = [axis in ("B", "L", str(n)) for axis, n in zip(axes, inputs.shape, strict=False)]
        if len(axes) != inputs.ndim or not all(fits):
            raise ValueError(f"inputs must have the shape ({', '.join(axes)}), got {inputs.shape}")
        if not jnp.issubdtype(inputs.dtype, jnp.integer) and (tokens or not jnp.issubdtype(inputs.dtype, jnp.floating)):
            kind = "token ids, which are integers" if tokens else "real numbers"
            raise ValueError(f"inputs must be {kind}; got {inputs.dtype}")
        batch, time = inputs.shape[:documents], inputs.shape[: documents + steps]
        flags = (jnp.bool_, time)
        allowed: Any = {"lengths": (jnp.integer, batch), "mask": flags, "reset": flags}
        allowed |= {"rate": (jnp.number, (), batch, time)}
        given = {name: in_shape(name, value, *allowed[name]) for name, value in given.items()}
        if not any(isinstance(value, jax.core.Tracer) for value in jax.tree.leaves(known)):
            from s5jax.models import checks

            checks.check(self, *known, least=least)
        if "rate" in given:
            given["rate"] = jnp.where((given["rate"] >= 0) & jnp.isfinite(given["rate"]), given["rate"], jnp.nan)
        return self.decoder.fold(inputs), Sequences(**{name: self.decoder.fold(value) for name, value in given.items()})

    def _or_nan(self, outputs: Array, x: Array, sequences: Sequences, least: int) -> Array:
        """The outputs, NaN where a length is outside least..L, or if an output is pooled over no sample."""
        lengths, (rows, L) = sequences.lengths, x.shape[:2]
        if lengths is None and sequences.mask is None:
            return outputs
        bad = jnp.zeros(rows, bool)
        if lengths is not None:
            lengths = lengths.astype(jnp.int32)  # a narrow integer type may not hold L
            bad = (lengths < least) | (lengths > L)
        if (counted := sequences.counted_of_last(L)) is not None and least and not self.decoder.per_step:
            bad = bad | ~counted.any(1)
        bad = bad.reshape(-1, self.decoder.documents).any(1)
        return jnp.where(bad.reshape(-1, *(1,) * (outputs.ndim - 1)), jnp.nan, outputs)

    def init_state(self, batch: int, *, max_length: int | None = None) -> State:
        """The initial state for a batch of sequences or pairs. Mixers with a cache need `max_length`, the number of
        samples that may be read. ValueError if a mixer has no recurrent mode."""
        from s5jax.models import recurrent

        mixer_states = recurrent.init_state(self.encoder, self.decoder.documents * batch, max_length=max_length)
        return State(mixer_states, self.decoder.init_state(batch))

    def prefill(
        self, state: State, inputs: Given, lengths: Given = None, **given: Any
    ) -> tuple[Float[Array, "B ..."], State]:
        """Processes L further samples in parallel, with the arguments of `__call__`; a sequence with length 0 keeps its
        state. Returns the outputs given all samples so far (before the first one, those for features of zero), and the
        next state. ValueError as in `__call__`, and for a state of another batch size."""
        from s5jax.models import recurrent

        training = {name: given.pop(name) for name in ("train", "key", "dropout") if name in given}
        inputs, sequences = self._border(inputs, least=0, lengths=lengths, **given)
        recurrent.check_state(state, inputs.shape[0])
        x, mixer_states = self.encoder(inputs, sequences, state=state.mixers, **training)
        outputs, head_state = self.decoder.read(x, sequences, state.head)
        return self._or_nan(outputs, x, sequences, 0), State(mixer_states, head_state)

    def discretize(self, rate: Given = None) -> Any:
        """The discretised blocks for `step` and `rollout`, at a rate () or (B,), default 1. ValueError if a mixer is
        bidirectional, or a rate is given and it takes none."""
        from s5jax.models import recurrent

        return recurrent.discretize(self.encoder, None if rate is None else self.decoder.fold(jnp.asarray(rate)))

    def step(
        self,
        state: State,
        inputs: Given,
        cells: Any | None = None,
        *,
        mask: Given = None,
        reset: Given = None,
        rate: Given = None,
    ) -> tuple[Float[Array, "B outputs"], State]:
        """Processes one sample, values (B, C) or token ids (B,). Returns the outputs (B, outputs) given all samples so
        far (with the head `step`: of this sample), and the next state.

        `cells` are from `discretize`; by default they are computed in each call, which for a single sequence takes
        longer than the step itself. A rate, () or (B,), is only for calls without cells.
        """
        if cells is not None and rate is not None:
            raise ValueError("rate is part of the cells; pass it to discretize(rate) instead")
        from s5jax.models import recurrent

        inputs, (_, mask, reset, rate) = self._border(inputs, steps=False, mask=mask, reset=reset, rate=rate)
        cells = recurrent.discretize(self.encoder, rate) if cells is None else cells
        recurrent.check_state(state, inputs.shape[0])
        x, mixer_states = recurrent.step(self.encoder, state.mixers, inputs, cells, mask=mask, reset=reset)
        mask, reset = (None if given is None else given[:, None] for given in (mask, reset))
        outputs, head_state = self.decoder.read(x[:, None], Sequences(mask=mask, reset=reset), state.head)
        return outputs[:, 0] if self.decoder.per_step else outputs, State(mixer_states, head_state)

    def rollout(
        self, state: State, inputs: Given, cells: Any | None = None
    ) -> tuple[Float[Array, "B L outputs"], State]:
        """Applies `step` to inputs (B, L, C) or (B, L) in one loop. Returns the outputs after each step, (B, L,
        outputs), and the final state. `cells` are from `discretize`; default: those at rate 1."""
        self._border(inputs)  # checks all samples before the first is read
        inputs, cells = jnp.asarray(inputs), self.discretize() if cells is None else cells

        def advance(state: State, sample: Array) -> tuple[State, Array]:
            outputs, state = self.step(state, sample, cells)
            return state, outputs

        state, outputs = jax.lax.scan(advance, state, jnp.moveaxis(inputs, self.decoder.documents, 0))
        return jnp.moveaxis(outputs, 0, 1), state
