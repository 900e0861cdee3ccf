"""What models are made of: the SSM as a module, residual blocks, the stack of them, pooling.

Modules and parameters have the names of the published S5 code (`encoder/layers_0/seq/B`, `decoder/kernel`, ...), but
that the blocks of a stack are one module, `encoder/layers`, whose arrays have an axis for the blocks in front: one
compiled block then serves all of them. `per_layer` gives a tree the published names. A module keeps no random state:
`key` is an argument, and without it there is no dropout.
"""

import dataclasses
import functools
import importlib
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

from s5jax.ssm.parameters import StepRescale
from s5jax.ssm.product import product, rows
from s5jax.ssm.scan import valid_steps

__all__ = ["SSM", "Block", "Options", "Recurrence", "Stack", "StackState", "dropout_masks", "per_layer", "pool", "stacked"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What defines a model besides its SSM and its task. The values are those of the published S5 recipes' flags."""

    depth: int = 6
    """Residual blocks."""
    d_model: int = 128
    """H, features."""
    encoder: Literal["dense", "one_hot", "embedding"] = "dense"
    """`dense` on values, `one_hot` (then dense, as published) or `embedding` on tokens."""
    activation: Literal["gelu", "full_glu", "half_glu1", "half_glu2"] = "half_glu1"
    norm: Literal["batch", "layer"] = "batch"
    prenorm: bool = True
    """Normalise before the SSM; otherwise after the residual sum."""
    residual: bool = True
    """Add a block's input to its output."""
    bn_momentum: float = 0.95
    """Share of the running statistics that a training step keeps."""
    dropout: float = 0.0
    """Probability of a feature to be dropped, for all steps of a sequence together."""
    pooling: Literal["mean", "last"] = "mean"
    """Over the valid steps of a sequence."""
    mask_padding: bool = True
    """Keep padding out of the SSM and the batch statistics too; otherwise, as published, out of pooling alone."""
    remat: Literal["none", "pointwise", "full"] = "pointwise"
    """What of a block the gradient computes again rather than keep: nothing; all but the outputs of the SSM and of the
    gate's products, which is cheap; or all but the block's input. Statistics of batches are kept in any case."""

    def __post_init__(self) -> None:
        for name in ("depth", "d_model"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("dropout", "bn_momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")


class SSM(nnx.Module):
    """The layer `s5jax.ssm.<name>` with its parameters, (B, L, H) to (B, L, H)."""

    def __init__(self, name: str, options: Any, d_model: int, *, rngs: nnx.Rngs):
        self.layer_name, self.options = name, options
        params = self.layer.init(rngs.params(), d_model, options)
        self.param_names = tuple(sorted(params))
        for param_name, value in params.items():
            setattr(self, param_name, nnx.Param(value))

    @property
    def layer(self) -> Any:
        return importlib.import_module(f"s5jax.ssm.{self.layer_name}")

    @property
    def params(self) -> dict[str, Array]:
        return {name: getattr(self, name)[...] for name in self.param_names}

    def __call__(
        self, u: Float[Array, "B L H"], lengths: Int[Array, " B"] | None, step_rescale: StepRescale = 1.0
    ) -> Float[Array, "B L H"]:
        y = self.layer.apply(self.params, u, self.options, lengths=lengths, **_rescaled(step_rescale))
        return checkpoint_name(y, "product")

    def prefill(
        self, state: Array, u: Float[Array, "B L H"], lengths: Int[Array, " B"] | None, step_rescale: StepRescale
    ) -> tuple[Array, Float[Array, "B L H"]]:
        y, state = self.layer.apply(
            self.params,
            u,
            self.options,
            lengths=lengths,
            initial_state=state,
            return_state=True,
            **_rescaled(step_rescale),
        )
        return state, y

    def recurrence(self, step_rescale: StepRescale) -> dict[str, Any]:
        """What `step` needs besides the parameters: where the layer does not say, the factor on the step sizes."""
        if hasattr(self.layer, "recurrence"):
            return self.layer.recurrence(self.params, self.options, **_rescaled(step_rescale))
        return _rescaled(step_rescale)

    def step(
        self, recurrence: dict[str, Any], state: Array, u_k: Float[Array, "B H"]
    ) -> tuple[Array, Float[Array, "B H"]]:
        if hasattr(self.layer, "recurrence"):
            return self.layer.advance(recurrence, state, u_k)
        return self.layer.step(self.params, state, u_k, self.options, **recurrence)


def _rescaled(step_rescale: StepRescale) -> dict[str, StepRescale]:
    """What a layer is told of the sampling rate: nothing where it is that of training, so that not all need know it."""
    return {} if isinstance(step_rescale, float) and step_rescale == 1.0 else {"step_rescale": step_rescale}


class Block(nnx.Module):
    """Residual block: norm, SSM, activation with its gate, dropout (arXiv 2208.04933, appendix G.1).

    Without `residual` its input goes nowhere else.

    With x the SSM's output, g = dropout(gelu(x)) and sigma the logistic function, the gates are
    `gelu`: g; `full_glu`: out1(g) sigma(out2(g)); `half_glu1`: g sigma(out2(g)); `half_glu2`: x sigma(out2(g)).
    All but `gelu` pass dropout once more. One dropout mask serves all steps of a sequence.
    """

    def __init__(self, options: Options, seq: SSM, *, rngs: nnx.Rngs):
        H = options.d_model
        self.seq = seq
        self.activation, self.prenorm, self.residual = options.activation, options.prenorm, options.residual
        self.dropout = options.dropout
        self.norm: nnx.BatchNorm | nnx.LayerNorm
        if options.norm == "batch":
            self.norm = nnx.BatchNorm(H, momentum=options.bn_momentum, epsilon=1e-5, rngs=rngs)
        else:
            self.norm = nnx.LayerNorm(H, epsilon=1e-6, rngs=rngs)
        if options.activation == "full_glu":
            self.out1 = nnx.Linear(H, H, rngs=rngs)
        if options.activation != "gelu":
            self.out2 = nnx.Linear(H, H, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "B L H"],
        lengths: Int[Array, " B"] | None,
        train: bool,
        kept: Bool[Array, "2 B 1 H"] | None,
        step_rescale: StepRescale = 1.0,
    ) -> Float[Array, "B L H"]:
        """What stands from `lengths` on is kept out of the SSM and of the batch statistics; `None`: all is valid.

        `kept` are dropout's masks, from `dropout_masks`; `None`: no dropout.
        """
        u = self._normalize(x, lengths, train) if self.prenorm else x
        x = self._add(x, self._activate(self.seq(u, lengths, step_rescale), kept))
        return x if self.prenorm else self._normalize(x, lengths, train)

    def prefill(
        self, state: Array, x: Float[Array, "B L H"], lengths: Int[Array, " B"] | None, step_rescale: StepRescale
    ) -> tuple[Array, Float[Array, "B L H"]]:
        """As in evaluation, from a state of the SSM to the one after the last valid step."""
        u = self._normalize(x, None, False) if self.prenorm else x
        state, y = self.seq.prefill(state, u, lengths, step_rescale)
        x = self._add(x, self._activate(y, None))
        return state, x if self.prenorm else self._normalize(x, None, False)

    def step(
        self, recurrence: dict[str, Any], state: Array, x_k: Float[Array, "B H"]
    ) -> tuple[Array, Float[Array, "B H"]]:
        """`prefill` of one sample."""
        u_k = self._normalize(x_k, None, False) if self.prenorm else x_k
        state, y_k = self.seq.step(recurrence, state, u_k)
        x_k = self._add(x_k, self._activate(y_k, None))
        return state, x_k if self.prenorm else self._normalize(x_k, None, False)

    def _add(self, x: Array, y: Array) -> Array:
        return x + y if self.residual else y

    def _activate(self, x: Array, kept: Array | None) -> Array:
        first, second = (None, None) if kept is None else kept
        g = self._drop(jax.nn.gelu(x), first)
        if self.activation == "gelu":
            return g
        value = {"full_glu": lambda: self._product(self.out1, g), "half_glu1": lambda: g, "half_glu2": lambda: x}
        return self._drop(value[self.activation]() * jax.nn.sigmoid(self._product(self.out2, g)), second)

    def _product(self, layer: nnx.Linear, x: Array) -> Array:
        return checkpoint_name(_add_bias(layer, product(x, layer.kernel[...])), "product")

    def _normalize(self, x: Array, lengths: Array | None, train: bool) -> Array:
        if isinstance(self.norm, nnx.LayerNorm):
            return self.norm(x)
        mask = None if lengths is None else valid_steps(lengths, x.shape[1])[..., None]
        return self.norm(x, use_running_average=not train, mask=mask)

    def _drop(self, x: Array, kept: Array | None) -> Array:
        return x if kept is None else jnp.where(kept, x / (1 - self.dropout), 0)


def dropout_masks(options: Options, key: PRNGKeyArray, batch_size: int) -> Bool[Array, "depth 2 B 1 H"] | None:
    """What the blocks' dropout keeps; `None`: all.

    The masks are drawn for all blocks at once, since the generator's loops within a block, and once more in its
    gradient, make a quarter of what is to be compiled.
    """
    if not options.dropout:
        return None
    return jax.random.bernoulli(key, 1 - options.dropout, (options.depth, 2, batch_size, 1, options.d_model))


def _is_statistic(primitive: Any, *arguments: Any, **params: Any) -> bool:
    """Sums over all samples take a pass over them to compute again, and next to no memory to keep."""
    return primitive.name == "reduce_sum" and len(params["axes"]) >= arguments[0].ndim - 1


def _add_bias(layer: nnx.Linear, y: Array) -> Array:
    assert layer.bias is not None
    return y + jnp.broadcast_to(layer.bias[...], y.shape)


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
        nnx.update(self.layers, batch_stats)
        return x

    def _encode(self, inputs: Shaped[Array, "B ..."], lengths: Int[Array, " B"] | None) -> Float[Array, "B ..."]:
        if lengths is not None:  # so that not even a NaN in the padding gets further than here
            valid = valid_steps(lengths, inputs.shape[1])
            valid = valid.reshape(valid.shape + (1,) * (inputs.ndim - 2))
            inputs = jnp.where(valid, inputs, jnp.zeros((), inputs.dtype))
        if isinstance(self.encoder, nnx.Linear) and self.options.encoder == "one_hot":
            return _add_bias(self.encoder, rows(self.encoder.kernel[...], inputs))
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
        return state, state.pooled / state.steps[:, None].astype(state.pooled.dtype)


def pool(
    x: Float[Array, "B L H"], lengths: Int[Array, " B"] | None, pooling: Literal["mean", "last"]
) -> Float[Array, "B H"]:
    """The mean over valid steps, or the last valid step; `lengths=None`: all are valid."""
    if lengths is None:
        return x.mean(1) if pooling == "mean" else x[:, -1]
    if pooling == "last":
        return jnp.take_along_axis(x, lengths[:, None, None].astype(jnp.int32) - 1, axis=1)[:, 0]
    valid = valid_steps(lengths, x.shape[1])[..., None]
    return jnp.sum(jnp.where(valid, x, 0), 1) / lengths[:, None].astype(x.dtype)


def per_layer(tree: Any) -> Any:
    """A tree of parameters, or of what there is of each, with `layers_0`, `layers_1`, ... for every `layers`."""

    def split(node: Any) -> Any:
        if not _has(node, "layers"):
            return node
        depth = next((len(x) for x in jax.tree.leaves(node["layers"])), 0)
        layers = {f"layers_{i}": jax.tree.map(lambda x, i=i: x[i], node["layers"]) for i in range(depth)}
        others = {name: child for name, child in node.items() if name != "layers" or not depth}
        return others | layers

    return jax.tree.map(split, tree, is_leaf=lambda node: _has(node, "layers"))


def stacked(tree: Any) -> Any:
    """The inverse of `per_layer`, for arrays of NumPy."""

    def join(node: Any) -> Any:
        if not _has(node, "layers_0"):
            return node
        names = [f"layers_{i}" for i in range(sum(name.startswith("layers_") for name in node))]
        layers = jax.tree.map(lambda *x: np.stack(x), *(node[name] for name in names))
        return {name: child for name, child in node.items() if name not in names} | {"layers": layers}

    return jax.tree.map(join, tree, is_leaf=lambda node: _has(node, "layers_0"))


def _has(node: Any, name: str) -> bool:
    return isinstance(node, dict) and name in node
