"""H3: two state spaces between products of three projections of the input (Dao, Fu, Saab, Thomas, Rudra, Ré 2022, arXiv
2212.14052, section 3).

    q, k, v = x W_q + b_q, x W_k + b_k, x W_v + b_v
    y = (q * diagonal(shift(k) * v)) W_o + b_o

where * multiplies feature by feature. With heads of d > 1 features, every entry of the outer product of shift(k) and v
is the input of its own copy of the head's diagonal system, and q multiplies the (d, d) matrix of the outputs:

    y_j = sum_i q_i diagonal(shift(k)_i v_j),    i, j < d

The shift system moves its N states on by one place at each sample. Written as a convolution it is

    shift(k)_t = sum_{l < N} K_l k_{t-l} + shift_D k_t,    K_l = sum_{n < N - l} shift_C_{l+n} shift_B_n

and the diagonal one is that of S4D, x'(t) = A x(t) + B u(t), y(t) = 2 Re(C x(t)) + D u(t), one for each head.

Letters: H features, G heads of d = H / G features (`head_dim`), N states (`state_size`), M = N / 2 stored ones.
A dense layer is x @ kernel + bias; feature g d + i is the i-th one of head g. Parameters:

    q_kernel, k_kernel, v_kernel, o_kernel (H, H)   q_bias, k_bias, v_bias, o_bias (H,)
    shift_B, shift_C (H, N)   shift_D (H,)   A_real, A_imag (G, M)   B, C (G, M, 2)   D (G,)   log_step (G, 1)

with A = -exp(A_real) - i A_imag, as in `s4d`; the published code of H3 has the other sign of A_imag. Its convolution by
FFT returns feature i of head g in the place i G + g, while its CUDA kernel has the order that is used here. The two are
one function with the rows of o_kernel in another order.

At a missing sample k and v are zero, which a zero input alone would not ensure, because of the biases. The rate changes
the step of the diagonal system; the shift counts samples.
"""

import dataclasses
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float, Integer, PRNGKeyArray, Shaped

from s5jax.mixers import s4d
from s5jax.ssm import feature_system, parameters, per_feature, scan, sequence, tap_conv, window
from s5jax.ssm.product import product
from s5jax.ssm.sequence import Flags, Rate

CAUSAL, RATE, MASK, RESET = True, "step", True, True
GROUPS = {"dynamics": "A_real|A_imag|B|log_step|shift_B"}

Params = dict[str, Array]
State = dict[str, Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of H3."""

    state_size: int = 64
    """N, the number of states of both systems; must be even, since the diagonal ones come in conjugate pairs."""
    head_dim: int = 1
    """d, the number of features of a head; must divide the width. A head has d^2 copies of its diagonal system."""
    init: Literal["lin", "inv", "quad", "real"] = "lin"
    """The initial A of the diagonal system, see `s4d`."""
    discretization: Literal["bilinear", "zoh"] = "bilinear"
    """Discretization of the diagonal system, see `ssm.discretize`."""
    dt_min: float = 0.001
    """Smallest initial step size, in the time unit of A. Step sizes are drawn log-uniformly from dt_min to dt_max."""
    dt_max: float = 0.1
    """Largest initial step size."""
    mode: Literal["convolution", "scan"] = "convolution"
    """How the diagonal system is computed. `scan` stores all its states, (B, d, d, L, G, M) complex."""
    scan_method: scan.Method = "auto"
    """How the scan is computed, see `ssm.scan`. With `plain`, scan and convolution support `jax.jvp`."""

    def __post_init__(self) -> None:
        parameters.check_choices(self)
        per_feature.check_state_size(self.state_size)
        parameters.check_between(self, 1, 2**10, "head_dim")
        parameters.check_step_sizes(self.dt_min, self.dt_max)


def init(key: PRNGKeyArray, width: int, options: Options, *, depth: int = 1, length: int = 1) -> Params:
    """Initial parameters, float32, as published: dense layers uniform in +-1 / sqrt(H), shift_B 1 at the first state
    and 0 at the others, shift_C uniform in +-1 / sqrt(N), shift_D and D standard normal, A, B and C as in S4D. `depth`
    and `length` are not used. ValueError if `head_dim` does not divide the width."""
    H, N, d = width, options.state_size, options.head_dim
    if H % d:
        raise ValueError(f"head_dim {d} does not divide the width {H}")
    shift_key, D_key, inner_key, *keys = jax.random.split(key, 11)
    draw, bound = jax.random.uniform, 1 / math.sqrt(H)
    params = {f"{n}_kernel": draw(k, (H, H), jnp.float32, -bound, bound) for n, k in zip("qkvo", keys[:4], strict=True)}
    params |= {f"{n}_bias": draw(k, (H,), jnp.float32, -bound, bound) for n, k in zip("qkvo", keys[4:], strict=True)}
    params["shift_B"] = jnp.zeros((H, N), jnp.float32).at[:, 0].set(1)
    params["shift_C"] = draw(shift_key, (H, N), jnp.float32, -1 / math.sqrt(N), 1 / math.sqrt(N))
    params["shift_D"] = jax.random.normal(D_key, (H,), jnp.float32)
    return params | s4d.init(inner_key, H // d, _s4d_options(options))


def _s4d_options(options: Options) -> s4d.Options:
    names = ("state_size", "init", "discretization", "dt_min", "dt_max", "mode", "scan_method")
    return s4d.Options(**{name: getattr(options, name) for name in names})


def _shift_kernel(params: Params) -> Float[Array, "H N"]:
    """K, the correlation of shift_C with shift_B."""
    N = params["shift_B"].shape[1]
    C, B = (jnp.fft.rfft(params[name], 2 * N) for name in ("shift_C", "shift_B"))
    return jnp.fft.irfft(C * B.conj(), 2 * N)[:, :N]


def _projected(
    params: Params, x: Float[Array, "*samples H"], counted: Bool[Array, "*samples"] | None
) -> tuple[Float[Array, "*samples H"], ...]:
    """q, and k and v with zeros at samples that do not count."""
    q, k, v = (_dense(params, name, x) for name in "qkv")
    if counted is not None:
        k, v = (jnp.where(counted[..., None], z, 0) for z in (k, v))
    return q, k, v


def _dense(params: Params, name: str, x: Float[Array, "*batch H"]) -> Float[Array, "*batch H"]:
    y = product(x, params[f"{name}_kernel"])
    return y + jnp.broadcast_to(params[f"{name}_bias"], y.shape)


def _heads(params: Params, x: Float[Array, "B *L H"]) -> Float[Array, "B d *L G"]:
    G = params["D"].shape[0]
    return jnp.moveaxis(x.reshape(*x.shape[:-1], G, x.shape[-1] // G), -1, 1)


def _pairs(params: Params, k: Float[Array, "B *L H"], v: Float[Array, "B *L H"]) -> Float[Array, "B d d *L G"]:
    """k_i v_j of each head."""
    return _heads(params, k)[:, :, None] * _heads(params, v)[:, None]


def _read_out(params: Params, y: Float[Array, "B d d *L G"], q: Float[Array, "B *L H"]) -> Float[Array, "B *L H"]:
    y = jnp.sum(y * _heads(params, q)[:, :, None], axis=1)
    return _dense(params, "o", jnp.moveaxis(y, 1, -1).reshape(q.shape))


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
    """See `s5jax.mixers`; `key` and `dropout` are not used. The diagonal system is computed as by `s4d.apply`, on d^2
    sequences in place of each one. With a `reset` the shift system is computed tap by tap, otherwise by FFT."""
    x, given = sequence.border(x, lengths, mask, reset, rate)
    L, d = x.shape[1], options.head_dim
    q, k, v = _projected(params, x.astype(params["D"].dtype), given.counted(L))
    K, ends = _shift_kernel(params), given.lengths
    past = None if state is None else state["shift"]
    if given.reset is None:
        shifted, past = window.apply(K, k, ends, past, plain=options.scan_method == "plain")
    else:
        shifted, past = tap_conv.apply(K, k, ends, past, starts=given.starts(L))
    kv = _pairs(params, shifted + params["shift_D"][None, None] * k, v)
    start = None if state is None else _flat(state["diagonal"])
    common = {name: _each(getattr(given, name), d) for name in ("lengths", "reset", "rate")}
    y, last = s4d.apply(params, _flat(kv), _s4d_options(options), **common, state=start)
    y = _read_out(params, y.reshape(kv.shape), q)
    if state is None:
        return y, None
    assert past is not None and last is not None
    return y, {"shift": past, "diagonal": last.reshape(state["diagonal"].shape)}


def _flat(x: Shaped[Array, "B d d ..."]) -> Shaped[Array, "..."]:
    """d^2 sequences in place of each one."""
    B, d = x.shape[:2]
    return x.reshape(B * d * d, *x.shape[3:])


def _each(x: Any, d: int) -> Any:
    """What all sequences share, or something for each: the same for the d^2 sequences in place of one."""
    if x is None or jnp.ndim(x) == 0:
        return x
    B, *rest = x.shape
    return _flat(jnp.broadcast_to(x[:, None, None], (B, d, d, *rest)))


def init_state(params: Params, options: Options, batch: int, *, max_length: int | None = None) -> State:
    """The zero state: the last N - 1 values of k, (batch, N - 1, H), and that of the diagonal system, (batch, d, d, G,
    M) complex. `max_length` is not used."""
    H, N = params["shift_B"].shape
    zero = jnp.zeros((batch, options.head_dim, options.head_dim, *params["A_real"].shape), params["D"].dtype)
    return {"shift": jnp.zeros((batch, N - 1, H), zero.dtype), "diagonal": jax.lax.complex(zero, zero)}


def discretize(params: Params, options: Options, *, rate: Rate | None = None) -> dict[str, Any]:
    """The parameters and, as "shift" and "diagonal", the kernel (H, N) of the shift system and the discretised diagonal
    system, see `s4d.discretize`; `rate`: () or (B,), default 1."""
    cell = s4d.discretize(params, _s4d_options(options), rate=_each(rate, options.head_dim))
    return {**params, "shift": _shift_kernel(params), "diagonal": cell}


def step(
    cell: dict[str, Any],
    state: State,
    x_k: Float[Array, "B H"],
    options: Options,
    *,
    mask: Flags = None,
    reset: Flags = None,
) -> tuple[Float[Array, "B H"], State]:
    """One sample of `apply`: y_k and the next state."""
    x_k = x_k.astype(cell["D"].dtype)
    x_k = x_k if mask is None else jnp.where(mask[:, None], 0, x_k)
    q, k, v = _projected(cell, x_k, None if mask is None else jnp.logical_not(mask))
    shifted, past = window.step(cell["shift"], state["shift"], k, reset=reset)
    kv = _pairs(cell, shifted + cell["shift_D"][None] * k, v)
    start, reset = _flat(state["diagonal"]), _each(reset, options.head_dim)
    y, last = feature_system.step(cell["diagonal"], start, _flat(kv), reset=reset)
    y = _read_out(cell, y.reshape(kv.shape), q)
    return y, {"shift": past, "diagonal": last.reshape(state["diagonal"].shape)}


def kernel(params: Params, L: int, options: Options, *, rate: Rate | None = None) -> Float[Array, "1 G {L}"]:
    """The impulse response of each head's diagonal system without D, see `s4d.kernel`."""
    return s4d.kernel(params, L, _s4d_options(options), rate=rate)


def eigenvalues(params: Params, options: Options) -> Complex[Array, "G M"]:
    """A of each head, in 1/time."""
    return s4d.eigenvalues(params, _s4d_options(options))


def time_step(params: Params, options: Options) -> Float[Array, "G 1"]:
    """The step sizes of the diagonal systems, in the time unit of A."""
    return s4d.time_step(params, _s4d_options(options))
