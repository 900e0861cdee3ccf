"""Liquid-S4: S4 or S4D with products of inputs (Hasani, Lechner, Wang, Chahine, Amini, Rus 2022, arXiv 2209.12951).

The input also acts on the state, x' = (A + B u) x + B u. By the bilinear rule, with B_bar as a diagonal matrix where it
multiplies the state, x_k = (A_bar + B_bar u_k) x_{k-1} + B_bar u_k. Thus y is the output of S4 plus terms with products
of p >= 2 inputs, of which this module keeps those of at most P successive inputs:

    kb:  y_k = S4(u)_k + sum_{p=2}^P sum_l C A_bar^l B_bar^p u_{k-l} u_{k-l-1} ... u_{k-l-p+1}
    pb:  y_k = S4(u)_k + sum_{p=2}^P C B_bar^p u_k u_{k-1} ... u_{k-p+1}

B_bar^p has the powers of B_bar's entries, in the basis of the parameters. Setting A_bar = I in kb would sum the
products over all lags; pb keeps lag 0 only, as the published code has no convolution there.

Parameters: those of `s4` or `s4d`, whose letters are used here. A bidirectional mixer does the same to the reversed
sequence, with C2, and adds the result, starting at the next sample.

The published code computes other functions. With L steps, padding included, and the FFT F over 2 L points,

    published_pb:  y_t = S4(u)_t + sum_p s^(2^(p-1) - 1) (g v^(p)_{L-1-t} + g_2 v^(p)_t), g_2 with two directions only
    published_kb:  y = S4(u) + sum_p s^(p-1) F^-1(F(v^(p)_{L-1-t}) K^), K^ the FFT of S4's kernel over L + 1 points

g = Re C B_bar and s = sum_n B_bar_n, summed over all modes, come from the initial parameters and are never trained;
they are frozen_gain (directions, H) and frozen_sum (H,). v^(p) are the products `ssm.input_products.combinations`, or,
with products "consecutive", v^(p)_t = v^(p-1)_t v^(p-1)_{t-1}, v^(1) = u. Both forms look at later inputs.
"""

import dataclasses
from types import ModuleType
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float, Integer, PRNGKeyArray

from s5jax.mixers import check, find, s4, s4d
from s5jax.ssm import discretize as rules
from s5jax.ssm import feature_system, input_products, parameters, per_feature, sequence
from s5jax.ssm.sequence import Flags, Rate, Sequences

MASK = True
GROUPS = {"dynamics": "A_real|A_imag|P|B|log_step|frozen_.*"}  # weight decay would change the frozen parameters
eigenvalues, time_step = s4d.eigenvalues, s4d.time_step

Params = dict[str, Array]
State = dict[str, Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of Liquid-S4."""

    base: Literal["s4", "s4d"] = "s4"
    """The mixer whose output is corrected, with the bilinear rule."""
    state_size: int = 64
    """Number of states per feature, conjugate modes included; must be even."""
    init: Literal["legs", "legt", "fout", "lin", "inv", "quad", "real"] = "legs"
    """Initialisation of A and B: legs, legt, fout for base s4; legs, lin, inv, quad, real for base s4d."""
    rank: int = 1
    """Rank of the low-rank part of base s4; `legt` needs 2."""
    liquid_kernel: Literal["pb", "kb", "published_pb", "published_kb"] = "pb"
    """The correction: `kb` acts through the states, `pb` on the current output only. `published_kb` and `published_pb`
    are what the published code computes in their place, see above; they look at later inputs."""
    degree: int = 2
    """P, the largest number of inputs in a product."""
    products: Literal["combinations", "consecutive"] = "combinations"
    """Which products the published corrections use; the others use products of successive inputs."""
    real_transform: per_feature.RealTransform = "exp"
    """How -Re(A) is computed from A_real. With `none` the system can become unstable in training."""
    n_ssm: int = 0
    """S, the number of copies of (A, B); must divide the width; 0: one copy per feature."""
    dt_min: float = 0.001
    """Smallest initial step size, in the time unit of A. Step sizes are drawn log-uniformly from dt_min to dt_max."""
    dt_max: float = 0.1
    """Largest initial step size."""
    bidirectional: bool = False
    """Read the sequence in both directions; there is no recurrent mode then."""
    scan_method: Literal["auto", "plain"] = "auto"
    """With `plain`, scan and convolution support `jax.jvp` and `jax.linearize`."""

    def __post_init__(self) -> None:
        parameters.check_choices(self)
        parameters.check_between(self, 2, 8, "degree")
        _base(self)  # raises for values that the base does not allow
        if self.liquid_kernel == "published_kb" and self.bidirectional:
            raise ValueError("liquid_kernel published_kb reads in one direction: set bidirectional=False or choose pb")


def CAUSAL(options: Options) -> bool:
    return not (options.bidirectional or _is_published(options))


RESET = CAUSAL


def RATE(options: Options) -> str:
    return "none" if _is_published(options) else "scalar"


def PADDING(options: Options) -> str:
    return "zeros" if _is_published(options) else "exact"


def _is_published(options: Options) -> bool:
    return options.liquid_kernel.startswith("published")


def _base(options: Options, bidirectional: bool = False) -> tuple[ModuleType, Any]:
    """The base mixer and its options."""
    shared = ("state_size", "init", "n_ssm", "real_transform", "dt_min", "dt_max", "scan_method")
    values = {name: getattr(options, name) for name in shared} | {"bidirectional": bidirectional}
    if options.base == "s4":
        return s4, s4.Options(**values, rank=options.rank)
    return s4d, s4d.Options(**values, discretization="bilinear")


def init(key: PRNGKeyArray, width: int, options: Options, *, depth: int = 1, length: int = 1) -> Params:
    """Initial parameters of the base, float32, and the frozen ones. `depth` and `length` are not used."""
    module, inner = _base(options, options.bidirectional)
    params = module.init(key, width, inner)
    if _is_published(options):  # from the diagonal part of A, as published
        Lambda = per_feature.tile_copies(eigenvalues(params, inner), width)
        B = per_feature.tile_copies(parameters.unpair(params["B"]), width)
        B_bar = rules.discretize(Lambda, time_step(params, inner), "bilinear")[1] * B
        params["frozen_sum"] = 2 * B_bar.real.sum(-1)
        params["frozen_gain"] = 2 * jnp.stack([s4d.read_out(C, B_bar) for C in per_feature.readouts(params)])
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
    """See `s5jax.mixers`. A missing sample is an input of zero, and so are the products with it; `key` and `dropout`
    are not used. The base is computed as by its `apply`, kb with a convolution or scan for each degree."""
    check(find(__name__), options, reset=reset, rate=rate, state=state)
    x, given = sequence.border(x, lengths, mask, reset, rate)
    x = x.astype(params["D"].dtype)
    if _is_published(options):
        return _published(params, x, options), None
    if not options.bidirectional:
        return _forward(params, x, given, state, options)
    # Padding comes first in the reversed sequence, where it is zero and without effect.
    y, _ = _forward({**params, "C": params["C1"]}, x, given, None, options)
    turned = {**params, "C": params["C2"], "D": jnp.zeros_like(params["D"])}
    back = _forward(turned, x[:, ::-1], Sequences(rate=given.rate), None, options)[0][:, ::-1]
    return y + jnp.concatenate([back[:, 1:], jnp.zeros_like(back[:, :1])], axis=1), None


def _forward(params: Params, x: Array, given: Sequences, state: Any, options: Options) -> tuple[Array, Any]:
    """`apply` in one direction, with the readout C."""
    params = {name: value for name, value in params.items() if name not in ("C1", "C2")}
    if given.rate is not None and jnp.ndim(given.rate) == 1:  # one system per sequence

        def one(x: Array, lengths: Any, reset: Any, rate: Array, state: Any) -> tuple[Array, Any]:
            return _forward(params, x, Sequences(lengths, None, reset, rate[0]), state, options)

        known = sequence.known_rate(given.rate)
        return feature_system.each_alone(one, x, given.lengths, given.reset, known, state)
    (module, inner), start = _base(options), None if state is None else state["x"]
    arguments = {"lengths": given.lengths, "reset": given.reset, "rate": given.rate}
    before, starts = None if state is None else state["inputs"], given.starts(x.shape[1])
    products, inputs = input_products.successive(x, options.degree, before, starts, given.lengths)
    y, last = module.apply(params, x, inner, **arguments, state=start)
    cell = module.discretize(params, inner, rate=given.rate)
    for p, v in enumerate(products, 2):
        power = cell["B_bar"] ** p
        if options.liquid_kernel == "pb":
            y = y + s4d.read_out(cell["C"], power)[None, None] * v
        else:
            B = parameters.pair(_continuous_B(params, power, inner, given.rate))
            own = {**params, "B": B, "D": jnp.zeros_like(params["D"])}
            zero = None if start is None else jnp.zeros_like(start)
            term, of_last = module.apply(own, v, inner, **arguments, state=zero)
            y, last = y + term, None if start is None else last + of_last
    return y, None if state is None else {"x": last, "inputs": inputs}


def _continuous_B(params: Params, z: Complex[Array, "H N"], inner: Any, rate: Rate | None) -> Complex[Array, "H N"]:
    """The B with B_bar = z: (I - Delta/2 A) z / Delta."""
    H = len(params["D"])
    Delta = per_feature.step_sizes(params["log_step"], 1.0 if rate is None else rate).astype(z.dtype)
    Az = per_feature.tile_copies(eigenvalues(params, inner), H) * z
    for row in parameters.unpair(params["P"]) if "P" in params else ():
        p = per_feature.tile_copies(row, H)
        Az = Az - 2 * p * jnp.sum((p.conj() * z).real, -1, keepdims=True).astype(z.dtype)
    return z / jnp.where(Delta == 0, 1, Delta) - Az / 2  # z is zero where Delta is


def _published(params: Params, x: Array, options: Options) -> Array:
    module, inner = _base(options, options.bidirectional)
    y, L, v = module.apply(params, x, inner)[0], x.shape[1], x
    s, g = (jax.lax.stop_gradient(params[f"frozen_{name}"]) for name in ("sum", "gain"))
    for p in range(2, options.degree + 1):
        earlier = jnp.pad(v[:, :-1], ((0, 0), (1, 0), (0, 0)))
        v = input_products.combinations(x, p) if options.products == "combinations" else v * earlier
        if options.liquid_kernel == "published_kb":
            K = jnp.fft.fft(module.kernel(params, L, inner)[0], L + 1).T
            term = jnp.fft.irfft(jnp.fft.rfft(v[:, ::-1], 2 * L, axis=1) * K[None], 2 * L, axis=1)[:, :L]
            y = y + (s ** (p - 1))[None, None] * term
        else:
            for gain, turned in zip(g, (v[:, ::-1], v), strict=False):
                y = y + (gain * s ** (2 ** (p - 1) - 1))[None, None] * turned
    return y


def init_state(params: Params, options: Options, batch: int, *, max_length: int | None = None) -> State:
    """The zero state: x (batch, H, N), and inputs (batch, degree - 1, H). ValueError if there is no recurrent mode."""
    inputs = jnp.zeros((batch, options.degree - 1, len(params["D"])), params["D"].dtype)
    return {"x": s4d.init_state(params, _base(options, not CAUSAL(options))[1], batch), "inputs": inputs}


def discretize(params: Params, options: Options, *, rate: Rate | None = None) -> Params:
    """The base's discretised system. ValueError if there is no recurrent mode."""
    if not CAUSAL(options):
        raise ValueError(sequence.NOT_RECURRENT)
    module, inner = _base(options)
    return module.discretize(params, inner, rate=rate)


def step(
    cell: Params, state: State, x_k: Float[Array, "B H"], options: Options, *, mask: Flags = None, reset: Flags = None
) -> tuple[Float[Array, "B H"], State]:
    """One sample of `apply`: y_k and the next state."""
    (module, inner), inputs = _base(options), state["inputs"]
    x_k = x_k.astype(cell["D"].dtype)
    x_k = x_k if mask is None else jnp.where(mask[:, None], 0, x_k)
    inputs = inputs if reset is None else jnp.where(reset[:, None, None], 0, inputs)
    y, x = module.step(cell, state["x"], x_k, inner, reset=reset)
    v, B_bar, added = x_k, parameters.with_rank(cell["B_bar"], 3), jnp.zeros_like(x)
    for p in range(2, options.degree + 1):
        v = v * inputs[:, 1 - p]
        added = added + B_bar**p * v[..., None].astype(B_bar.dtype)
    inputs = jnp.concatenate([inputs[:, 1:], x_k[:, None]], axis=1)
    x = x if options.liquid_kernel == "pb" else x + added
    return y + s4d.read_out(cell["C"], added), {"x": x, "inputs": inputs}


def kernel(params: Params, L: int, options: Options, *, rate: Rate | None = None) -> Float[Array, "directions H {L}"]:
    """The impulse response of the linear part, see the base's `kernel`."""
    module, inner = _base(options, options.bidirectional)
    return module.kernel(params, L, inner, rate=rate)
