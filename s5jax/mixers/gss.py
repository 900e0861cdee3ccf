"""GSS: a diagonal state space between gates, in fewer features than the model has (Mehta, Gupta, Cutkosky, Neyshabur
2022, arXiv 2206.13947, section 3).

    u = gelu(x W_u),    v = layer_norm(gelu(x W_v)),    y = ((DSS(v) W_g) * u) W_o + b_o

DSS is one diagonal system per feature of v, with the step size 1, an input matrix of ones, and the same Lambda in all
features:

    s_k = exp(Lambda) s_{k-1} + (exp(Lambda) - 1) / Lambda v_k,    DSS(v)_k = Re(C s_k) + D v_k
    Lambda = -exp(Lambda_real) + i exp(Lambda_imag)

The tests compare with `gated-state-spaces-pytorch`, which is not by the authors. "Published code" is that package.

The modes do not stand for conjugate pairs, so that there is no factor 2. The norm before the layer and the residual sum
after it are the block's.

Letters: H width, M features of the state space, E = expansion H gated features, N states per feature. A dense layer is
x @ kernel + bias. Parameters:

    u_kernel (H, E)   v_kernel (H, M)   norm_scale, norm_bias (M,)   gate_kernel (M, E)   out_kernel (E, H)
    out_bias (H,)   Lambda_real, Lambda_imag (N,)   C (M, N, 2)   D (M,)

A bidirectional mixer has C1 and C2 instead of C; the directions share all other parameters. The published code has an
option that reverses the sequence instead. At a missing sample v is zero, too, which the layer norm alone would not
ensure.
"""

import dataclasses
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float, Integer, PRNGKeyArray

from s5jax.mixers import s4d
from s5jax.ssm import parameters, per_feature, scan, sequence
from s5jax.ssm.product import product
from s5jax.ssm.sequence import Flags, Rate

RATE, MASK, RESET = "step", True, True
GROUPS = {"dynamics": "Lambda_real|Lambda_imag"}
CAUSAL = s4d.CAUSAL

Params = dict[str, Array]
State = Complex[Array, "B M N"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of GSS."""

    state_size: int = 512
    """N, the number of states per feature."""
    features: int = 256
    """M, the number of features of the state space."""
    expansion: int = 4
    """E / H, the number of gated features per feature of the model."""
    imag_transform: Literal["exp", "none"] = "exp"
    """How Im(Lambda) is computed from Lambda_imag."""
    bidirectional: bool = False
    """Read the sequence in both directions; there is no recurrent mode then. The backward direction starts at the next
    sample."""
    scan_method: scan.Method = "auto"
    """How the scan is computed, see `ssm.scan`. With `plain`, scan and convolution support `jax.jvp`."""

    def __post_init__(self) -> None:
        parameters.check_choices(self)
        parameters.check_between(self, 1, 2**13, "state_size")
        parameters.check_between(self, 1, 2**16, "features")
        parameters.check_between(self, 1, 2**10, "expansion")


def init(key: PRNGKeyArray, width: int, options: Options, *, depth: int = 1, length: int = 1) -> Params:
    """Initial parameters, float32: Lambda_real, Lambda_imag, C (each part) and D standard normal, dense layers uniform
    in +-1 / sqrt(inputs), as in the code of `gated-state-spaces-pytorch`. `depth` and `length` are not used."""
    H, M, N, E = width, options.features, options.state_size, options.expansion * width
    keys = jax.random.split(key, 9)

    def uniform(key: PRNGKeyArray, inputs: int, shape: tuple[int, ...]) -> Float[Array, "..."]:
        bound = 1 / math.sqrt(inputs)
        return jax.random.uniform(key, shape, jnp.float32, -bound, bound)

    readouts = per_feature.init_readouts(keys[7], (M, N), options.bidirectional)
    return {
        "u_kernel": uniform(keys[0], H, (H, E)),
        "v_kernel": uniform(keys[1], H, (H, M)),
        "norm_scale": jnp.ones(M, jnp.float32),
        "norm_bias": jnp.zeros(M, jnp.float32),
        "gate_kernel": uniform(keys[2], M, (M, E)),
        "out_kernel": uniform(keys[3], E, (E, H)),
        "out_bias": uniform(keys[4], E, (H,)),
        "Lambda_real": jax.random.normal(keys[5], (N,), jnp.float32),
        "Lambda_imag": jax.random.normal(keys[6], (N,), jnp.float32),
        **{name: math.sqrt(2) * C for name, C in readouts.items()},  # `init_readouts` has |C|^2 = 1 on average
        "D": parameters.init_feedthrough(keys[8], M, "normal"),
    }


def _dss(params: Params, options: Options) -> tuple[Params, s4d.Options]:
    """The state space as S4D with one copy of A, whose output is 2 Re(C s)."""
    imag = params["Lambda_imag"]
    imag = jnp.exp(imag) if options.imag_transform == "exp" else imag
    inner = {
        "A_real": params["Lambda_real"][None],
        "A_imag": -imag[None],
        "D": params["D"],
        "log_step": jnp.zeros_like(params["D"])[:, None],
    }
    inner |= {name: params[name] / 2 for name in ("C", "C1", "C2") if name in params}
    return inner, s4d.Options(
        state_size=2 * options.state_size,
        n_ssm=1,
        B_trained=False,
        bidirectional=options.bidirectional,
        scan_method=options.scan_method,
    )


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
    """See `s5jax.mixers`. A missing sample is an input of zero; `key` and `dropout` are not used. The state space is
    computed as by `s4d.apply`."""
    x, given = sequence.border(x, lengths, mask, reset, rate)
    u, v = _inputs(params, x.astype(params["D"].dtype))
    inner, inner_options = _dss(params, options)
    y, state = s4d.apply(inner, v, inner_options, **given._asdict(), state=state)
    return _output(params, y, u), state


def _inputs(params: Params, x: Float[Array, "B L H"]) -> tuple[Float[Array, "B L E"], Float[Array, "B L M"]]:
    u, v = (jax.nn.gelu(product(x, params[f"{name}_kernel"]), approximate=False) for name in "uv")
    v = v - v.mean(-1, keepdims=True)
    v = v * jax.lax.rsqrt(jnp.mean(v * v, -1, keepdims=True) + 1e-5)
    return u, v * params["norm_scale"][None, None] + params["norm_bias"][None, None]


def _output(params: Params, y: Float[Array, "B L M"], u: Float[Array, "B L E"]) -> Float[Array, "B L H"]:
    return product(product(y, params["gate_kernel"]) * u, params["out_kernel"]) + params["out_bias"][None, None]


def init_state(params: Params, options: Options, batch: int, *, max_length: int | None = None) -> State:
    """The zero state (batch, M, N), complex. ValueError if bidirectional. `max_length` is not used."""
    inner, inner_options = _dss(params, options)
    return s4d.init_state(inner, inner_options, batch)


def discretize(params: Params, options: Options, *, rate: Rate | None = None) -> dict[str, Any]:
    """The parameters and, as "dss", the discretised state space, see `s4d.discretize`. ValueError if bidirectional."""
    return {**params, "dss": s4d.discretize(*_dss(params, options), rate=rate)}


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
    u, v = _inputs(cell, x_k[:, None])
    y, state = s4d.step(cell["dss"], state, v[:, 0], s4d.Options(), mask=mask, reset=reset)
    return _output(cell, y[:, None], u)[:, 0], state


def kernel(params: Params, L: int, options: Options, *, rate: Rate | None = None) -> Float[Array, "directions M {L}"]:
    """The impulse response of the state space, from v to DSS(v) without D, see `s4d.kernel`."""
    inner, inner_options = _dss(params, options)
    return s4d.kernel(inner, L, inner_options, rate=rate)


def eigenvalues(params: Params, options: Options) -> Complex[Array, " N"]:
    """Lambda, in 1/sample."""
    return s4d.eigenvalues(*_dss(params, options))[0]
