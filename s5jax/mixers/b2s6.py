"""B2S6: block-biased selective state spaces (Yu, Erichson 2025, arXiv 2505.09022).

    h_k = exp(dt_k A) h_{k-1} + dt_k (W_B u_k + B_bias) x_k,    y_k = 2 Re((W_C u_k) h_k) + D x_k
    dt_k = softplus(w u_k + b)

The H features are split into blocks of P. For each feature x of a block, u is the vector of the block's P features:
W_B, W_C and w belong to the block, B_bias and b to the feature, and A is a diagonal for all features. The paper says
that A, W_B and B_bias are complex; we read W_C and w as real.

No published code was found. Not given in the text that we had, and our own choices: the parametrisation of A, the step
size as the factor of B (as in Mamba), the factor 2 (as in S4D, modes stand for conjugate pairs), D, one direction, and
the initial values.

Letters: H width, N stored modes, J blocks, P = H / J. Parameters:

    A_real, A_imag (N,)   A = -exp(A_real) + i A_imag
    B_kernel (J, P, N, 2)   B_bias (H, N, 2)   C_kernel (J, P, N)   dt_kernel (J, P)   dt_bias (H,)   D (H,)

At a missing sample x is zero, and time goes on by the step size that belongs to no input, softplus(b). A rate is a
factor on dt.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float, Integer, PRNGKeyArray

from s5jax.mixers.mamba import init_dt_bias, uniform
from s5jax.ssm import parameters, selective_scan, sequence
from s5jax.ssm.sequence import Flags, Rate

CAUSAL, RATE, MASK, RESET = True, "step", True, True
GROUPS = {"dynamics": "A_real|A_imag|dt_kernel|dt_bias"}

Params = dict[str, Array]
State = Complex[Array, "B H N"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of B2S6."""

    state_size: int = 64
    """Number of states per feature, two for each of the N stored modes."""
    blocks: int = 8
    """J, the number of blocks; must divide the width."""
    dt_min: float = 0.001
    """Smallest initial step size, in the time unit of A: softplus(b) is log-uniform from dt_min to dt_max."""
    dt_max: float = 0.1
    """Largest initial step size."""
    dt_floor: float = 1e-4
    """Initial step sizes are at least this."""
    scan_method: selective_scan.Method = "auto"
    """How the scan is computed, see `ssm.selective_scan`. With `plain`, it supports `jax.jvp`."""

    def __post_init__(self) -> None:
        parameters.check_choices(self)
        parameters.check_between(self, 2, 2**13, "state_size")
        parameters.check_between(self, 1, 2**16, "blocks")
        parameters.check_least(self, 0, "dt_floor")
        parameters.check_step_sizes(self.dt_min, self.dt_max)
        if self.state_size % 2:
            raise ValueError(f"state_size must be even, got {self.state_size}")


def init(key: PRNGKeyArray, width: int, options: Options, *, depth: int = 1, length: int = 1) -> Params:
    """Initial parameters, float32: A_n = -1/2 + i pi n (S4D-Lin), B_bias 1, D 1, W_C uniform in +-1/sqrt(P N), and W_B
    (each part) and w in +-0.3/sqrt(P). The output has the inputs' fourth power; with larger values training on the
    digits diverged. `depth` and `length` are not used. ValueError if the blocks do not divide the width."""
    J, N = options.blocks, options.state_size // 2
    if width % J:
        raise ValueError(f"blocks must divide the width; got {J} blocks for a width of {width}")
    P, keys = width // J, jax.random.split(key, 4)
    one = jnp.ones((width, N), jnp.float32)
    return {
        "A_real": jnp.full(N, math.log(0.5), jnp.float32),
        "A_imag": math.pi * jnp.arange(N, dtype=jnp.float32),
        "B_kernel": 0.3 * uniform(keys[0], (J, P, N, 2), P),
        "B_bias": jnp.stack([one, jnp.zeros_like(one)], -1),
        "C_kernel": uniform(keys[1], (J, P, N), P * N),
        "dt_kernel": 0.3 * uniform(keys[2], (J, P), P),
        "dt_bias": init_dt_bias(keys[3], width, options),
        "D": jnp.ones(width, jnp.float32),
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
    x = x.astype(params["D"].dtype)
    delta, B, C = _selection(params, x)
    A = eigenvalues(params, options)
    y, last = selective_scan.selective_scan(
        x,
        delta,
        jnp.broadcast_to(A, (x.shape[2], len(A))),
        B,
        C.astype(A.dtype),
        params["D"],
        B_bias=parameters.unpair(params["B_bias"]),
        delta_bias=params["dt_bias"],
        softplus=True,
        lengths=given.lengths,
        reset=given.reset,
        rate=given.rate,
        state=state,
        method=options.scan_method,
    )
    return y, None if state is None else last


def _selection(params: Params, x: Float[Array, "B L H"]) -> tuple[Array, ...]:
    """w u (B, L, H), W_B u and W_C u (B, L, J, N)."""
    J, P = params["dt_kernel"].shape
    u = x.reshape(*x.shape[:2], J, P)
    delta = jnp.broadcast_to((u * params["dt_kernel"][None, None]).sum(-1, keepdims=True), u.shape).reshape(x.shape)
    B = jnp.einsum("bljp,jpnc->bljnc", u, params["B_kernel"])
    return delta, parameters.unpair(B), jnp.einsum("bljp,jpn->bljn", u, params["C_kernel"])


def init_state(params: Params, options: Options, batch: int, *, max_length: int | None = None) -> State:
    """The zero state (batch, H, N), complex. `max_length` is not used."""
    return jnp.zeros((batch, *params["B_bias"].shape[:2]), parameters.unpair(params["B_bias"]).dtype)


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
    delta, B, C = _selection(cell, x_k[:, None])
    dt = jax.nn.softplus(delta[:, 0] + cell["dt_bias"][None]) * jnp.reshape(cell["rate"], (-1, 1))
    B, C = (jnp.repeat(M[:, 0], cell["dt_kernel"].shape[1], axis=1) for M in (B, C))
    A, bias = eigenvalues(cell, options)[None, None], parameters.unpair(cell["B_bias"])[None]
    h = state if reset is None else jnp.where(reset[:, None, None], 0, state)
    h = jnp.exp(dt[..., None].astype(A.dtype) * A) * h + (dt * x_k)[..., None].astype(A.dtype) * (B + bias)
    return 2 * (h.real * C).sum(-1) + cell["D"][None] * x_k, h


def eigenvalues(params: Params, options: Options) -> Complex[Array, " N"]:
    """A, in 1/time."""
    return jax.lax.complex(-jnp.exp(params["A_real"]), params["A_imag"])
