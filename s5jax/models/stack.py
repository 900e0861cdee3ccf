"""The stack: an encoder, followed by residual blocks.

Blocks at the same place of the pattern form one module whose arrays have a leading axis for the repetitions of the
pattern, so that one repetition is compiled for all of them. Modules hold no random state: dropout needs a `key`.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, PRNGKeyArray, Shaped

from s5jax import mixers
from s5jax.models.block import Block, dropout_masks, in_float32
from s5jax.models.options import Options
from s5jax.ssm.sequence import Sequences, gaps


def schedule(options: Options) -> tuple[str, bool]:
    """`remat` and `unroll`, where the options leave them to the platform.

    A step on a GPU is limited by memory traffic, and stacking or recomputing residuals adds to it: S5's Image step for
    an H100 moves 38 GB in 310 launches if residuals are kept and the loop is unrolled, and 55 GB in 525 if it is
    scanned with `pointwise` (`python -m benchmarks.h100 image`, and with --config.model.remat=pointwise
    --config.model.unroll=false). On a CPU, unrolled loops take twice the memory and compile more than twice as long.
    """
    cpu = jax.default_backend() == "cpu"
    remat = {"auto": "pointwise" if cpu else "none", "full_on_cpu": "full" if cpu else "none"}
    return remat.get(options.remat, options.remat), not cpu if options.unroll is None else options.unroll


class Stack(nnx.Module):
    """Maps values (B, L, C) or token ids (B, L) to features (B, L, H); the arguments are those of `Model`."""

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
        encoder: Any = nnx.Linear if options.encoder == "dense" else nnx.Embed
        if options.encoder == "one_hot":
            from s5jax.models.one_hot import OneHot

            encoder = OneHot
        self.encoder = encoder(input_size, options.d_model, rngs=rngs)
        if options.positions == "learned":
            self.positions = nnx.Param(0.02 * jax.random.normal(rngs.params(), (length, options.d_model), jnp.float32))
        places = len(options.pattern)
        names = [options.pattern[i % places] for i in range(options.depth)]
        if missing := {*names} - mixer_options.keys():
            raise ValueError(f"pattern names {missing.pop()}, but mixer_options has {', '.join(mixer_options)}")
        blocks = [Block(options, mixer_options[name], length, rngs=rngs) for name in names]
        self.layers = nnx.List([_stack_blocks(blocks[place::places]) for place in range(places)])

    def __call__(
        self,
        inputs: Shaped[Array, "B L ..."],
        sequences: Sequences = Sequences(),
        *,
        state: tuple[Any, ...] | None = None,
        train: bool = False,
        key: PRNGKeyArray | None = None,
        dropout: Float[Array, ""] | float | None = None,
    ) -> tuple[Float[Array, "B L H"], Any]:
        """Features (B, L, H), and the states of the mixers after the last valid step if states were given."""
        options, places, (_, mask, reset, rate) = self.options, len(self.layers), sequences
        for block in self.layers:
            mixers.check(block.mixer, block.mixer_options, mask=mask, reset=reset, rate=rate, state=state)
        if not options.mask_padding and state is None:
            sequences = sequences._replace(lengths=None, rate=gaps(sequences.rate, sequences.lengths))
        masks, probability = None, options.dropout if dropout is None else dropout
        if not isinstance(probability, jax.core.Tracer) and not 0 <= float(probability) <= 1:
            raise ValueError(f"dropout must lie in [0, 1], got {float(probability)}")
        inside = [block.ability("DROPOUT") for block in self.layers]
        drops = isinstance(probability, jax.core.Tracer) or float(probability) or "own" in inside
        if train and key is None and drops:
            raise ValueError(
                "training with dropout needs a key; to train without it, set dropout (a mixer's, too) to 0.0"
            )
        if key is not None and (options.dropout or dropout is not None or "own" in inside):
            masks = dropout_masks(options, inputs.shape[0], key, probability, inside=any(inside))
        graphdefs, stats, params = zip(*(nnx.split(layer, nnx.BatchStat, ...) for layer in self.layers), strict=True)

        def advance(graphdef: nnx.GraphDef, x: Array, layer: Any) -> tuple[Array, Any]:
            stats, params, masks, start = layer
            block: Block = nnx.merge(graphdef, stats, params)
            x, end = block(x, sequences, state=start, train=train, dropout=masks)
            return x, (nnx.state(block, nnx.BatchStat), end)

        remat, unroll = schedule(options)
        # If the loop is unrolled, or an iteration holds several blocks, XLA could recompute all of them before the
        # backward pass needs the first; the barrier of prevent_cse avoids that.
        several = unroll or places > 1
        steps = [_remat(functools.partial(advance, graphdef), remat, several) for graphdef in graphdefs]

        def repetition(x: Array, layers: Any) -> tuple[Array, Any]:
            results = []
            for step, layer in zip(steps, layers, strict=False):
                x, result = step(x, layer)
                results.append(result)
            return x, results

        starts = [None if state is None else _stack(state[place::places]) for place in range(places)]
        place_masks = [jax.tree.map(lambda x, place=place: x[place::places], masks) for place in range(places)]
        layers = list(zip(stats, params, place_masks, starts, strict=True))
        x = self.encode(inputs, sequences.counted(inputs.shape[1]))
        if options.positions != "none":
            from s5jax.models import positions

            x = positions.add(self, x, sequences)
        whole, left = divmod(options.depth, places)
        full = jax.tree.map(lambda a: a[:whole], layers) if left else layers
        x, results = jax.lax.scan(repetition, x, full, length=whole, unroll=unroll)
        if left:  # the last repetition is incomplete
            x, last = repetition(x, _take(layers[:left], whole))
            results[:left] = jax.tree.map(lambda a, b: jnp.concatenate([a, b[None]]), results[:left], last)
        x = in_float32(x)
        if train:  # in evaluation nothing is updated, so a jitted function can close over the model
            for layer, (new, _) in zip(self.layers, results, strict=True):
                nnx.update(layer, new)
        if state is None:
            return x, None
        return x, tuple(_take(results[i % places][1], i // places) for i in range(options.depth))

    def encode(
        self, inputs: Shaped[Array, "B ..."], counted: Bool[Array, "B ..."] | None = None
    ) -> Float[Array, "B ..."]:
        """Applies the encoder, after setting inputs to zero where `counted` is false; NaN there has no effect."""
        if self.options.encoder != "dense" and not jnp.issubdtype(inputs.dtype, jnp.integer):
            raise ValueError(f"inputs must be token ids, which are integers; got {inputs.dtype}")
        if counted is not None:
            counted = counted.reshape(counted.shape + (1,) * (inputs.ndim - counted.ndim))
            inputs = jnp.where(counted, inputs, jnp.zeros((), inputs.dtype))
        if self.options.encoder == "embedding":  # ids out of range become len, for which the table gives NaN
            ids, size = inputs.astype(jnp.int32), self.encoder.num_embeddings
            inputs = jnp.where((ids >= 0) & (ids < size), ids, size)
        x = self.encoder(inputs)
        return x.astype(jnp.bfloat16) if self.options.dtype == "bfloat16" else x

    @property
    def blocks(self) -> list[Block]:
        """Copies of the individual blocks."""
        blocks, split = [], [nnx.split(layer) for layer in self.layers]
        for i in range(self.options.depth):
            graphdef, arrays = split[i % len(split)]
            blocks.append(nnx.merge(graphdef, _take(arrays, i // len(split))))
        return blocks


def _remat(block: Callable[..., Any], remat: str, prevent_cse: bool) -> Callable[..., Any]:
    """Wraps a block such that its backward pass stores and recomputes what `remat` says, see `Options`."""
    if remat == "none":
        return block
    names = ["product"] if remat == "pointwise" else []
    by_name = jax.checkpoint_policies.save_only_these_names(*names)
    policy = jax.checkpoint_policies.save_from_both_policies(by_name, _is_statistic)
    return jax.checkpoint(block, prevent_cse=prevent_cse, policy=policy)


def _is_statistic(primitive: Any, *arguments: Any, **params: Any) -> bool:
    """True for sums over all samples: recomputing them takes a pass over the samples, storing them little memory."""
    return primitive.name == "reduce_sum" and len(params["axes"]) >= arguments[0].ndim - 1


def _stack_blocks(blocks: list[Block]) -> Block:
    """One block whose arrays are those of all blocks, stacked along a leading axis."""
    graphdefs, states = zip(*map(nnx.split, blocks), strict=True)
    return nnx.merge(graphdefs[0], _stack(states))


def _stack(trees: Any) -> Any:
    return jax.tree.map(lambda *x: jnp.stack(x), *trees)


def _take(tree: Any, i: int) -> Any:
    return jax.tree.map(lambda x: x[i], tree)
