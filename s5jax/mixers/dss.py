"""DSS with its published parameters: one diagonal Lambda for all features (Gupta, Gu, Berant 2022, arXiv 2203.14343).

    y_h = K_h * u_h + D_h u_h,    K_l = Re sum_n W_n s_n exp(l z_n),
    z_n = Delta_re Re(Lambda_n) + i Delta_im Im(Lambda_n)

Letters: H features, N modes, L length. Modes do not stand for conjugate pairs: there is no factor 2. The `version`
gives s and the parameters of Lambda:

    softmax               Lambda (N, 2). s exp(l z) is 1 / Lambda times a softmax over `softmax_length` samples
    exp, exp-no-scale     Lambda = -exp(Lambda_log_neg_re) + i Lambda_im, (N,) each
    exp-re-im             Lambda = -exp(Lambda_log_neg_re) + i exp(Lambda_log_im)
    clip, clip-no-scale   Lambda (N, 2), its real part at most 1e-4

where s = 1 with no-scale, otherwise (exp(z) - 1) / Lambda. The other parameters:

    W (H, N, 2)   D (H,)   log_step (H, 1), or (H, 2) for Re and Im with `sep_dt_re_im` (published as log_dt)

A bidirectional mixer has W1 and W2 instead of W. As published, 1e-7 keeps 1 / Lambda and 1 / sum finite.

What differs from the published code: the softmax is over a fixed number of samples, not over the length of each batch.
Where Re(Lambda) > 0, its gradients are those of the kernel (published: the largest exponent, by which all are shifted,
is held constant). Two directions with `max_kernel_length` are right (published: the backward kernel moves with L). In
recurrent mode and in scans a mode that grows more than about e^80 in `softmax_length` samples is lost in float32.
"""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Integer, PRNGKeyArray

from s5jax.ssm import discretize as rules
from s5jax.ssm import feature_system, hippo, measures, parameters, per_feature, scan, sequence, vandermonde, window
from s5jax.ssm.sequence import Flags, Rate

GROUPS = {"dynamics": r"Lambda\w*|log_step|W[12]?"}
MASK = True
MAX_REAL = 1e-4

Params = dict[str, Array]
Version = Literal["softmax", "exp", "exp-re-im", "exp-no-scale", "clip", "clip-no-scale"]


def CAUSAL(options: "Options") -> bool:
    return not options.bidirectional


def RATE(options: "Options") -> str:
    return "scalar" if options.max_kernel_length else "step"


def RESET(options: "Options") -> bool:
    return not options.max_kernel_length


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of DSS."""

    state_size: int = 64
    """N, the number of modes."""
    version: Version = "exp"
    """See the table above. Modes can grow with `softmax` and, at a rate of at most 1e-4, with `clip*`."""
    softmax_length: int = 0
    """Number of samples over which `softmax` normalises, the training length, or `max_kernel_length`; 0 with others."""
    max_kernel_length: int = 0
    """Number of lags after which the kernel is zero; 0: it never is. The state is then the last max_kernel_length - 1
    inputs, a reset is refused, and a rate is one number per sequence."""
    sep_dt_re_im: bool = True
    """Separate step sizes for the real and the imaginary part of Lambda, equal at the start."""
    Lambda_init: Literal["hippo", "randn"] = "hippo"
    """The initial Lambda: -1/2 + i w, w the positive frequencies of HiPPO-LegS' normal part of size 2 N (`hippo`), or
    complex standard normal (`randn`), not with `exp*`."""
    D_init: parameters.FeedthroughInit = "normal"
    """Initialisation of D: standard normal, or zero."""
    dt_min: float = 0.001
    """Smallest initial step size, in the time unit of Lambda. Step sizes are drawn log-uniformly up to dt_max."""
    dt_max: float = 0.1
    """Largest initial step size."""
    bidirectional: bool = False
    """Read the sequence in both directions; there is no recurrent mode then."""
    backward_skips_current: bool = True
    """Start the backward kernel at the next sample, as published; otherwise at the current sample, as in S5."""
    scan_method: scan.Method = "auto"
    """How the scan of irregular samples is computed, see `ssm.scan`. With `plain`, `apply` supports `jax.jvp`."""

    def __post_init__(self) -> None:
        parameters.check_choices(self)
        parameters.check_between(self, 1, 2**13, "state_size")
        parameters.check_between(self, 0, 2**30, "softmax_length", "max_kernel_length")
        parameters.check_step_sizes(self.dt_min, self.dt_max)
        if (self.version == "softmax") != (self.softmax_length > 0):
            raise ValueError(
                "version softmax normalises over softmax_length samples, at least 1; other versions need"
                f" softmax_length 0. Got {self.version} and {self.softmax_length}"
            )
        if self.Lambda_init == "randn" and self.version.startswith("exp"):
            raise ValueError(f"version {self.version} needs Re(Lambda) < 0, but Lambda_init randn has both signs")


def init(key: PRNGKeyArray, width: int, options: Options = Options(), *, depth: int = 1, length: int = 1) -> Params:
    """Initial parameters, float32, as published. `depth` and `length` are not used."""
    N, names = options.state_size, ("W1", "W2") if options.bidirectional else ("W",)
    Lambda_key, D_key, step_key, *W_keys = jax.random.split(key, 5)
    if options.Lambda_init == "hippo":
        frequency = -measures.normal_plus_low_rank(*hippo.legs(2 * N))[0].imag
        Lambda = jnp.asarray(np.stack([np.full(N, -0.5), frequency], -1), jnp.float32)
    else:
        Lambda = jax.random.normal(Lambda_key, (N, 2), jnp.float32) * jnp.float32(np.sqrt(0.5))
    log_step = parameters.log_step(step_key, (width, 1), options.dt_min, options.dt_max)
    stored = {"Lambda": Lambda}
    if options.version.startswith("exp"):
        imag = {"Lambda_log_im": jnp.log(Lambda[:, 1])} if "im" in options.version else {"Lambda_im": Lambda[:, 1]}
        stored = {"Lambda_log_neg_re": jnp.log(-Lambda[:, 0]), **imag}
    return {
        **stored,
        **{name: jax.random.normal(k, (width, N, 2), jnp.float32) for name, k in zip(names, W_keys, strict=False)},
        "D": parameters.init_feedthrough(D_key, width, options.D_init),
        "log_step": jnp.tile(log_step, (1, 2)) if options.sep_dt_re_im else log_step,
    }


def _Lambda(params: Params, options: Options) -> Complex[Array, " N"]:
    if "Lambda" in params:
        real, imag = params["Lambda"][:, 0], params["Lambda"][:, 1]
        return jax.lax.complex(jnp.minimum(real, MAX_REAL) if options.version.startswith("clip") else real, imag)
    imag = params["Lambda_im"] if "Lambda_im" in params else jnp.exp(params["Lambda_log_im"])
    return jax.lax.complex(-jnp.exp(params["Lambda_log_neg_re"]), imag)


def eigenvalues(params: Params, options: Options) -> Complex[Array, "H N"]:
    """z / Delta_im of each feature, in the unit of time of `time_step`."""
    Lambda, log_step = _Lambda(params, options)[None], params["log_step"]
    ratio = jnp.exp(log_step[:, :1] - log_step[:, -1:])
    return jax.lax.complex(ratio * Lambda.real, jnp.broadcast_to(Lambda.imag, (len(ratio), Lambda.shape[1])))


def time_step(params: Params, options: Options) -> Float[Array, "H 1"]:
    """The step sizes, with `sep_dt_re_im` those of Im(Lambda), the unit of time of `eigenvalues`."""
    return jnp.exp(params["log_step"][:, -1:])


def _modes(params: Params, options: Options, rate: Rate | None) -> tuple[Array, Array, Array, Array]:
    """A and Delta, such that z = Delta A at this rate, whose axes come first; s without its shift; log(shift), which is
    zero unless a softmax grows."""
    Lambda, A, log_step = _Lambda(params, options)[None], eigenvalues(params, options), params["log_step"][:, -1:]
    Delta = per_feature.step_sizes(log_step, jnp.asarray(1 if rate is None else rate, log_step.dtype))
    shift, each = jnp.zeros_like(A), parameters.with_rank(A, Delta.ndim)
    if options.version.endswith("no-scale"):
        return each, Delta, jnp.ones_like(each * Delta.astype(A.dtype)), shift
    if options.version == "softmax":
        # 1 / sum_{l<n} exp(l z) = (exp(z) - 1) / (exp(n z) - 1) = -exp(-n z) (exp(z) - 1) / (exp(-n z) - 1)
        horizon = jnp.exp(log_step) * options.softmax_length
        decaying = jnp.where(A.real > 0, -A, A)
        x = Lambda * decaying * rules.zoh(decaying, horizon)[1]
        shift = -jnp.where(A.real > 0, A, 0) * horizon.astype(A.dtype)
        scale = decaying * x.conj() / ((x * x.conj()).real + 1e-7).astype(A.dtype)
    else:
        scale = A * Lambda.conj() / jnp.maximum((Lambda * Lambda.conj()).real, 1e-7).astype(A.dtype)
    return each, Delta, rules.zoh(each, Delta)[1] * parameters.with_rank(scale, Delta.ndim), shift


def _discrete(params, options, rate) -> tuple[Complex[Array, "*steps H N"], Complex[Array, "*steps H N"]]:
    """log(A_bar) and s; the axes of `rate` come first."""
    A, Delta, s, shift = _modes(params, options, rate)
    return vandermonde.log_multiplier(A, Delta), s * parameters.with_rank(jnp.exp(shift), s.ndim)


def _kernel(params, options, Cs, L, rate) -> Float[Array, "directions H {L}"]:
    if options.version != "softmax":
        return feature_system.kernel(functools.partial(_discrete, params, options), Cs, L, rate)
    # Growing modes are computed from the last lag back: from the first one on they overflow where the shift underflows.
    A, Delta, s, shift = _modes(params, options, rate)
    log_a, grows = vandermonde.log_multiplier(A, Delta), A.real > 0
    last = jnp.exp(shift + jnp.where(grows, A, 0) * ((L - 1) * Delta).astype(A.dtype))
    c = jnp.stack([jnp.where(grows, 0, s), jnp.where(grows, s * last, 0)])
    K = vandermonde.vandermonde(jnp.stack(Cs)[:, None] * c[None], jnp.where(grows, -log_a, log_a), L)
    return K[:, 0] + K[:, 1, :, ::-1]


def _system(params: Params, options: Options) -> feature_system.System:
    discrete, most = functools.partial(_discrete, params, options), options.max_kernel_length
    Cs = [parameters.unpair(params[name]) for name in ("W", "W1", "W2") if name in params]

    def kernel(L: int, rate: Rate | None) -> Array:
        lags = min(L, most or L)
        return jnp.pad(_kernel(params, options, Cs, lags, rate), ((0, 0), (0, 0), (0, L - lags)))

    return feature_system.System(discrete, Cs, kernel, "convolution only" if most else "convolution", most)


def kernel(params: Params, L: int, options: Options, *, rate: Rate | None = None) -> Float[Array, "directions H {L}"]:
    """K of each direction, without D, for L >= 1 lags and a rate (), default 1."""
    return _system(params, options).kernel(L, rate)


def apply(
    params: Params,
    x: Float[Array, "B L H"],
    options: Options = Options(),
    *,
    lengths: Integer[Array, " B"] | None = None,
    mask: Bool[Array, "B L"] | None = None,
    reset: Bool[Array, "#B #L"] | None = None,
    rate: Rate | None = None,
    state: Array | None = None,
    key: PRNGKeyArray | None = None,
    dropout: float = 0.0,
) -> tuple[Float[Array, "B L H"], Array | None]:
    """See `s5jax.mixers` and `s4d.apply`. A missing sample is an input of zero; `key` and `dropout` are not used."""
    x, (lengths, _, reset, rate) = sequence.border(x, lengths, mask, reset, rate)
    x = x.astype(params["D"].dtype)
    y, state = feature_system.apply(_system(params, options), x, options, lengths, reset, rate, state)
    return y + parameters.feedthrough(params, x), state


def init_state(params: Params, options: Options, batch: int, *, max_length: int | None = None) -> Array:
    """The zero state (batch, H, N), complex, or (batch, max_kernel_length - 1, H). ValueError if bidirectional."""
    if options.bidirectional:
        raise ValueError(sequence.NOT_RECURRENT)
    if options.max_kernel_length:
        return jnp.zeros((batch, options.max_kernel_length - 1, len(params["D"])), params["D"].dtype)
    return feature_system.init_state(params["W"], batch)


def discretize(params: Params, options: Options, *, rate: Rate | None = None) -> Params:
    """The system for `step`, see `feature_system.cell`; with `max_kernel_length` K (1 or B, H, W) and D. `rate`: () or
    (B,), default 1. ValueError if bidirectional."""
    system = _system(params, options)
    if options.bidirectional or not system.window:
        return feature_system.cell(system, params["D"], rate)
    rates = jnp.atleast_1d(sequence.known_rate(1.0 if rate is None else rate).astype(params["D"].dtype))
    return {"K": jax.vmap(lambda rate: system.kernel(system.window, rate)[0])(rates), "D": params["D"]}


def step(
    cell: Params, state: Array, x_k: Float[Array, "B H"], options: Options, *, mask: Flags = None, reset: Flags = None
) -> tuple[Float[Array, "B H"], Array]:
    """One sample of `apply`: y_k and the next state."""
    if not options.max_kernel_length:
        return feature_system.step(cell, state, x_k, mask=mask, reset=reset)
    x_k = x_k.astype(cell["D"].dtype)
    x_k = x_k if mask is None else jnp.where(mask[:, None], 0, x_k)
    y_k, state = window.step(cell["K"], state, x_k, reset=reset)
    return y_k + parameters.feedthrough(cell, x_k), state
