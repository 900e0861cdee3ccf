"""Options of a model, except those of its mixers and its task."""

import dataclasses
from typing import Literal

from s5jax.ssm.parameters import check_between, check_choices, check_least, check_share


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """The section `model` of a config. In the published S5 recipes depth is n_layers, activation is activation_fn,
    dropout is p_dropout, pooling is mode, and norm is batchnorm."""

    depth: int = 6
    """Number of residual blocks."""
    d_model: int = 128
    """H, the number of features."""
    pattern: tuple[str, ...] = ("s5",)
    """Names of the blocks' mixers, repeated over the depth: `("s5", "attention")` alternates the two."""
    encoder: Literal["dense", "one_hot", "embedding"] = "dense"
    """`dense`: a dense layer on values; for tokens `one_hot`, a dense layer on one-hot vectors as published, or
    `embedding`, a table."""
    positions: Literal["none", "sinusoidal", "learned"] = "none"
    """Positions added to the encoder's output, see `models.positions.add`; there is no recurrent mode then. A mixer may
    have its own."""
    activation: Literal["none", "gelu", "full_glu", "half_glu1", "half_glu2"] = "half_glu1"
    """Activation and gate after the mixer, see `block.Block`."""
    gelu: Literal["tanh", "exact"] = "tanh"
    """How gelu is computed: its tanh approximation, as in published S5, or exactly, as in published S4."""
    norm: Literal["batch", "layer", "rms", "scale", "none"] = "batch"
    """`batch`: normalise each feature over batch and steps; `layer`: each step over features; `rms`: the same without
    subtracting the mean and without a bias; `scale`: `rms` with one scale for all features; `none`: not at all."""
    norm_epsilon: float = 0.0
    """Added to the variance or mean square; 0: 1e-6 for `layer`, 1e-5 for the others."""
    prenorm: bool = True
    """Normalise before the mixer; otherwise after the residual sum."""
    residual: bool = True
    """Add a block's input to the output of its mixer and activation; the MLP always has a residual connection."""
    bn_momentum: float = 0.95
    """Momentum of batch norm: running = momentum * running + (1 - momentum) * batch (PyTorch's is 1 - momentum)."""
    mlp: int = 0
    """Width of the MLP after each mixer, as a multiple of d_model; 0: no MLP. The MLP has its own norm."""
    mlp_activation: Literal["gelu", "silu", "relu"] = "gelu"
    """Activation of the MLP."""
    dropout: float = 0.0
    """Probability that a feature is dropped, at all steps of a sequence at once. Mixers with `DROPOUT` (see
    `s5jax.mixers`) drop with the same probability, each in its own way. The MLP has no dropout."""
    pooling: Literal["mean", "last"] = "mean"
    """`mean`: over a row's last sequence; `last`: the features at its last sample. Padding and
    missing samples do not count."""
    mask_padding: bool = True
    """Keep padding out of the mixers and the batch statistics; otherwise, as published, only out of pooling."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """With `bfloat16`, the activations and matrix products of blocks, outside the mixers, are in bfloat16. Parameters,
    encoder, mixers and their states, statistics of norms, pooling, head and loss stay in float32."""
    remat: Literal["auto", "none", "pointwise", "full", "full_on_cpu"] = "auto"
    """What the backward pass recomputes in a block instead of storing it. `none`: what the mixer itself recomputes, as
    S5 does its states on a CPU; `pointwise`: all but the outputs of the mixer and of the dense layers (cheap); `full`:
    all but the block's input. Batch statistics are always stored. `auto`: `pointwise` on a CPU, otherwise `none`;
    `full_on_cpu`: `full` on a CPU, otherwise `none` (see `stack.schedule`)."""
    unroll: bool | None = None
    """Unroll the loop over repetitions of the pattern: it may run faster, compiles more slowly, and needs more memory.
    None: on GPUs and TPUs, but not on a CPU."""

    def __post_init__(self) -> None:
        check_choices(self)
        check_between(self, 1, 1000, "depth")
        check_between(self, 1, 2**16, "d_model")
        check_between(self, 0, 1000, "mlp")
        check_least(self, 0, "norm_epsilon")
        check_share(self, "dropout", "bn_momentum")
        if not (isinstance(self.pattern, tuple) and all(isinstance(name, str) for name in self.pattern or (0,))):
            raise ValueError(f"pattern must be a tuple of names of mixers, at least one, got {self.pattern!r}")
        if len(self.pattern) > self.depth:
            raise ValueError(f"pattern has {len(self.pattern)} mixers, more than depth {self.depth}")
