"""Mamba-2: state space duality between a short convolution and a gated norm (Dao, Gu 2024, arXiv 2405.21060).

    (z, u, r) = x W_in,    (v, B, C) = silu(conv(u) + b_conv),    dt = softplus(r + b_dt)
    h_k = exp(dt_k A) h_{k-1} + dt_k v_k B_k^T,    w_k = h_k C_k + D v_k,    A = -exp(A_log)
    y = rms_norm(w silu(z)) W_out

The E features of v are split among heads of P features, each with a state h (P, N), one A, one D and one dt. G groups
of successive heads share B and C. The norm (epsilon 1e-5) is over all E features. conv is causal, with a kernel of W
taps for each feature. Norm and residual sum around the mixer are the block's.

Letters: H width, E = expansion H, S = E / P heads, N states per feature, F = E + 2 G N. Parameters:

    in_proj_kernel (H, E + F + S), to z, v, B, C and r   conv_kernel (F, W), the current sample's tap first
    conv_bias (F,)   dt_bias, A_log, D (S,)   norm_scale (E,)   out_proj_kernel (E, H)

At a missing sample u, v, B, C and the output are zero, and h decays over the step size of a zero input,
softplus(b_dt). A rate is a factor on dt; the convolution counts samples, not time.

The state is a dict: conv (B, W - 1, F), the last W - 1 values of u, and h (B, S, P, N).
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Complex, Float, Integer, PRNGKeyArray

from s5jax.mixers.mamba import init_dt_bias, uniform
from s5jax.ssm import parameters, scan, sequence, ssd, tap_conv, window
from s5jax.ssm.product import product
from s5jax.ssm.sequence import Flags, Rate

CAUSAL, RATE, MASK, RESET = True, "step", True, True
GROUPS = {"dynamics": "A_log|D|dt_bias"}

Params = dict[str, Array]
State = dict[str, Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of Mamba-2."""

    state_size: int = 64
    """N, the number of states per feature."""
    expansion: int = 2
    """E / H, the number of features of the state space per feature of the model."""
    head_dim: int = 64
    """P, the number of features of a head; must divide E."""
    groups: int = 1
    """G, the number of groups of heads that share B and C; must divide the number of heads."""
    conv_size: int = 4
    """W, the number of taps of the convolution."""
    A_min: float = 1.0
    """Smallest initial -A; they are drawn uniformly between A_min and A_max."""
    A_max: float = 16.0
    """Largest initial -A."""
    dt_min: float = 0.001
    """Smallest initial step size, in the time unit of A: softplus(b_dt) is log-uniform from dt_min to dt_max."""
    dt_max: float = 0.1
    """Largest initial step size."""
    dt_floor: float = 1e-4
    """Initial step sizes are at least this."""
    block: int = ssd.BLOCK
    """Number of steps in a chunk of the algorithm; it does not change the function."""
    scan_method: scan.Method = "auto"
    """How the scan over chunks is computed, see `ssm.scan`. With `plain`, it supports `jax.jvp`."""

    def __post_init__(self) -> None:
        parameters.check_choices(self)
        parameters.check_between(self, 1, 2**13, "state_size", "block")
        parameters.check_between(self, 1, 2**10, "expansion", "conv_size")
        parameters.check_between(self, 1, 2**16, "head_dim", "groups")
        parameters.check_least(self, 0, "dt_floor")
        parameters.check_step_sizes(self.dt_min, self.dt_max)
        if not 0 < self.A_min <= self.A_max:
            raise ValueError(f"A_min and A_max must satisfy 0 < A_min <= A_max, got {self.A_min} and {self.A_max}")


def init(key: PRNGKeyArray, width: int, options: Options, *, depth: int = 1, length: int = 1) -> Params:
    """Initial parameters, float32, as published: -A uniform from A_min to A_max, D and norm_scale 1, kernels and b_conv
    uniform in +-1/sqrt(inputs of an output). W_out is divided by sqrt(depth), as in the published language model of
    Mamba. `length` is not used. ValueError if head_dim does not divide E, or groups the number of heads."""
    H, E, N, W = width, options.expansion * width, options.state_size, options.conv_size
    if E % options.head_dim:
        raise ValueError(f"head_dim must divide the {E} features of the state space, got {options.head_dim}")
    S = E // options.head_dim
    if S % options.groups:
        raise ValueError(f"groups must divide the number of heads, {S}, got {options.groups}")
    F, keys = E + 2 * options.groups * N, jax.random.split(key, 6)
    A = jax.random.uniform(keys[4], (S,), jnp.float32, options.A_min, options.A_max)
    return {
        "in_proj_kernel": uniform(keys[0], (H, E + F + S), H),
        "conv_kernel": uniform(keys[1], (F, W), W),
        "conv_bias": uniform(keys[2], (F,), W),
        "dt_bias": init_dt_bias(keys[3], S, options),
        "A_log": jnp.log(A),
        "D": jnp.ones(S, jnp.float32),
        "norm_scale": jnp.ones(E, jnp.float32),
        "out_proj_kernel": uniform(keys[5], (E, H), E) / math.sqrt(depth),
    }


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
    """See `s5jax.mixers`. `key` and `dropout` are not used."""
    x, given = sequence.border(x, lengths, mask, reset, rate)
    counted, starts, before = given.counted(x.shape[1]), given.starts(x.shape[1]), state or dict.fromkeys(("conv", "h"))
    z, u, r = _inputs(params, x.astype(params["D"].dtype), counted)
    u, conv = tap_conv.apply(params["conv_kernel"], u, given.lengths, before["conv"], starts=starts)
    v, B, C = _selection(params, u, options, counted)
    dt = jax.nn.softplus(r + params["dt_bias"][None, None])
    if given.rate is not None:
        factor = jnp.asarray(sequence.gaps(given.rate, given.lengths), dt.dtype)
        dt = dt * factor.reshape(*factor.shape, *(1,) * (3 - factor.ndim))
    if given.lengths is not None:
        dt = jnp.where(sequence.valid_steps(given.lengths, x.shape[1])[..., None], dt, 0)
    driven, log_decay = dt[..., None] * v, -jnp.exp(params["A_log"])[None, None] * dt
    method, block = options.scan_method, options.block
    y, h = ssd.ssd(driven, log_decay, B, C, reset=starts, state=before["h"], block=block, scan_method=method)
    y = checkpoint_name(y, "product") + params["D"][None, None, :, None] * v
    return _output(params, y, z), None if conv is None else {"conv": conv, "h": h}


def _inputs(params: Params, x: Float[Array, "B L H"], counted: Bool[Array, "B L"] | None) -> list[Array]:
    """z (B, L, E), u (B, L, F) and r (B, L, S)."""
    E, F = len(params["norm_scale"]), len(params["conv_bias"])
    z, u, r = jnp.split(checkpoint_name(product(x, params["in_proj_kernel"]), "product"), [E, E + F], axis=-1)
    return [z, u if counted is None else jnp.where(counted[..., None], u, 0), r]


def _selection(params: Params, u: Array, options: Options, counted: Bool[Array, "B L"] | None) -> tuple[Array, ...]:
    """v (B, L, S, P), B and C (B, L, G, N), from the output of the convolution."""
    u = jax.nn.silu(u + params["conv_bias"][None, None])
    u = u if counted is None else jnp.where(counted[..., None], u, 0)
    E, GN = len(params["norm_scale"]), options.groups * options.state_size
    v, B, C = jnp.split(u, [E, E + GN], axis=-1)
    B, C = (M.reshape(*u.shape[:2], options.groups, options.state_size) for M in (B, C))
    return v.reshape(*u.shape[:2], len(params["D"]), options.head_dim), B, C


def _output(params: Params, y: Float[Array, "B L S P"], z: Float[Array, "B L E"]) -> Float[Array, "B L H"]:
    y = y.reshape(z.shape) * jax.nn.silu(z)
    y = y * jax.lax.rsqrt(jnp.mean(y * y, -1, keepdims=True) + 1e-5) * params["norm_scale"][None, None]
    return product(y, params["out_proj_kernel"])


def init_state(params: Params, options: Options, batch: int, *, max_length: int | None = None) -> State:
    """The zero state. `max_length` is not used."""
    h = jnp.zeros((batch, len(params["D"]), options.head_dim, options.state_size), params["D"].dtype)
    return {"conv": window.init_state(batch, params["conv_kernel"]), "h": h}


def discretize(params: Params, options: Options, *, rate: Rate | None = None) -> Params:
    """The parameters and the rate, () or (B,), default 1."""
    rate = sequence.known_rate(1.0 if rate is None else rate)
    return {**params, "rate": rate.astype(params["D"].dtype)}


def step(
    cell: Params, state: State, x_k: Float[Array, "B H"], options: Options, *, mask: Flags = None, reset: Flags = None
) -> tuple[Float[Array, "B H"], State]:
    """One sample of `apply`: y_k and the next state."""
    x_k = x_k.astype(cell["D"].dtype)
    x_k = x_k if mask is None else jnp.where(mask[:, None], 0, x_k)
    counted = None if mask is None else ~mask[:, None]
    z, u, r = _inputs(cell, x_k[:, None], counted)
    u, conv = window.step(cell["conv_kernel"], state["conv"], u[:, 0], reset=reset)
    v, B, C = (each[:, 0] for each in _selection(cell, u[:, None], options, counted))
    B, C = (jnp.repeat(M, v.shape[1] // options.groups, axis=1)[:, :, None] for M in (B, C))
    dt = jax.nn.softplus(r[:, 0] + cell["dt_bias"][None]) * jnp.reshape(cell["rate"], (-1, 1))
    h = state["h"] if reset is None else jnp.where(reset[:, None, None, None], 0, state["h"])
    h = jnp.exp(-jnp.exp(cell["A_log"])[None] * dt)[..., None, None] * h + (dt[..., None] * v)[..., None] * B
    y = (h * C).sum(-1) + cell["D"][None, :, None] * v
    return _output(cell, y[:, None], z)[:, 0], {"conv": conv, "h": h}


def eigenvalues(params: Params, options: Options) -> Complex[Array, " S"]:
    """A of each head, in 1/time."""
    A = -jnp.exp(params["A_log"])
    return jax.lax.complex(A, jnp.zeros_like(A))
