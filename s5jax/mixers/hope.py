"""HOPE: Hankel operator parameterization (Yu, Mahoney, Erichson 2024, arXiv 2405.13975).

A feature's system is given by its Markov parameters h_1, ..., h_n instead of (A, B, C):

    G(s) = sum_{j=1..n} h_j z^-j + D,    z = (1 + s/2) / (1 - s/2)

Samples that are Delta apart are filtered by G at s = (2/Delta) (w - 1)/(w + 1), the bilinear rule, w = exp(i omega) for
omega radians per sample. Then 1/z runs over the unit circle, too, at an angle that depends on Delta:

    1/z = exp(-i theta),    theta(omega) = 2 atan(tan(omega/2) / Delta)

(The paper has z = (1 + s)/(1 - s) and s = (w - 1)/(w + 1)/Delta, in another unit of time.) At Delta = 1, h_j is the
weight of the input j steps ago. A smaller Delta stretches this memory to about n/Delta steps.

One direction. A causal HOPE has not been published; this is ours. In the delay q = 1/w of one sample,

    1/z = phi(q) = (q - a)/(1 - a q),    a = (1 - Delta)/(1 + Delta),    |a| < 1

is a stable all-pass filter of first order, whose impulse response is -a, 1 - a^2, (1 - a^2) a, (1 - a^2) a^2, ... The
sum of h_j phi^j is therefore causal and stable at any Delta. It is a weighted sum of the outputs of a chain of n such
filters, each with one real state: the recurrent mode is exact, and only real h matter. The kernel is computed from the
chain (`ssm.allpass`): samples of G on the circle would alias later lags into it. All poles of G are at s = -2.

Two directions, as published. The sequence is mirrored to [x, x reversed]. The output is D x plus a circular convolution
over 2 L steps with a filter made of two sequences of complex h (`ssm.warped_circle`). With readout "linear" the outputs
are the first L steps: x is convolved as if it were reflected at both ends. With "glu", as published for ListOps, Text
and Retrieval, the other L steps are reversed and appended as H more features, and gelu, a dense layer and a gate map
all 2 H features to H; set `model.activation` to none.

`mirror=False` takes the sequence itself as periodic, as the published layer for Image, Pathfinder, Path-X and noisy
CIFAR does. For the first three the published network mirrors its inputs once, before the first layer, and averages over
2 L steps: its outputs are the same for a sequence and its reverse. In two directions padding counts as inputs of zero.
The published configurations for ListOps, Text and Retrieval pass h the weight decay, 0, as its learning rate, so that h
keeps its initial value. Here h is trained, as in the paper.

Letters: H features, n = `state_size`, S = `n_ssm` copies of h, feature i uses copy i mod S. Parameters, all real:

    h (S, n)   log_step (H, 1)   D (H,)

In two directions h is (2, S, n, 2), complex as pairs, and log_step is (2, H, 1) with `dt_per_direction`; with readout
"glu" D is (2, H), and there are out_kernel (2H, 2H) and out_bias (2H,). log_step is the log of Delta or, with
`dt_transform` "softplus", its inverse softplus. In the published code h is `Han` or `H`, log_step `inv_dt` or `log_dt`.
"""

import dataclasses
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float, Integer, PRNGKeyArray

from s5jax.mixers import check, find
from s5jax.ssm import allpass, feature_system, fft_conv, parameters, per_feature, warped_circle
from s5jax.ssm.sequence import NOT_RECURRENT, Flags, Rate, border, known_rate

RATE, MASK = "scalar", True
GROUPS = {"dynamics": "h|log_step"}

Params = dict[str, Array]
State = Float[Array, "B H n"]


def CAUSAL(options: "Options") -> bool:
    return not options.bidirectional


def PADDING(options: "Options") -> str:
    return "zeros" if options.bidirectional else "exact"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of HOPE."""

    state_size: int = 64
    """n, the number of Markov parameters; in the published standalone layer half of its `d_state`."""
    n_ssm: int = 0
    """S, the number of copies of h; must divide the width; 0: one copy per feature."""
    h_scale: float = 0.5
    """The initial h has the standard deviation h_scale / sqrt(n). The root mean square of G without D is h_scale in one
    direction, h_scale / sqrt(2) in two. The published standalone layer has 0.354."""
    D_init: parameters.FeedthroughInit = "normal"
    """Initialisation of D: standard normal, or zero."""
    dt_min: float = 0.001
    """Smallest initial step size. Step sizes are drawn log-uniformly from dt_min to dt_max."""
    dt_max: float = 0.1
    """Largest initial step size."""
    dt_transform: per_feature.DtTransform = "exp"
    """How the step size is computed from log_step."""
    dt_per_direction: bool = False
    """In two directions, one step size per feature and direction instead of one per feature."""
    bidirectional: bool = False
    """Convolve the mirrored sequence in both directions, as published; there is no recurrent mode then."""
    mirror: bool = True
    """In two directions, mirror the sequence; otherwise it is taken as periodic, and its length must be even."""
    readout: Literal["linear", "glu"] = "linear"
    """In two directions: the first half of the output, or both halves through a gate, as published."""
    conv_method: Literal["fft", "plain"] = "fft"
    """How the causal convolution is differentiated, see `ssm.fft_conv`. `plain` supports `jax.jvp`."""

    def __post_init__(self) -> None:
        parameters.check_choices(self)
        parameters.check_between(self, 1, 2**14, "state_size")
        parameters.check_between(self, 0, 2**16, "n_ssm")
        parameters.check_step_sizes(self.dt_min, self.dt_max)
        if self.h_scale <= 0:
            raise ValueError(f"h_scale must be positive, got {self.h_scale}")
        if self.readout == "glu" and not self.mirror:
            raise ValueError("readout glu needs mirror=True: it joins the two halves of a mirrored sequence")


def init(key: PRNGKeyArray, width: int, options: Options, *, depth: int = 1, length: int = 1) -> Params:
    """Initial parameters, float32 (arXiv 2405.13975, section 4; scale as in the published code). The dense layer of the
    readout "glu" is uniform, as in PyTorch. `depth` and `length` are not used."""
    copies, n, H, two = per_feature.copies(options.n_ssm, width), options.state_size, width, options.bidirectional
    h_key, D_key, step_key, kernel_key, bias_key = jax.random.split(key, 5)
    shape, size = ((2, copies, n, 2), options.h_scale / 2**0.5) if two else ((copies, n), options.h_scale)
    steps = (2, H, 1) if two and options.dt_per_direction else (H, 1)
    log_step = parameters.log_step(step_key, steps, options.dt_min, options.dt_max)
    glu = two and options.readout == "glu"
    D = parameters.init_feedthrough(D_key, 2 * H if glu else H, options.D_init)
    params = {
        "h": jax.random.normal(h_key, shape, jnp.float32) * jnp.float32(size / math.sqrt(n)),
        "log_step": per_feature.raw_step(log_step, options.dt_transform),
        "D": D.reshape(2, H) if glu else D,
    }
    if glu:
        bound = 1 / math.sqrt(2 * H)
        params["out_kernel"] = jax.random.uniform(kernel_key, (2 * H, 2 * H), jnp.float32, -bound, bound)
        params["out_bias"] = jax.random.uniform(bias_key, (2 * H,), jnp.float32, -bound, bound)
    return params


def apply(
    params: Params,
    x: Float[Array, "B L H"],
    options: Options,
    *,
    lengths: Integer[Array, " B"] | None = None,
    mask: Bool[Array, "B L"] | None = None,
    reset: Bool[Array, "#B #L"] | None = None,
    rate: Rate | None = None,
    state: State | None = None,
    key: PRNGKeyArray | None = None,
    dropout: float = 0.0,
) -> tuple[Float[Array, "B L H"], State | None]:
    """See `s5jax.mixers`. A missing sample is an input of zero; `key` and `dropout` are not used. ValueError for a
    reset, a rate per step, a state in two directions, and an odd length with `mirror=False`."""
    check(find(__name__), options, reset=reset, rate=rate, state=state)
    x, (lengths, _, _, rate) = border(x, lengths, mask, None, rate)
    x = x.astype(params["h"].dtype)
    Delta = _step_sizes(params, options, rate)
    if Delta.ndim == params["log_step"].ndim:  # one filter per sequence

        def one(Delta: Array, *arguments: Any) -> tuple[Array, Array | None]:
            return _filtered(params, options, Delta[0], *arguments)

        return feature_system.each_alone(one, Delta, x, lengths, state)
    return _filtered(params, options, Delta, x, lengths, state)


def _filtered(params, options, Delta, x, lengths, state) -> tuple[Array, Array | None]:
    if options.bidirectional:
        return _two_directions(params, x, options, Delta), None
    h, L = _tiled(params), x.shape[1]
    K = allpass.kernel(h, Delta, L)
    y = fft_conv.convolve(x, K[None], plain=options.conv_method == "plain") + parameters.feedthrough(params, x)
    if state is None:
        return y, None
    y = y + jnp.swapaxes(allpass.response(h, Delta, state, L), 1, 2)
    return y, allpass.final_state(Delta, x, lengths, state)


def _two_directions(params, x, options, Delta) -> Array:
    L, H = x.shape[1:]
    if not options.mirror and L % 2:
        raise ValueError(f"mirror=False needs sequences of even length, got {L}")
    h = jnp.tile(params["h"], (1, H // params["h"].shape[1], 1, 1))
    whole = jnp.concatenate([x, x[:, ::-1]], axis=1) if options.mirror else x
    y = warped_circle.convolve(whole, h, jnp.broadcast_to(Delta, (2, H)))
    if options.readout == "linear":
        return y[:, :L] + parameters.feedthrough(params, x)
    y = jnp.concatenate([y[:, :L], y[:, L:][:, ::-1]], axis=2)
    y = y + jnp.broadcast_to(params["D"].reshape(-1), y.shape) * jnp.tile(x, (1, 1, 2))
    y = jax.nn.gelu(y, approximate=False) @ params["out_kernel"] + jnp.broadcast_to(params["out_bias"], y.shape)
    return y[..., :H] * jax.nn.sigmoid(y[..., H:])


def _step_sizes(params: Params, options: Options, rate: Rate | None) -> Float[Array, "..."]:
    """The step sizes (H,), or (2, H), times `rate`, whose axis comes first."""
    steps = time_step(params, options)[..., 0]
    return jnp.multiply.outer(known_rate(1.0 if rate is None else rate).astype(steps.dtype), steps)


def time_step(params: Params, options: Options) -> Float[Array, "*directions H 1"]:
    """The step sizes, in the unit of time of `transfer_function`."""
    return per_feature.time_step(params["log_step"], options.dt_transform)


def init_state(params: Params, options: Options, batch: int, *, max_length: int | None = None) -> State:
    """The zero state (batch, H, n). ValueError if bidirectional. `max_length` is not used."""
    if options.bidirectional:
        raise ValueError(NOT_RECURRENT)
    return jnp.zeros((batch, len(params["D"]), params["h"].shape[-1]), params["h"].dtype)


def discretize(params: Params, options: Options, *, rate: Rate | None = None) -> dict[str, Array]:
    """For `step`: h (H, n), Delta (H,) or (B, H), and D (H,). ValueError if bidirectional."""
    if options.bidirectional:
        raise ValueError(NOT_RECURRENT)
    return {"h": _tiled(params), "Delta": _step_sizes(params, options, rate), "D": params["D"]}


def step(
    cell: Params, state: State, x_k: Float[Array, "B H"], options: Options, *, mask: Flags = None, reset: Flags = None
) -> tuple[Float[Array, "B H"], State]:
    """One sample of `apply`: y_k and the next state."""
    x_k = x_k.astype(cell["D"].dtype)
    x_k = x_k if mask is None else jnp.where(mask[:, None], 0, x_k)
    state = state if reset is None else jnp.where(reset[:, None, None], 0, state)
    y_k, state = allpass.step(cell["h"], cell["Delta"], state, x_k)
    return y_k + parameters.feedthrough(cell, x_k), state


def kernel(params: Params, L: int, options: Options, *, rate: Rate | None = None) -> Float[Array, "1 H {L}"]:
    """The impulse response without D, for L >= 1 lags and a rate (), default 1. ValueError if bidirectional: the kernel
    is circular then, another one for each length."""
    if options.bidirectional:
        raise ValueError("HOPE in two directions has no impulse response: its convolution is circular")
    return allpass.kernel(_tiled(params), _step_sizes(params, options, rate), L)[None]


def transfer_function(
    params: Params, s: Complex[Array, "*frequencies"], options: Options
) -> Complex[Array, "*frequencies H H"]:
    """G(s), diagonal. It does not depend on the step sizes. ValueError if bidirectional."""
    if options.bidirectional:
        raise ValueError("HOPE in two directions has no transfer function of s: its angles run over the circle twice")
    h, D = _tiled(params), params["D"]
    coefficients = jnp.concatenate([h.T[::-1], D[None]]).astype(s.dtype)
    inverse = jnp.broadcast_to(((2 - s) / (2 + s))[..., None], (*s.shape, len(D)))
    G = jnp.polyval(coefficients.reshape(-1, *(1,) * s.ndim, len(D)), inverse)
    return G[..., None] * parameters.with_rank(jnp.eye(len(D), dtype=G.dtype), G.ndim + 1)


def _tiled(params: Params) -> Float[Array, "H n"]:
    return per_feature.tile_copies(params["h"], len(params["D"]))
