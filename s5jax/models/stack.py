"""The stack: an encoder, and residual blocks one after the other.

Blocks in the same place of the pattern are one module whose arrays have an axis for the repetitions in front: one
compiled repetition serves all of them. A module keeps no random state: `key` is an argument, and without it nothing
is dropped.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

from s5jax import mixers
from s5jax.models.block import Block, Dropout, dropout_masks
from s5jax.models.encoders import make_encoder
from s5jax.models.options import Options
from s5jax.ssm.sequence import valid_steps

__all__ = ["Cells", "Sequences", "Stack"]


class Sequences(NamedTuple):
    """What is known of a batch of sequences besides their samples; `None` where there is nothing to know."""

    lengths: Int[Array, " B"] | None = None
    """Valid steps."""
    mask: Bool[Array, "B L"] | None = None
    """True where a sample is missing."""
    reset: Bool[Array, "B L"] | None = None
    """True where a new sequence starts."""
    rate: Float[Array, "..."] | float | None = None
    """Factor on time, (), (B,) or (B, L)."""

    def counted(self, L: int) -> Bool[Array, "B L"] | None:
        """True at samples that are valid and not missing; `None`: all are."""
        valid = None if self.lengths is None else valid_steps(self.lengths, L)
        if self.mask is None:
            return valid
        return ~self.mask if valid is None else valid & ~self.mask


Cells = list[tuple[Any, Any]]
"""Of each block its parameters, and what a step of its mixer needs."""


class Stack(nnx.Module):
    """Encoder and residual blocks: values (B, L, C) or token ids (B, L) to features (B, L, H).

    Args:
      options: the model's.
      mixer_options: for each name in the pattern, the mixer and its options.
      input_size: C, or the number of tokens.
      length: steps that the model will be trained on.
    """

    def __init__(
        self,
        options: Options,
        mixer_options: Mapping[str, tuple[str, Any]],
        input_size: int,
        length: int,
        *,
        rngs: nnx.Rngs,
    ):
        self.options = options
        self.encoder = make_encoder(options, input_size, rngs)
        places = len(options.pattern)
        names = [options.pattern[i % places] for i in range(options.depth)]
        blocks = [Block(options, mixer_options[name], length, rngs=rngs) for name in names]
        self.layers = nnx.List([_stacked(blocks[place::places]) for place in range(places)])

    def __call__(
        self,
        inputs: Shaped[Array, "B L ..."],
        sequences: Sequences = Sequences(),
        *,
        state: tuple[Any, ...] | None = None,
        train: bool = False,
        key: PRNGKeyArray | None = None,
        dropout: Float[Array, ""] | float | None = None,
    ) -> tuple[Float[Array, "B L H"], tuple[Any, ...] | None]:
        """Features, and the states of the mixers after the last valid step if states were given.

        Args:
          inputs: values or token ids.
          sequences: their lengths, missing samples, resets and rate.
          state: as from `init_state` or an earlier call.
          train: normalise by the statistics of this batch, and update the running ones.
          key: of dropout; without it nothing is dropped.
          dropout: probability; default: that of the options.
        """
        options, batch, places = self.options, len(inputs), len(self.layers)
        if not options.mask_padding and state is None:
            sequences = sequences._replace(lengths=None)
        counted = sequences.counted(inputs.shape[1])
        for block in self.layers:
            mixers.check(
                mixers.find(block.mixer),
                block.mixer_options,
                mask=sequences.mask,
                reset=sequences.reset,
                rate=sequences.rate,
                state=state,
            )
        rate = options.dropout if dropout is None else dropout
        graphdefs, stats, rest = zip(*(nnx.split(layer, nnx.BatchStat, ...) for layer in self.layers), strict=True)
        masks, keys = None, None
        if key is not None and options.dropout:
            kept = dropout_masks(options.depth, options.d_model, batch, key, rate)
            masks = Dropout(kept, jnp.broadcast_to(1 / (1 - jnp.asarray(rate)), options.depth))
            if any(mixers.ability(mixers.find(b.mixer), "DROPOUT", b.mixer_options) for b in self.layers):
                keys = jax.random.split(jax.random.fold_in(key, options.depth), options.depth)
        states = [None if state is None else _stack(state[place::places]) for place in range(places)]

        def repetition(x: Array, layers: Any) -> tuple[Array, Any]:
            """The blocks of the pattern, one after the other."""
            new_stats, new_states = [], []
            for graphdef, (stats, rest, dropped, block_key, start) in zip(graphdefs, layers, strict=False):
                block: Block = nnx.merge(graphdef, stats, rest)
                mix = functools.partial(
                    mixers.find(block.mixer).apply,
                    block.params,
                    options=block.mixer_options,
                    **sequences._asdict(),
                    state=start,
                    key=block_key,
                    dropout=0.0 if block_key is None else rate,
                )
                x, end = block(x, mix, counted=counted, train=train, dropout=dropped)
                new_stats.append(nnx.state(block, nnx.BatchStat))
                new_states.append(end)
            return x, (new_stats, new_states)

        if options.remat != "none":
            names = ["product"] if options.remat == "pointwise" else []
            policy = jax.checkpoint_policies.save_from_both_policies(
                jax.checkpoint_policies.save_only_these_names(*names), _is_statistic
            )
            repetition = jax.checkpoint(repetition, prevent_cse=False, policy=policy)
        each = list(zip(stats, rest, *(_dealt(tree, places) for tree in (masks, keys)), states, strict=True))
        x, (new_stats, new_states) = _repeat(repetition, self.encode(inputs, counted), each, options)
        if train:  # else nothing changes, and a model that is only read can be jitted as it is
            for layer, new in zip(self.layers, new_stats, strict=True):
                nnx.update(layer, new)
        if state is None:
            return x, None
        return x, tuple(_take(new_states[i % places], i // places) for i in range(options.depth))

    def encode(
        self, inputs: Shaped[Array, "B ..."], counted: Bool[Array, "B ..."] | None = None
    ) -> Float[Array, "B ..."]:
        """Inputs as the first block takes them: zero, even for NaN, where they do not count."""
        if counted is not None:
            counted = counted.reshape(counted.shape + (1,) * (inputs.ndim - counted.ndim))
            inputs = jnp.where(counted, inputs, jnp.zeros((), inputs.dtype))
        return self.encoder(inputs)

    def blocks(self) -> list[tuple[nnx.GraphDef, Any]]:
        """The blocks one by one: definition and arrays, to be merged."""
        places = len(self.layers)
        split = [nnx.split(layer) for layer in self.layers]
        return [(split[i % places][0], _take(split[i % places][1], i // places)) for i in range(self.options.depth)]

    def init_state(self, batch: int, *, max_length: int | None = None) -> tuple[Any, ...]:
        """The mixers' states when nothing has been read.

        Args:
          batch: sequences.
          max_length: samples that will be read at most; mixers with a cache need it.

        Raises:
          ValueError: a mixer has no recurrent mode.
        """
        states = []
        for graphdef, arrays in self.blocks():
            block: Block = nnx.merge(graphdef, arrays)
            mixer = mixers.find(block.mixer)
            mixers.require(mixer, "init_state", "step")
            states.append(mixer.init_state(block.params, block.mixer_options, batch, max_length=max_length))
        return tuple(states)

    def discretize(self, rate: Float[Array, "..."] | float | None = None) -> Cells:
        """What `step` needs of the blocks: to be computed once for many samples.

        Args:
          rate: factor on time, () or (B,).

        Raises:
          ValueError: a mixer has no recurrent mode, or does not understand a rate.
        """
        cells = []
        for graphdef, arrays in self.blocks():
            block: Block = nnx.merge(graphdef, arrays)
            mixer = mixers.find(block.mixer)
            mixers.check(mixer, block.mixer_options, rate=rate)
            discretize = getattr(mixer, "discretize", None)
            cell = block.params if discretize is None else discretize(block.params, block.mixer_options, rate=rate)
            cells.append((arrays, cell))
        return cells

    def step(
        self,
        state: tuple[Any, ...],
        inputs: Shaped[Array, "B ..."],
        cells: Cells,
        *,
        mask: Bool[Array, " B"] | None = None,
        reset: Bool[Array, " B"] | None = None,
    ) -> tuple[Float[Array, "B H"], tuple[Any, ...]]:
        """One sample, values (B, C) or token ids (B,): features, and the next states."""
        x, states = self.encode(inputs, None if mask is None else ~mask), []
        graphdefs = [nnx.graphdef(layer) for layer in self.layers]
        for i, ((arrays, cell), start) in enumerate(zip(cells, state, strict=True)):
            block: Block = nnx.merge(graphdefs[i % len(graphdefs)], arrays)
            step = mixers.find(block.mixer).step
            mix = functools.partial(step, cell, start, options=block.mixer_options, mask=mask, reset=reset)
            x, end = block(x, mix)
            states.append(end)
        return x, tuple(states)


def _repeat(body: Any, x: Array, each: list[Any], options: Options) -> tuple[Array, tuple[list[Any], list[Any]]]:
    """The repetitions of the pattern in one scanned loop, and then, if the last one is incomplete, its beginning."""
    places = len(each)
    whole, left = divmod(options.depth, places)
    full = each if not left else jax.tree.map(lambda a: a[:whole], each)
    x, (stats, states) = jax.lax.scan(body, x, full, length=whole, unroll=options.unroll)
    if left:
        x, tail = body(x, _take(each[:left], whole))
        for all_of, last in zip((stats, states), tail, strict=True):
            joined = jax.tree.map(lambda a, b: jnp.concatenate([a, b[None]]), all_of[:left], last)
            all_of[:left] = joined
    return x, (stats, states)


def _stacked(blocks: list[Block]) -> Block:
    """One block whose arrays are those of all, with an axis in front."""
    graphdefs, states = zip(*map(nnx.split, blocks), strict=True)
    return nnx.merge(graphdefs[0], _stack(states))


def _stack(trees: Any) -> Any:
    return jax.tree.map(lambda *x: jnp.stack(x), *trees)


def _dealt(tree: Any, places: int) -> list[Any]:
    """What there is for each block, dealt to the places of the pattern."""
    return [jax.tree.map(lambda x, place=place: x[place::places], tree) for place in range(places)]


def _take(tree: Any, i: int) -> Any:
    return jax.tree.map(lambda x: x[i], tree)


def _is_statistic(primitive: Any, *arguments: Any, **params: Any) -> bool:
    """Sums over all samples take a pass over them to compute again, and next to no memory to keep."""
    return primitive.name == "reduce_sum" and len(params["axes"]) >= arguments[0].ndim - 1
