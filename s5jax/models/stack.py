"""The stack: an encoder, and residual blocks one after the other.

The blocks are one module whose arrays have an axis for the blocks in front: one compiled block serves all of them.
A module keeps no random state: `key` is an argument, and without it there is no dropout.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from s5jax.models.layers import SSM, Block, Options, add_bias, dropout_masks, pool
from s5jax.ssm.parameters import StepRescale
from s5jax.ssm.product import rows
from s5jax.ssm.scan import valid_steps

__all__ = ["Recurrence", "Stack", "StackState"]


class StackState(NamedTuple):
    """All that a causal stack remembers of the samples it has read."""

    layers: tuple[Array, ...]
    """The state of each SSM."""
    pooled: Array
    """(B, H): the sum of the features so far, or the last ones."""
    steps: Array
    """(B,): samples read."""


Recurrence = list[tuple[dict[str, Any], dict[str, Any]]]
"""Of each block the parameters, and what a step of its SSM needs besides."""


class Stack(nnx.Module):
    """Encoder and residual blocks: values (B, L, C) or token ids (B, L) to features (B, L, H).

    A stack whose SSMs read in one direction also runs in pieces, down to single samples: `initial_state`, `prefill`,
    `step`, `rollout`.

    Args:
      options: the model's.
      ssm: the name of the layer and its options.
      input_size: C, or the number of tokens.
    """

    def __init__(self, options: Options, ssm: tuple[str, Any], input_size: int, *, rngs: nnx.Rngs):
        self.options, self.input_size = options, input_size
        self.encoder: nnx.Linear | nnx.Embed
        if options.encoder == "embedding":
            self.encoder = nnx.Embed(input_size, options.d_model, rngs=rngs)
        else:
            self.encoder = nnx.Linear(input_size, options.d_model, rngs=rngs)
        blocks = [Block(options, SSM(*ssm, options.d_model, rngs=rngs), rngs=rngs) for _ in range(options.depth)]
        graphdefs, states = zip(*map(nnx.split, blocks), strict=True)
        self.layers: Block = nnx.merge(graphdefs[0], jax.tree.map(lambda *x: jnp.stack(x), *states))

    @property
    def blocks(self) -> list[Block]:
        """The blocks one by one, as copies."""
        graphdef, state = nnx.split(self.layers)
        return [nnx.merge(graphdef, jax.tree.map(lambda x, i=i: x[i], state)) for i in range(self.options.depth)]

    def __call__(
        self,
        inputs: Shaped[Array, "B L ..."],
        lengths: Int[Array, " B"] | None = None,
        *,
        train: bool = False,
        key: PRNGKeyArray | None = None,
        step_rescale: StepRescale = 1.0,
    ) -> Float[Array, "B L H"]:
        if not self.options.mask_padding:
            lengths = None
        graphdef, *layers = nnx.split(self.layers, nnx.BatchStat, ...)
        kept = None if key is None else dropout_masks(self.options, key, len(inputs))

        def advance(x: Array, layer: tuple[Any, ...]) -> tuple[Array, Any]:
            batch_stats, rest, kept = layer
            block = nnx.merge(graphdef, batch_stats, rest)
            x = block(x, lengths, train, kept, step_rescale)
            return x, nnx.state(block, nnx.BatchStat)

        if self.options.remat != "none":
            names = ["product"] if self.options.remat == "pointwise" else []
            policy = jax.checkpoint_policies.save_from_both_policies(
                jax.checkpoint_policies.save_only_these_names(*names), _is_statistic
            )
            advance = jax.checkpoint(advance, prevent_cse=False, policy=policy)
        each: tuple[Any, ...] = (*layers, kept)
        x, batch_stats = jax.lax.scan(advance, self._encode(inputs, lengths), each)
        if train:  # else nothing changes, and a model that is only read can be jitted as it is
            nnx.update(self.layers, batch_stats)
        return x

    def _encode(self, inputs: Shaped[Array, "B ..."], lengths: Int[Array, " B"] | None) -> Float[Array, "B ..."]:
        if lengths is not None:  # so that not even a NaN in the padding gets further than here
            valid = valid_steps(lengths, inputs.shape[1])
            valid = valid.reshape(valid.shape + (1,) * (inputs.ndim - 2))
            inputs = jnp.where(valid, inputs, jnp.zeros((), inputs.dtype))
        if isinstance(self.encoder, nnx.Linear) and self.options.encoder == "one_hot":
            return add_bias(self.encoder, rows(self.encoder.kernel[...], inputs))
        return self.encoder(inputs)

    def initial_state(self, batch_size: int) -> StackState:
        """Nothing read yet."""
        seq = self.layers.seq
        layer = seq.layer.initial_state({name: value[0] for name, value in seq.params.items()}, (batch_size,))
        pooled = jnp.zeros((batch_size, self.options.d_model))
        return StackState((layer,) * self.options.depth, pooled, jnp.zeros((batch_size,), jnp.int32))

    def recurrence(self, step_rescale: StepRescale = 1.0) -> Recurrence:
        """What `step` needs of the blocks. To be computed once for many samples.

        Args:
          step_rescale: factor on the step sizes, one for all or, for s5 and s4d, (B,), one for each sequence.

        Raises:
          ValueError: the SSMs read in both directions.
        """
        blocks = self.blocks
        return [(nnx.to_pure_dict(nnx.state(block)), block.seq.recurrence(step_rescale)) for block in blocks]

    def prefill(
        self,
        state: StackState,
        inputs: Shaped[Array, "B L ..."],
        lengths: Int[Array, " B"] | None = None,
        *,
        step_rescale: StepRescale = 1.0,
    ) -> tuple[StackState, Float[Array, "B H"]]:
        """Reads on from a state, all samples at once; of some sequences there may be none, lengths 0.

        Returns:
          The state after the last valid step, and the features pooled over all that was read up to it. Padding never
          has a part in either.

        Raises:
          ValueError: the SSMs read in both directions.
        """
        x, layers = self._encode(inputs, lengths), []
        for block, layer_state in zip(self.blocks, state.layers, strict=True):
            layer_state, x = block.prefill(layer_state, x, lengths, step_rescale)
            layers.append(layer_state)
        if self.options.pooling == "last":
            pooled = pool(x, lengths, "last")
            if lengths is not None:  # a sequence of which nothing came keeps its answer
                pooled = jnp.where(lengths[:, None] > 0, pooled, state.pooled)
        elif lengths is None:
            pooled = state.pooled + x.sum(1)
        else:
            pooled = state.pooled + jnp.sum(jnp.where(valid_steps(lengths, x.shape[1])[..., None], x, 0), 1)
        read = x.shape[1] if lengths is None else lengths.astype(jnp.int32)
        return self._pooled(StackState(tuple(layers), pooled, state.steps + read))

    def step(
        self,
        state: StackState,
        inputs: Shaped[Array, "B ..."],
        recurrence: Recurrence | None = None,
        *,
        step_rescale: StepRescale | None = None,
    ) -> tuple[StackState, Float[Array, "B H"]]:
        """`prefill` of one sample: values (B, C) or token ids (B,).

        Args:
          recurrence: as from `recurrence`; without it, it is computed, which takes longer than the step.
          step_rescale: as for `recurrence`, where that is to be computed.

        Raises:
          ValueError: the SSMs read in both directions, or both arguments are given.
        """
        if recurrence is None:
            recurrence = self.recurrence(1.0 if step_rescale is None else step_rescale)
        elif step_rescale is not None:
            raise ValueError("step_rescale is a part of the recurrence that is given: recurrence(step_rescale)")
        graphdef, x, layers = nnx.graphdef(self.layers), self._encode(inputs, None), []
        for (block, arrays), layer_state in zip(recurrence, state.layers, strict=True):
            layer_state, x = nnx.merge(graphdef, block).step(arrays, layer_state, x)
            layers.append(layer_state)
        pooled = x if self.options.pooling == "last" else state.pooled + x
        return self._pooled(StackState(tuple(layers), pooled, state.steps + 1))

    def rollout(
        self, state: StackState, inputs: Shaped[Array, "B L ..."], recurrence: Recurrence | None = None
    ) -> tuple[StackState, Float[Array, "B L H"]]:
        """`step` for one sample after the other, in one compiled loop."""
        recurrence = self.recurrence() if recurrence is None else recurrence
        state, pooled = jax.lax.scan(
            lambda state, sample: self.step(state, sample, recurrence), state, jnp.moveaxis(inputs, 1, 0)
        )
        return state, jnp.moveaxis(pooled, 0, 1)

    def _pooled(self, state: StackState) -> tuple[StackState, Float[Array, "B H"]]:
        if self.options.pooling == "last":
            return state, state.pooled
        return state, state.pooled / jnp.maximum(state.steps, 1)[:, None].astype(state.pooled.dtype)


def _is_statistic(primitive: Any, *arguments: Any, **params: Any) -> bool:
    """Sums over all samples take a pass over them to compute again, and next to no memory to keep."""
    return primitive.name == "reduce_sum" and len(params["axes"]) >= arguments[0].ndim - 1
