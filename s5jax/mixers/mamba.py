"""Mamba: a selective state space between a short convolution and a gate (Gu, Dao 2023, arXiv 2312.00752, section 3).

    (u, z) = x W_in + b_in,    v = silu(conv(u) + b_conv)
    (r, B, C) = v W_x,    dt = softplus(r W_dt + b_dt)
    h_k = exp(dt_k A) h_{k-1} + dt_k B_k v_k,    A = -exp(A_log),    y = ((C_k h_k + D v_k) silu(z)) W_out + b_out

in each of the E features of v, which share B and C; conv is causal, with a kernel of W taps for each feature. Norm and
residual sum are the block's.

Letters: H width, E = expansion H, N states per feature, R rank of the step sizes. A dense layer is x @ kernel + bias.
Parameters:

    in_proj_kernel (H, 2 E)   conv_kernel (E, W), the current sample's tap first   conv_bias (E,)
    x_proj_kernel (E, R + 2 N)   dt_proj_kernel (R, E)   dt_proj_bias (E,)   A_log (E, N)   D (E,)
    out_proj_kernel (E, H)   and, with `bias`, in_proj_bias (2 E,) and out_proj_bias (H,)

At a missing sample u, v, B and C are zero, the output is b_out, and h decays over the step size of a zero input,
softplus(b_dt). A rate is a factor on dt; the convolution counts samples, not time.

The state is a dict: conv (B, W - 1, E), the last W - 1 values of u, and h (B, E, N).
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Complex, Float, Integer, PRNGKeyArray

from s5jax.ssm import parameters, selective_scan, sequence, tap_conv, window
from s5jax.ssm.product import product
from s5jax.ssm.sequence import Flags, Rate

CAUSAL, RATE, MASK, RESET = True, "step", True, True
GROUPS = {"dynamics": "A_log|D"}

Params = dict[str, Array]
State = dict[str, Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of Mamba."""

    state_size: int = 16
    """N, the number of states per feature."""
    expansion: int = 2
    """E / H, the number of features of the state space per feature of the model."""
    conv_size: int = 4
    """W, the number of taps of the convolution."""
    dt_rank: int = 0
    """R, the rank of the map from v to the step sizes; 0: H / 16, rounded up."""
    dt_min: float = 0.001
    """Smallest initial step size, in the time unit of A: softplus(b_dt) is log-uniform from dt_min to dt_max."""
    dt_max: float = 0.1
    """Largest initial step size."""
    dt_floor: float = 1e-4
    """Initial step sizes are at least this."""
    bias: bool = False
    """Whether the first and the last dense layer have biases."""
    scan_method: selective_scan.Method = "auto"
    """How the scan is computed, see `ssm.selective_scan`. With `plain`, it supports `jax.jvp`."""

    def __post_init__(self) -> None:
        parameters.check_choices(self)
        parameters.check_between(self, 1, 2**13, "state_size")
        parameters.check_between(self, 1, 2**10, "expansion", "conv_size")
        parameters.check_between(self, 0, 2**16, "dt_rank")
        parameters.check_least(self, 0, "dt_floor")
        parameters.check_step_sizes(self.dt_min, self.dt_max)


def init(key: PRNGKeyArray, width: int, options: Options, *, depth: int = 1, length: int = 1) -> Params:
    """Initial parameters, float32, as published: A_log = log(1, .., N) for each feature (S4D-Real), D = 1, W_dt uniform
    in +-1/sqrt(R), other kernels and b_conv in +-1/sqrt(inputs of an output), b_in and b_out zero. W_out is divided by
    sqrt(depth), as in the published language model. `length` is not used."""
    H, E, N, W = width, options.expansion * width, options.state_size, options.conv_size
    R = options.dt_rank or -(-H // 16)
    keys = jax.random.split(key, 7)
    params = {
        "in_proj_kernel": uniform(keys[0], (H, 2 * E), H),
        "conv_kernel": uniform(keys[1], (E, W), W),
        "conv_bias": uniform(keys[2], (E,), W),
        "x_proj_kernel": uniform(keys[3], (E, R + 2 * N), E),
        "dt_proj_kernel": uniform(keys[4], (R, E), R),
        "dt_proj_bias": init_dt_bias(keys[5], E, options),
        "A_log": jnp.tile(jnp.log(jnp.arange(1, N + 1, dtype=jnp.float32))[None], (E, 1)),
        "D": jnp.ones(E, jnp.float32),
        "out_proj_kernel": uniform(keys[6], (E, H), E) / math.sqrt(depth),
    }
    if options.bias:
        params |= {"in_proj_bias": jnp.zeros(2 * E, jnp.float32), "out_proj_bias": jnp.zeros(H, jnp.float32)}
    return params


def uniform(key: PRNGKeyArray, shape: tuple[int, ...], inputs: int) -> Float[Array, "..."]:
    """Uniform in +-1/sqrt(inputs)."""
    return jax.random.uniform(key, shape, jnp.float32, -(inputs**-0.5), inputs**-0.5)


def init_dt_bias(key: PRNGKeyArray, size: int, options: Any) -> Float[Array, " size"]:
    """b with softplus(b) log-uniform from the options' dt_min to dt_max, and at least dt_floor."""
    dt = jnp.maximum(jnp.exp(parameters.log_step(key, (size,), options.dt_min, options.dt_max)), options.dt_floor)
    return dt + jnp.log(-jnp.expm1(-dt))


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
    lengths, _, reset, rate = given
    x, counted = x.astype(params["D"].dtype), given.counted(x.shape[1])
    u, z = _inputs(params, x, counted)
    before = (None, None) if state is None else (state["conv"], state["h"])
    v, conv = tap_conv.apply(params["conv_kernel"], u, lengths, before[0], starts=given.starts(x.shape[1]))
    v, delta, B, C = _selection(params, v, counted)
    y, h = selective_scan.selective_scan(
        v,
        delta,
        -jnp.exp(params["A_log"]),
        B[:, :, None],
        C[:, :, None],
        params["D"],
        delta_bias=params["dt_proj_bias"],
        softplus=True,
        lengths=lengths,
        reset=reset,
        rate=rate,
        state=before[1],
        method=options.scan_method,
    )
    return _output(params, y, z), None if conv is None else {"conv": conv, "h": h}


def _inputs(params: Params, x: Float[Array, "B L H"], counted: Bool[Array, "B L"] | None) -> list[Array]:
    """u and z, (B, L, E) each."""
    xz = checkpoint_name(product(x, params["in_proj_kernel"]), "product")
    if "in_proj_bias" in params:
        xz = xz + params["in_proj_bias"][None, None]
    u, z = jnp.split(xz, 2, axis=-1)
    return [u if counted is None else jnp.where(counted[..., None], u, 0), z]


def _selection(params: Params, v: Float[Array, "B L E"], counted: Bool[Array, "B L"] | None) -> tuple[Array, ...]:
    """v, r W_dt, B and C, from the output of the convolution."""
    v = jax.nn.silu(v + params["conv_bias"][None, None])
    v = v if counted is None else jnp.where(counted[..., None], v, 0)
    N, R = params["A_log"].shape[1], params["dt_proj_kernel"].shape[0]
    r, B, C = jnp.split(product(v, params["x_proj_kernel"]), [R, R + N], axis=-1)
    return v, product(r, params["dt_proj_kernel"]), B, C


def _output(params: Params, y: Float[Array, "B L E"], z: Float[Array, "B L E"]) -> Float[Array, "B L H"]:
    y = product(y * jax.nn.silu(z), params["out_proj_kernel"])
    return y + params["out_proj_bias"][None, None] if "out_proj_bias" in params else y


def init_state(params: Params, options: Options, batch: int, *, max_length: int | None = None) -> State:
    """The zero state. `max_length` is not used."""
    A = params["A_log"]
    return {"conv": window.init_state(batch, params["conv_kernel"]), "h": jnp.zeros((batch, *A.shape), A.dtype)}


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
    u, z = _inputs(cell, x_k[:, None], counted)
    v, conv = window.step(cell["conv_kernel"], state["conv"], u[:, 0], reset=reset)
    v, delta, B, C = _selection(cell, v[:, None], counted)
    dt = jax.nn.softplus(delta + cell["dt_proj_bias"][None, None]) * jnp.reshape(cell["rate"], (-1, 1, 1))
    dt, v, A = dt[:, 0, :, None], v[:, 0, :, None], -jnp.exp(cell["A_log"])[None]
    h = state["h"] if reset is None else jnp.where(reset[:, None, None], 0, state["h"])
    h = jnp.exp(dt * A) * h + dt * v * B
    y = jnp.einsum("ben,bn->be", h, C[:, 0]) + cell["D"][None] * v[..., 0]
    return _output(cell, y[:, None], z)[:, 0], {"conv": conv, "h": h}


def eigenvalues(params: Params, options: Options) -> Complex[Array, "E N"]:
    """The diagonals of A, in 1/time."""
    A = -jnp.exp(params["A_log"])
    return jax.lax.complex(A, jnp.zeros_like(A))
