"""What a stack is made of: the SSM as a module, the residual block, pooling.

Modules and parameters have the names of the published S5 code (`seq/B`, `out2/kernel`, ...; see `names`).
"""

import dataclasses
import functools
import importlib
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from s5jax.ssm.parameters import StepRescale
from s5jax.ssm.product import product
from s5jax.ssm.scan import valid_steps

__all__ = ["SSM", "Block", "Options", "add_bias", "dropout_masks", "pool"]


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
        return checkpoint_name(add_bias(layer, product(x, layer.kernel[...])), "product")

    def _normalize(self, x: Array, lengths: Array | None, train: bool) -> Array:
        if isinstance(self.norm, nnx.LayerNorm):
            return self.norm(x)
        mask = None if lengths is None else valid_steps(lengths, x.shape[1])[..., None]
        return self.norm(x, use_running_average=not train, mask=mask)

    def _drop(self, x: Array, kept: Array | None) -> Array:
        return x if kept is None else jnp.where(kept, x / (1 - self.dropout), 0)


def dropout_masks(options: Options, key: PRNGKeyArray, batch_size: int) -> Bool[Array, "depth 2 B 1 H"] | None:
    """What the blocks' dropout keeps; `None`: all.

    The masks are drawn for all blocks at once: the generator's loops within a block, and once more in its gradient,
    would be a fifth of what is to be compiled.
    """
    if not options.dropout:
        return None
    keys = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(key, i)))(jnp.arange(options.depth))
    draw = functools.partial(jax.random.bernoulli, p=1 - options.dropout, shape=(batch_size, 1, options.d_model))
    return jax.vmap(jax.vmap(draw))(keys)


def add_bias(layer: nnx.Linear, y: Array) -> Array:
    """What is left of a linear layer after its product."""
    assert layer.bias is not None
    return y + jnp.broadcast_to(layer.bias[...], y.shape)


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
