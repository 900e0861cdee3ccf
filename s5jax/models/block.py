"""The residual block around a mixer.

Modules and parameters have the names of the published S5 code: `seq/B`, `out2/kernel`, `norm/scale`, ...
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from s5jax import mixers
from s5jax.models.encoders import add_bias
from s5jax.models.options import Options
from s5jax.ssm.product import product

__all__ = ["Block", "Dropout", "dropout_masks"]


class Dropout(NamedTuple):
    """What dropout keeps, and the factor on it."""

    kept: Bool[Array, "... 2 B 1 H"]
    scale: Float[Array, "..."]


class Block(nnx.Module):
    """Norm, mixer, activation with its gate, dropout, residual sum (arXiv 2208.04933, appendix G.1); then an MLP.

    With x the mixer's output, g = dropout(gelu(x)) and sigma the logistic function, the activations are
    `none`: x; `gelu`: g; `full_glu`: out1(g) sigma(out2(g)); `half_glu1`: g sigma(out2(g));
    `half_glu2`: x sigma(out2(g)). The last three pass dropout once more. One dropout mask serves all steps of a
    sequence.

    With `mlp` > 0, x + mlp_out(gelu(mlp_in(mlp_norm(x)))) follows.

    Args:
      options: of the model.
      mixer: the name of the mixer and its options.
      length: steps that the model will be trained on.
      rngs: with a stream `params`.
    """

    def __init__(self, options: Options, mixer: tuple[str, Any], length: int, *, rngs: nnx.Rngs):
        H = options.d_model
        self.options, (self.mixer, self.mixer_options) = options, mixer
        params = mixers.find(self.mixer).init(rngs.params(), H, self.mixer_options, depth=options.depth, length=length)
        self.seq = _module(params)
        self.norm = _norm(options, rngs)
        if options.activation == "full_glu":
            self.out1 = nnx.Linear(H, H, rngs=rngs)
        if "glu" in options.activation:
            self.out2 = nnx.Linear(H, H, rngs=rngs)
        if options.mlp:
            self.mlp_norm = _norm(options, rngs)
            self.mlp_in = nnx.Linear(H, options.mlp * H, rngs=rngs)
            self.mlp_out = nnx.Linear(options.mlp * H, H, rngs=rngs)

    @property
    def params(self) -> dict[str, Any]:
        """The mixer's parameters."""
        return nnx.to_pure_dict(nnx.state(self.seq))

    def __call__(
        self,
        x: Float[Array, "B *L H"],
        mix: Callable[..., tuple[Array, Any]],
        *,
        counted: Bool[Array, "B L"] | None = None,
        train: bool = False,
        dropout: Dropout | None = None,
    ) -> tuple[Float[Array, "B *L H"], Any]:
        """Whole sequences (B, L, H), or one sample of each (B, H).

        Args:
          x: features.
          mix: applies the mixer to them: outputs, and the mixer's state or `None`.
          counted: steps that count in the batch statistics; `None`: all.
          train: normalise by the statistics of this batch, and update the running ones.
          dropout: its masks for this block; `None`: nothing is dropped.
        """
        options = self.options
        own = mixers.ability(mixers.find(self.mixer), "OWN_RESIDUAL", self.mixer_options)
        u = self._normalize(self.norm, x, counted, train) if options.prenorm else x
        y, state = mix(u, skip=x) if own else mix(u)
        y = self._activate(checkpoint_name(y, "product"), dropout)
        x = x + y if options.residual and not own else y
        if not options.prenorm:
            x = self._normalize(self.norm, x, counted, train)
        return self._mlp(x, counted, train) if options.mlp else x, state

    def _activate(self, x: Array, dropout: Dropout | None) -> Array:
        kind = self.options.activation
        if kind == "none":
            return x
        g = _drop(self._gelu(x), dropout, 0)
        if kind == "gelu":
            return g
        value = x if kind == "half_glu2" else _linear(self.out1, g) if kind == "full_glu" else g
        return _drop(value * jax.nn.sigmoid(_linear(self.out2, g)), dropout, 1)

    def _mlp(self, x: Array, counted: Array | None, train: bool) -> Array:
        u = self._normalize(self.mlp_norm, x, counted, train) if self.options.prenorm else x
        x = x + _linear(self.mlp_out, self._gelu(_linear(self.mlp_in, u)))
        return x if self.options.prenorm else self._normalize(self.mlp_norm, x, counted, train)

    def _gelu(self, x: Array) -> Array:
        return jax.nn.gelu(x, approximate=self.options.gelu == "tanh")

    def _normalize(self, norm: Any, x: Array, counted: Array | None, train: bool) -> Array:
        if self.options.norm == "none":
            return x
        if self.options.norm == "layer":
            return norm(x)
        return norm(x, use_running_average=not train, mask=None if counted is None else counted[..., None])


def dropout_masks(
    depth: int, width: int, batch: int, key: PRNGKeyArray, rate: Float[Array, ""] | float
) -> Bool[Array, "depth 2 B 1 H"]:
    """What the blocks' dropout keeps.

    The masks are drawn for all blocks at once: the generator's loops within a block, and once more in its gradient,
    would be a fifth of what is compiled.
    """
    keys = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(key, i)))(jnp.arange(depth))
    draw = functools.partial(jax.random.bernoulli, p=1 - rate, shape=(batch, 1, width))
    return jax.vmap(jax.vmap(draw))(keys)


def _drop(x: Array, dropout: Dropout | None, place: int) -> Array:
    return x if dropout is None else jnp.where(dropout.kept[place], x * dropout.scale.astype(x.dtype), 0)


def _linear(layer: nnx.Linear, x: Array) -> Array:
    return checkpoint_name(add_bias(layer, product(x, layer.kernel[...])), "product")


def _norm(options: Options, rngs: nnx.Rngs) -> nnx.BatchNorm | nnx.LayerNorm | None:
    if options.norm == "batch":
        epsilon = options.norm_epsilon or 1e-5
        return nnx.BatchNorm(options.d_model, momentum=options.bn_momentum, epsilon=epsilon, rngs=rngs)
    if options.norm == "layer":
        return nnx.LayerNorm(options.d_model, epsilon=options.norm_epsilon or 1e-6, rngs=rngs)
    return None


def _module(params: Any) -> Any:
    """Nested dicts of arrays as modules with parameters."""
    if isinstance(params, dict):
        return nnx.Dict({name: _module(value) for name, value in params.items()})
    return nnx.Param(params)
