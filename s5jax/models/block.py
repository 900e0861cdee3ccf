"""The residual block around a mixer.

Parameter names within a block follow the published S5 code (`seq/B`, `out2/kernel`, `norm/scale`), except the MLP's.
"""

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from s5jax import mixers
from s5jax.models.options import Options
from s5jax.ssm.product import product
from s5jax.ssm.sequence import Sequences


class DropoutMasks(NamedTuple):
    """Dropout of one block. `dropout_masks` returns it for all blocks, with a leading axis depth."""

    kept: Bool[Array, "*depth 2 B 1 H"]
    """True at features that are kept, at all steps of a sequence: before (0) and after (1) the gate."""
    rate: Float[Array, "*depth"]
    key: PRNGKeyArray | None
    """For mixers with dropout of their own."""

    def __call__(self, x: Float[Array, "B L H"], place: int) -> Float[Array, "B L H"]:
        """Applies mask `place`; kept features are scaled by 1 / (1 - rate)."""
        left = jnp.where(self.rate < 1, 1 - self.rate, 1)
        return jnp.where(self.kept[place], x * (1 / left).astype(x.dtype), 0)


class Block(nnx.Module):
    """Norm, mixer, activation with its gate, dropout, residual sum (arXiv 2208.04933, appendix G.1); then an MLP.

    With x the mixer's output, g = dropout(gelu(x)) and sigma the logistic function, the activations are
    `none`: dropout(x); `gelu`: g; `full_glu`: out1(g) sigma(out2(g)); `half_glu1`: g sigma(out2(g));
    `half_glu2`: x sigma(out2(g)). The last three are followed by a second dropout.

    With input u, a branch f gives u + f(norm(u)) with `prenorm`, otherwise norm(u + f(u)). The mixer's branch omits
    "u +" if `residual` is false, or if the mixer adds u itself; after such a mixer there is no activation and no
    dropout. The second branch, if `mlp` > 0, has the norm mlp_norm and f(u) = mlp_out(a(mlp_in(u))), where a is
    `mlp_activation`. `mixer` is a pair, the mixer's name and its options; `length` is the number of steps of the
    training sequences.
    """

    def __init__(self, options: Options, mixer: tuple[str, Any], length: int, *, rngs: nnx.Rngs):
        H = options.d_model
        self.options, (self.mixer_name, self.mixer_options) = options, mixer
        self.seq = _module(self.mixer.init(rngs.params(), H, self.mixer_options, depth=options.depth, length=length))
        if hasattr(self.mixer, "init_buffers"):
            self.buffers = _module(self.mixer.init_buffers(rngs.params(), H, self.mixer_options), nnx.BatchStat)
        self.norm = _norm(options, rngs)
        gate = "none" if self.ability("OWN_RESIDUAL") else options.activation
        if gate == "full_glu":
            self.out1 = nnx.Linear(H, H, rngs=rngs)
        if "glu" in gate:
            self.out2 = nnx.Linear(H, H, rngs=rngs)
        if options.mlp:
            self.mlp_norm = _norm(options, rngs)
            self.mlp_in = nnx.Linear(H, options.mlp * H, rngs=rngs)
            self.mlp_out = nnx.Linear(options.mlp * H, H, rngs=rngs)

    @property
    def mixer(self) -> ModuleType:
        return mixers.find(self.mixer_name)

    @property
    def params(self) -> dict[str, Any]:
        """The mixer's parameters."""
        return nnx.to_pure_dict(nnx.state(self.seq))

    @property
    def given_buffers(self) -> dict[str, Any]:
        """The argument `buffers` of the mixer's functions, if it has any."""
        return {"buffers": nnx.to_pure_dict(nnx.state(self.buffers))} if hasattr(self, "buffers") else {}

    def ability(self, name: str) -> Any:
        return mixers.ability(self.mixer, name, self.mixer_options)

    def __call__(
        self,
        x: Float[Array, "B *L H"],
        sequences: Sequences = Sequences(),
        *,
        state: Any = None,
        train: bool = False,
        dropout: DropoutMasks | None = None,
        mix: Callable[..., tuple[Array, Any]] | None = None,
    ) -> tuple[Float[Array, "B *L H"], Any]:
        """Features after the block, and the mixer's state after the last valid step if one was given.

        `train`: normalise by the statistics of this batch; update running statistics and buffers. `dropout`: masks of
        this block. `mix` replaces the mixer: mix(u) -> (y, state), or mix(u, skip=x) with OWN_RESIDUAL.
        """
        if mix is None:
            given = {**sequences._asdict(), **self.given_buffers, "state": state, "options": self.mixer_options}
            if dropout is not None and dropout.key is not None and self.ability("DROPOUT"):
                given |= {"key": dropout.key, "dropout": dropout.rate}
            mix = functools.partial(self.mixer.apply, self.params, **given)
        counted = sequences.counted(x.shape[1])
        options, own = self.options, self.ability("OWN_RESIDUAL")
        normalize = functools.partial(self._normalize, counted=counted, train=train)
        u = normalize(self.norm, x) if options.prenorm else x
        y, state, *buffers = mix(u, skip=x) if own else mix(u)
        if buffers and train:
            nnx.update(self.buffers, buffers[0])
        y = checkpoint_name(y.astype(x.dtype), "product")
        y = y if own else self._activate(y, dropout)
        x = x + y if options.residual and not own else y
        if not options.prenorm:
            x = normalize(self.norm, x)
        if options.mlp:
            u = normalize(self.mlp_norm, x) if options.prenorm else x
            activation = {"gelu": self._gelu, "silu": jax.nn.silu, "relu": jax.nn.relu}[options.mlp_activation]
            x = x + _linear(self.mlp_out, activation(_linear(self.mlp_in, u)))
            if not options.prenorm:
                x = normalize(self.mlp_norm, x)
        return x, state

    def _activate(self, x: Array, dropout: DropoutMasks | None) -> Array:
        drop = dropout or (lambda x, place: x)
        kind = self.options.activation
        if kind == "none":
            return drop(x, 0)
        g = drop(self._gelu(x), 0)
        if kind == "gelu":
            return g
        value = x if kind == "half_glu2" else _linear(self.out1, g) if kind == "full_glu" else g
        return drop(value * jax.nn.sigmoid(_linear(self.out2, g)), 1)

    def _gelu(self, x: Array) -> Array:
        return jax.nn.gelu(x, approximate=self.options.gelu == "tanh")

    def _normalize(self, norm: Any, x: Array, *, counted: Array | None, train: bool) -> Array:
        if self.options.norm == "none":
            return x
        if self.options.norm != "batch":
            return norm(in_float32(x)).astype(x.dtype)
        if counted is not None:  # a mean over no samples is NaN: if no sample of the batch counts, all are used
            counted = jnp.where(counted.any(), counted, jnp.ones((), bool))[..., None]
        return norm(in_float32(x), use_running_average=not train, mask=counted).astype(x.dtype)


def dropout_masks(
    options: Options, batch: int, key: PRNGKeyArray, rate: Float[Array, ""] | float, *, inside: bool
) -> DropoutMasks:
    """Draws the dropout of all blocks, with keys if there are mixers with dropout `inside` them. If the blocks drew
    their own masks, the random generator would be compiled twice, for the forward pass and the recomputation."""
    depth, H = options.depth, options.d_model
    keys = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(key, i)))(jnp.arange(depth))
    draw = functools.partial(jax.random.bernoulli, p=1 - rate, shape=(batch, 1, H))
    mixer_keys = jax.random.split(jax.random.fold_in(key, depth), depth) if inside else None
    return DropoutMasks(jax.vmap(jax.vmap(draw))(keys), jnp.broadcast_to(jnp.asarray(rate), depth), mixer_keys)


def _linear(layer: nnx.Linear, x: Array) -> Array:
    return checkpoint_name(add_bias(layer, product(x, layer.kernel[...].astype(x.dtype))), "product")


def add_bias(layer: nnx.Linear, y: Array) -> Array:
    """Adds the bias of a linear layer to its product y, in float32, because its gradient is a sum over all samples."""
    assert layer.bias is not None
    return (in_float32(y) + jnp.broadcast_to(layer.bias[...], y.shape)).astype(y.dtype)


def in_float32(x: Array) -> Array:
    """x in float32, if it is in bfloat16."""
    return x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x


class ScaleNorm(nnx.Module):
    """scale x / sqrt(mean(x^2) + epsilon), with one scale for all features (arXiv 1910.05895)."""

    def __init__(self, epsilon: float):
        self.epsilon, self.scale = epsilon, nnx.Param(jnp.ones(1, jnp.float32))

    def __call__(self, x: Array) -> Array:
        size = jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + self.epsilon)
        return x * (size * jnp.broadcast_to(self.scale[...], size.shape))


def _norm(options: Options, rngs: nnx.Rngs) -> Any:
    H, kind = options.d_model, options.norm
    epsilon = options.norm_epsilon or (1e-6 if kind == "layer" else 1e-5)
    if kind == "batch":
        return nnx.BatchNorm(H, momentum=options.bn_momentum, epsilon=epsilon, rngs=rngs)
    if kind == "none":
        return None
    if kind == "scale":
        return ScaleNorm(epsilon)
    return (nnx.LayerNorm if kind == "layer" else nnx.RMSNorm)(H, epsilon=epsilon, rngs=rngs)


def _module(params: Any, kind: Any = nnx.Param) -> Any:
    """Converts nested dicts of arrays to modules with parameters, or variables of another kind."""
    if not isinstance(params, dict):
        return kind(params)
    return nnx.Dict({name: _module(value, kind) for name, value in params.items()})
