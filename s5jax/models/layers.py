"""What models are made of: the SSM as a module, residual blocks, the stack of them, pooling.

Modules and parameters have the names of the published S5 code (`encoder/layers_0/seq/B`, `decoder/kernel`, ...). A
module keeps no random state: `key` is an argument, and without it there is no dropout.
"""

import dataclasses
import importlib
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from s5jax.ssm.scan import valid_steps

__all__ = ["SSM", "Block", "Options", "Stack", "pool"]


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
    bn_momentum: float = 0.95
    """Share of the running statistics that a training step keeps."""
    dropout: float = 0.0
    """Probability of a feature to be dropped, for all steps of a sequence together."""
    pooling: Literal["mean", "last"] = "mean"
    """Over the valid steps of a sequence."""
    mask_padding: bool = True
    """Keep padding out of the SSM and the batch statistics too; otherwise, as published, out of pooling alone."""

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

    def __call__(self, u: Float[Array, "B L H"], lengths: Int[Array, " B"] | None) -> Float[Array, "B L H"]:
        params = {name: getattr(self, name)[...] for name in self.param_names}
        return self.layer.apply(params, u, self.options, lengths=lengths)


class Block(nnx.Module):
    """Residual block: norm, SSM, activation with its gate, dropout (arXiv 2208.04933, appendix G.1).

    With x the SSM's output, g = dropout(gelu(x)) and sigma the logistic function, the gates are
    `gelu`: g; `full_glu`: out1(g) sigma(out2(g)); `half_glu1`: g sigma(out2(g)); `half_glu2`: x sigma(out2(g)).
    All but `gelu` pass dropout once more. One dropout mask serves all steps of a sequence.
    """

    def __init__(self, options: Options, seq: SSM, *, rngs: nnx.Rngs):
        H = options.d_model
        self.seq = seq
        self.activation, self.prenorm = options.activation, options.prenorm
        self.norm: nnx.BatchNorm | nnx.LayerNorm
        if options.norm == "batch":
            self.norm = nnx.BatchNorm(H, momentum=options.bn_momentum, epsilon=1e-5, rngs=rngs)
        else:
            self.norm = nnx.LayerNorm(H, epsilon=1e-6, rngs=rngs)
        if options.activation == "full_glu":
            self.out1 = nnx.Linear(H, H, rngs=rngs)
        if options.activation != "gelu":
            self.out2 = nnx.Linear(H, H, rngs=rngs)
        self.dropout = nnx.Dropout(options.dropout, broadcast_dims=(1,))

    def __call__(
        self, x: Float[Array, "B L H"], lengths: Int[Array, " B"] | None, train: bool, key: PRNGKeyArray | None
    ) -> Float[Array, "B L H"]:
        """What stands from `lengths` on is kept out of the SSM and of the batch statistics; `None`: all is valid."""
        skip = x
        if self.prenorm:
            x = self._normalize(x, lengths, train)
        x = self.seq(x, lengths)
        keys = (None, None) if key is None else jax.random.split(key)
        g = self._drop(jax.nn.gelu(x), keys[0])
        if self.activation == "gelu":
            x = g
        else:
            value = self.out1(g) if self.activation == "full_glu" else g if self.activation == "half_glu1" else x
            x = self._drop(value * jax.nn.sigmoid(self.out2(g)), keys[1])
        x = skip + x
        return x if self.prenorm else self._normalize(x, lengths, train)

    def _normalize(self, x: Array, lengths: Array | None, train: bool) -> Array:
        if isinstance(self.norm, nnx.LayerNorm):
            return self.norm(x)
        mask = None if lengths is None else valid_steps(lengths, x.shape[1])[..., None]
        return self.norm(x, use_running_average=not train, mask=mask)

    def _drop(self, x: Array, key: Array | None) -> Array:
        return self.dropout(x, deterministic=key is None, rngs=key)


class Stack(nnx.Module):
    """Encoder and residual blocks: values (B, L, C) or token ids (B, L) to features (B, L, H).

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
        for i in range(options.depth):
            setattr(self, f"layers_{i}", Block(options, SSM(*ssm, options.d_model, rngs=rngs), rngs=rngs))

    def __call__(
        self,
        inputs: Shaped[Array, "B L ..."],
        lengths: Int[Array, " B"] | None = None,
        *,
        train: bool = False,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "B L H"]:
        if not self.options.mask_padding:
            lengths = None
        if lengths is not None:  # so that not even a NaN in the padding gets further than here
            valid = valid_steps(lengths, inputs.shape[1])
            valid = valid.reshape(valid.shape + (1,) * (inputs.ndim - 2))
            inputs = jnp.where(valid, inputs, jnp.zeros((), inputs.dtype))
        if self.options.encoder == "one_hot":
            inputs = jax.nn.one_hot(inputs, self.input_size)
        x = self.encoder(inputs)
        for i in range(self.options.depth):
            x = getattr(self, f"layers_{i}")(x, lengths, train, None if key is None else jax.random.fold_in(key, i))
        return x


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
