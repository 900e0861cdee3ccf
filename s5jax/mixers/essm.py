"""eSSM: a multi-input, multi-output diagonal system in independent heads (Liang, Li 2024, arXiv 2402.15290).

    x'(t) = Lambda x(t) + B u(t),    y(t) = 2 Re(C x(t)) + D u(t)    in each head, with its own features

B and C are real matrices, and without `conj_sym` y = Re(C x) + D u. With several heads, a linear map of all features
follows, the head mixer. The factor of B at a step size Delta is (exp(Lambda Delta) - 1) conj(Lambda) / (|Lambda|^2 +
1e-7), as published: zero-order hold, but for the 1e-7. Real parts of Lambda are clipped to at most -1e-4.

Letters: S heads with h = H / S features and n states each, H features, N = S n states, L length. The parameters are
those of the published code, without its axis of channels (always 1); its `log_dt` is log_step here:

    Lambda (S, n, 2)   B (S, n, h)   C (S, h, n)   D (H,)   log_step (S, n), or (S, 1) without `dt_per_state`
    head_mixer_kernel (H, H), from input to output, and head_mixer_bias (H,), if S > 1

In two directions the same system, with the same parameters, also reads from the end, starting at the next sample.
"""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Integer, PRNGKeyArray

from s5jax.mixers import s4d
from s5jax.ssm import diagonal_step, feature_system, hippo, parameters, per_feature, scan, sequence, vandermonde
from s5jax.ssm import discretize as rules
from s5jax.ssm.dropout import drop
from s5jax.ssm.parameters import unpair, with_rank
from s5jax.ssm.sequence import Flags, Rate

RATE, MASK, RESET = "step", True, True
GROUPS = {"dynamics": "Lambda|B|C|D|log_step"}
CAUSAL = s4d.CAUSAL

Params = dict[str, Array]
State = Complex[Array, "B N"]


def DROPOUT(options: "Options") -> bool:
    return options.heads > 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of eSSM. Hashable, so that they can be static arguments of `jax.jit`."""

    state_size: int = 64
    """N, the number of stored states of all heads (`d_s` of the published recipes, with their `keep_d_state`)."""
    heads: int = 1
    """S, the number of heads; must divide the width and `state_size`."""
    conj_sym: bool = True
    """Each stored state stands for a conjugate pair. If false, y = Re(C x) + D u, and each initial frequency occurs
    twice, always with a negative imaginary part."""
    C_init: Literal["trunc_normal", "hippo"] = "trunc_normal"
    """Initial C: standard normal cut at +-2, or the real part of such a complex matrix in HiPPO-LegS' eigenbasis."""
    dt_min: float = 0.001
    """Smallest initial step size, in the time unit of Lambda. They are drawn log-uniformly from dt_min to dt_max."""
    dt_max: float = 0.1
    """Largest initial step size."""
    dt_per_state: bool = True
    """One step size per state instead of one per head (`d_dt_is_n` of the published recipes)."""
    bidirectional: bool = False
    """Read the sequence in both directions; there is no recurrent mode then."""
    backward_skips_current: bool = True
    """Start the backward kernel at the next sample, as published; otherwise at the current sample, as in S5."""
    mode: Literal["convolution", "scan"] = "convolution"
    """How `apply` computes the states. `scan` stores them, (B, L, N) complex."""
    scan_method: scan.Method = "auto"
    """How the scan is computed, see `ssm.scan`. With `plain`, scan and convolution support `jax.jvp`."""

    def __post_init__(self) -> None:
        parameters.check_choices(self)
        parameters.check_between(self, 1, 2**14, "state_size", "heads")
        parameters.check_step_sizes(self.dt_min, self.dt_max)
        if self.state_size % self.heads:
            raise ValueError(f"heads {self.heads} does not divide state_size {self.state_size}")


def init(key: PRNGKeyArray, width: int, options: Options, *, depth: int = 1, length: int = 1) -> Params:
    """Initial parameters, float32, as published; `depth` and `length` are not used.

    Lambda are the eigenvalues of HiPPO-LegS' normal part, with negative imaginary parts: one of each of n pairs with
    `conj_sym` (the published code: the first n in the order of LAPACK), otherwise n. B is Re(V^* X), the same in all
    heads, with V the eigenvectors and X complex, its parts standard normals cut at +-2. D is 1, and the head mixer is
    uniform in +-1/sqrt(H). ValueError if the heads do not divide the width.
    """
    S = options.heads
    if width % S:
        raise ValueError(f"heads {S} does not divide the width {width}")
    n, h = options.state_size // S, width // S
    Lambda, V = hippo.normal_part(*hippo.legs(2 * n if options.conj_sym else n)[::2])
    Lambda, V = hippo.conjugate_half(Lambda, V) if options.conj_sym else (Lambda, V)
    B_key, C_key, step_key, kernel_key, bias_key = jax.random.split(key, 5)
    cut_normal = functools.partial(jax.random.truncated_normal, lower=-2, upper=2, dtype=jnp.float32)

    def projected(key: PRNGKeyArray, shape: tuple[int, ...], V: Complex[np.ndarray, "m n"]) -> Float[Array, "..."]:
        drawn = unpair(cut_normal(key, shape=(*shape, len(V), 2)))
        return jnp.matmul(drawn, jnp.asarray(V, jnp.complex64), precision="highest").real

    C = projected(C_key, (S, h), V) if options.C_init == "hippo" else cut_normal(C_key, shape=(S, h, n))
    steps = (S, n if options.dt_per_state else 1)
    params = {
        "Lambda": jnp.tile(jnp.asarray([Lambda.real, -np.abs(Lambda.imag)], jnp.float32).T[None], (S, 1, 1)),
        "B": jnp.tile(projected(B_key, (h,), V.conj()).T[None], (S, 1, 1)),
        "C": C,
        "D": jnp.ones(width, jnp.float32),
        "log_step": parameters.log_step(step_key, steps, options.dt_min, options.dt_max),
    }
    if S > 1:
        draw = functools.partial(jax.random.uniform, dtype=jnp.float32, minval=-(width**-0.5), maxval=width**-0.5)
        params |= {"head_mixer_kernel": draw(kernel_key, (width, width)), "head_mixer_bias": draw(bias_key, (width,))}
    return params


def eigenvalues(params: Params, options: Options) -> Complex[Array, "S n"]:
    """Lambda, its real parts clipped; in 1/time."""
    return unpair(params["Lambda"].at[..., 0].min(-1e-4))


def time_step(params: Params, options: Options) -> Float[Array, "S m"]:
    """The step sizes, in the time unit of Lambda: (S, n), or (S, 1) without `dt_per_state`."""
    return jnp.exp(params["log_step"])


def _discrete(params: Params, options: Options, rate: Rate | None) -> tuple[Complex[Array, "..."], ...]:
    """log(Lambda_bar) and the factor of B, (*steps, N); the axes of `rate` come first."""
    Delta = per_feature.step_sizes(params["log_step"], 1.0 if rate is None else rate)
    Lambda = with_rank(eigenvalues(params, options), Delta.ndim)
    square = (jnp.square(Lambda.real) + jnp.square(Lambda.imag)).astype(Lambda.dtype)
    both = vandermonde.log_multiplier(Lambda, Delta), rules.zoh(Lambda, Delta)[1] * square / (square + 1e-7)
    return tuple(z.reshape(*z.shape[:-2], options.state_size) for z in both)


def _system(params: Params, options: Options) -> feature_system.System:
    """N systems of one state each, whose outputs are the real parts of their states."""

    def discrete(rate: Rate | None) -> tuple[Array, Array]:
        log_a, gamma = _discrete(params, options, rate)
        return log_a[..., None], gamma[..., None]

    one = jnp.ones((options.state_size, 1), params["D"].dtype)
    Cs = [jax.lax.complex(one, jnp.zeros_like(one))] * (1 + options.bidirectional)
    return feature_system.System(discrete, Cs, functools.partial(feature_system.kernel, discrete, Cs), options.mode)


def _drive(params: Params, u: Float[Array, "*batch H"]) -> Float[Array, "*batch N"]:
    """B u."""
    S, n, h = params["B"].shape
    return jnp.einsum("...sh,snh->...sn", u.reshape(*u.shape[:-1], S, h), params["B"]).reshape(*u.shape[:-1], S * n)


def _read_out(
    params: Params, options: Options, x: Float[Array, "*batch N"], u: Float[Array, "*batch H"], key=None, dropout=0.0
) -> Float[Array, "*batch H"]:
    """C x + D u, with C doubled for conjugate pairs, and the head mixer."""
    C = params["C"] * (2 if options.conj_sym else 1)
    x = x.reshape(*x.shape[:-1], C.shape[0], C.shape[2])
    y = jnp.einsum("...sn,shn->...sh", x, C).reshape(u.shape) + parameters.feedthrough(params, u)
    if options.heads == 1:
        return y
    y = drop(y, key, dropout)
    return jnp.matmul(y, params["head_mixer_kernel"]) + jnp.broadcast_to(params["head_mixer_bias"], y.shape)


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
    dropout: Float[Array, ""] | float = 0.0,
) -> tuple[Float[Array, "B L H"], State | None]:
    """See `s5jax.mixers`. A missing sample is an input of zero; `dropout` acts on the head mixer's inputs. The states
    are computed as by `feature_system.apply`."""
    x, (lengths, _, reset, rate) = sequence.border(x, lengths, mask, reset, rate)
    x = x.astype(params["D"].dtype)
    system, start = _system(params, options), None if state is None else state[..., None]
    states, last = feature_system.apply(system, _drive(params, x), options, lengths, reset, rate, start)
    last = None if last is None else last[..., 0]
    return _read_out(params, options, states, x, key, dropout), last


def kernel(params: Params, L: int, options: Options, *, rate: Rate | None = None) -> Float[Array, "directions H H {L}"]:
    """The impulse response, (direction, output, input, lag), for L >= 1 lags, the head mixer included, without D and
    without biases. `rate` is (), default 1."""
    K = _system(params, options).kernel(L, rate)[0].reshape(*params["Lambda"].shape[:2], L)
    product, factor = functools.partial(jnp.einsum, precision="highest"), 2 if options.conj_sym else 1
    K = product("son,snl,sni->soil", factor * params["C"], K, params["B"])
    K = product("soil,st->sotil", K, jnp.eye(options.heads, dtype=K.dtype)).reshape(*2 * params["D"].shape, L)
    K = product("oil,om->mil", K, params["head_mixer_kernel"]) if options.heads > 1 else K
    return jnp.stack([K, K] if options.bidirectional else [K])


def init_state(params: Params, options: Options, batch: int, *, max_length: int | None = None) -> State:
    """The zero state (batch, N), complex. ValueError if bidirectional. `max_length` is not used."""
    flat = params["Lambda"][..., 0].reshape(-1)
    return diagonal_step.init_state(flat, batch, two_directions=options.bidirectional)


def discretize(params: Params, options: Options, *, rate: Rate | None = None) -> Params:
    """For `step`: the parameters, and a and gamma, (N,) or (B, N), complex. ValueError if bidirectional."""
    if options.bidirectional:
        raise ValueError(sequence.NOT_RECURRENT)
    log_a, gamma = _discrete(params, options, rate)
    return {**params, "a": jnp.exp(log_a), "gamma": gamma}


def step(
    cell: Params, state: State, x_k: Float[Array, "B H"], options: Options, *, mask: Flags = None, reset: Flags = None
) -> tuple[Float[Array, "B H"], State]:
    """One sample of `apply`: y_k and the next state."""
    x_k = x_k.astype(cell["D"].dtype)
    x_k = x_k if mask is None else jnp.where(mask[:, None], 0, x_k)
    state = state if reset is None else jnp.where(reset[:, None], 0, state)
    a, gamma = (with_rank(cell[name], 2) for name in ("a", "gamma"))
    state = a * state + gamma * _drive(cell, x_k).astype(gamma.dtype)
    return _read_out(cell, options, state.real, x_k), state
