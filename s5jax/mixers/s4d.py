"""S4D and DSS: one diagonal system per feature (Gu, Gupta, Goel, Ré 2022, arXiv 2206.11893; Gupta, Gu, Berant 2022,
arXiv 2203.14343).

    x_h'(t) = A x_h(t) + B u_h(t),    y_h(t) = 2 Re(C_h x_h(t)) + D_h u_h(t)

computed as a convolution with the kernel K_l = 2 Re sum_n C_n B_bar_n A_bar_n^l, or by a scan.

Letters: H features, N stored states per feature, half of `state_size` (the others are their conjugates); S = `n_ssm`
copies of (A, B), feature h uses copy h mod S. Parameters:

    A_real, A_imag (S, N)   B (S, N, 2)   C (H, N, 2)   D (H,)   log_step (H, 1), or (H, N) with `dt_per_state`

with A = -f(A_real) - i A_imag, f the `real_transform`, and log_step the natural log of the step size. The names and
signs are those of the published code, except that its `inv_dt` is log_step here. A bidirectional mixer has C1 and C2
instead of C; the directions share all other parameters.

S4-PTD (arXiv 2310.01698) is the init "ptd-conjugate": HiPPO-LegS is perturbed slightly, so that its eigenvector matrix
V is well-conditioned. A holds the eigenvalues, B is V^-1 times HiPPO's B, and C is a real matrix times V, so that the
initial kernel is close to that of S4 with HiPPO-LegS.

DSS is the discretisation "dss" (arXiv 2203.14343, proposition 1): the kernel of mode n is C_n B_n / A_n times a softmax
over time, exp(l Delta A_n) divided by its sum over `dss_length` samples. As published, its modes do not stand for
conjugate pairs: y = Re(C x) + D u. DSS-exp is the discretisation "zoh" with B fixed at 1. The mixer `dss` has the
published parameters, one Lambda for all features, and the other versions.

StableSSM (arXiv 2311.14495) is init "lin" without a trained B and with the `real_transform` "best", "exp", "softplus"
or "none", published as "direct". The published "direct" starts from Re(A) = +1/2, where modes grow; here from -1/2.

With real modes N is `state_size`, A, B (S, N) and C (H, N) are real, there is no A_imag, and y = C x + D u.
"""

import dataclasses
import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Integer, PRNGKeyArray

from s5jax.ssm import discretize as rules
from s5jax.ssm import feature_system, parameters, per_feature, scan, sequence, vandermonde
from s5jax.ssm.feature_system import by_direction, read_out  # noqa: F401 (for S4)
from s5jax.ssm.sequence import Flags, Rate

RATE, MASK, RESET = "step", True, True
GROUPS = {"dynamics": "A_real|A_imag|B|log_step"}

Params = dict[str, Array]
State = Complex[Array, "B H N"]


def CAUSAL(options: "Options") -> bool:
    return not options.bidirectional


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of S4D. Hashable, so that they can be static arguments of `jax.jit`."""

    state_size: int = 64
    """Number of states per feature, conjugate modes included; must be even."""
    init: per_feature.Init = "lin"
    """The initial A = -1/2 - i w_n with, for n = 0..N-1 and M = state_size, w = pi n (`lin`), (M/pi) (M/(2n+1) - 1)
    (`inv`), (M/pi) (M/(n+1) - 1) (`inv2`), (2n+1)^2/pi (`quad`), the frequencies of HiPPO-LegS' normal part (`legs`),
    or exp of a standard normal (`random`); or A = -(n+1) (`real`) (arXiv 2206.11893, section 4); or A, B and C from
    `perturb_then_diagonalize` applied to HiPPO-LegS (`ptd-conjugate`)."""
    ptd_kappa: float = 0.0
    """With `ptd-conjugate`: bound on the condition number of the eigenvectors; 0: the default of `ptd`."""
    real_random: bool = False
    """Draw the initial -Re(A) uniformly from [0, 1), or from [0, N) with init `real`, instead of the values given by
    `init`."""
    real_scale: float = 1.0
    """Factor on the initial real parts."""
    imag_random: bool = False
    """Draw n uniformly from [0, N) in the formulas of init `lin`, `inv`, `inv2` and `quad`; an error with others."""
    imag_scale: float = 1.0
    """Factor on the initial imaginary parts."""
    real_transform: per_feature.RealTransform = "exp"
    """How -Re(A) is computed from A_real. With `none` the system can become unstable in training."""
    modes: Literal["complex", "real"] = "complex"
    """Pairs of complex modes, or `state_size` real modes, with init `real`."""
    B_init: per_feature.InitB = "of_init"
    """The initial B: ones (`constant`), complex standard normal (`random`), 1, -1, 1, ... (`alternating`), powers of
    exp(-2 pi i / state_size) (`unit_cw`) or of its conjugate (`unit_ccw`), HiPPO-LegS' B (`legs`); `of_init` is `legs`
    for init=legs, V^-1 times HiPPO-LegS' B for `ptd-conjugate`, otherwise `constant`."""
    B_clip: float = 2.0
    """Bound on the imaginary part of HiPPO's initial B, as published; 0: no bound."""
    B_trained: bool = True
    """Whether B is a parameter; otherwise it keeps its initial value."""
    n_ssm: int = 0
    """S, the number of copies of (A, B); must divide the width; 0: one copy per feature."""
    D_init: parameters.FeedthroughInit = "normal"
    """Initialisation of D: standard normal, or zero."""
    dt_min: float = 0.001
    """Smallest initial step size, in the time unit of A. Step sizes are drawn log-uniformly from dt_min to dt_max."""
    dt_max: float = 0.1
    """Largest initial step size."""
    dt_per_state: bool = False
    """One step size per state instead of one per feature."""
    dt_transform: per_feature.DtTransform = "exp"
    """How step sizes are computed from log_step, which is log(exp(Delta) - 1) with `softplus`."""
    discretization: Literal["zoh", "bilinear", "dss"] = "zoh"
    """Zero-order hold or bilinear, see `ssm.discretize`; or `dss` (arXiv 2203.14343, proposition 1), which has
    y = Re(C x), no factor 2."""
    dss_length: int = 0
    """Number of samples over which `dss` normalises each mode, the training length; 0 with other discretisations."""
    bandlimit: float = 0.0
    """Set C to zero for modes whose phase advances by bandlimit * pi or more per step at rate 1. 0: keep all modes;
    with 1, the limit is the Nyquist frequency."""
    bidirectional: bool = False
    """Read the sequence in both directions; there is no recurrent mode then."""
    backward_skips_current: bool = True
    """Start the backward kernel at the next sample, as published; otherwise at the current sample, as in S5."""
    mode: Literal["convolution", "scan"] = "convolution"
    """How `apply` computes the output. `scan` stores all states, (B, L, H, N) complex."""
    scan_method: scan.Method = "auto"
    """How the scan is computed, see `ssm.scan`. With `plain`, scan and convolution support `jax.jvp`."""

    def __post_init__(self) -> None:
        parameters.check_choices(self)
        per_feature.check_state_size(self.state_size)
        parameters.check_step_sizes(self.dt_min, self.dt_max)
        parameters.check_least(self, 0, "bandlimit", "B_clip", "imag_scale")
        parameters.check_between(self, 0, 2**16, "n_ssm")
        parameters.check_between(self, 0, 2**30, "dss_length")
        if self.real_scale <= 0:
            raise ValueError(f"real_scale must be positive, got {self.real_scale}: with Re(A) >= 0 A is unstable")
        if (self.discretization == "dss") != (self.dss_length > 0):
            raise ValueError(
                "discretization dss normalises over dss_length samples, at least 1; other discretizations need"
                f" dss_length 0. Got {self.discretization} and {self.dss_length}"
            )
        if self.discretization == "dss" and self.real_transform == "none":
            raise ValueError("discretization dss needs Re(A) < 0, which real_transform none does not guarantee")
        parameters.check_kappa(self.init, self.ptd_kappa)
        if self.init == "ptd-conjugate" and (self.B_init == "legs" or self.real_random or self.imag_random):
            raise ValueError("init ptd-conjugate has its own A and B: no B_init legs, real_random or imag_random")
        if self.imag_random and self.init in ("legs", "real", "random"):
            raise ValueError(f"imag_random draws n in the formulas of init lin, inv, inv2, quad; {self.init} has none")
        if not self.B_trained and self.B_init == "random":
            raise ValueError("B_init random needs B_trained: a B that is not stored must not be random")
        if self.modes == "real" and (self.init != "real" or self.B_init in ("unit_cw", "unit_ccw", "legs")):
            raise ValueError("modes real needs init real and a real B_init: of_init, constant, alternating or random")


def init(key: PRNGKeyArray, width: int, options: Options, *, depth: int = 1, length: int = 1) -> Params:
    """Initial parameters, float32 (arXiv 2206.11893, sections 3 and 4). `depth` and `length` are not used. ValueError:
    `n_ssm` does not divide `width`, or `real_transform` cannot represent the initial A."""
    copies, N = per_feature.copies(options.n_ssm, width), per_feature.stored_states(options)
    A_key, B_key, C_key, D_key, step_key = jax.random.split(key, 5)
    A, steps = per_feature.initial_A(A_key, copies, options), N if options.dt_per_state else 1
    V = per_feature.perturbed_legs(options)[2] if options.init == "ptd-conjugate" else None
    params = {
        "A_real": jnp.asarray(per_feature.raw_decay_rate(-A.real, options.real_transform), jnp.float32),
        **per_feature.init_readouts(C_key, (width, N), options.bidirectional, V, options.modes),
        "D": parameters.init_feedthrough(D_key, width, options.D_init),
        "log_step": per_feature.raw_step(
            parameters.log_step(step_key, (width, steps), options.dt_min, options.dt_max), options.dt_transform
        ),
    }
    if options.modes == "complex":
        params["A_imag"] = jnp.asarray(-A.imag, jnp.float32)
    if options.B_init == "random":
        shape, scale = ((copies, N), 1.0) if options.modes == "real" else ((copies, N, 2), np.sqrt(0.5))
        params["B"] = jax.random.normal(B_key, shape, jnp.float32) * jnp.float32(scale)
    elif options.B_trained:
        B = parameters.pair(jnp.asarray(np.tile(per_feature.initial_B(options), (copies, 1)), jnp.complex64))
        params["B"] = B[..., 0] if options.modes == "real" else B
    return params


def eigenvalues(params: Params, options: Any) -> Complex[Array, "S N"]:
    """The diagonal Lambda of A. The system is stable if all real parts are negative (S4's -p p^* can only damp it)."""
    decay = per_feature.decay_rate(params["A_real"], options.real_transform)
    return jax.lax.complex(-decay, -params["A_imag"] if "A_imag" in params else jnp.zeros_like(decay))


def _continuous(params: Params, options: Options) -> tuple[Complex[Array, "H N"], Complex[Array, "H N"]]:
    """A and B of each feature."""
    H = params["D"].shape[0]
    A = per_feature.tile_copies(eigenvalues(params, options), H)
    if "B" in params:
        B = per_feature.tile_copies(per_feature.as_complex(params["B"]), H)
    else:
        B = jnp.broadcast_to(jnp.asarray(per_feature.initial_B(options), A.dtype)[None], A.shape)
    if options.discretization == "dss":
        # The sum of exp(l Delta A) over l < dss_length is (exp(dss_length Delta A) - 1) / (exp(Delta A) - 1), whose
        # denominator is zoh's gamma times A. The quotient is regularised as published, so that it is finite where the
        # sum is zero.
        horizon = time_step(params, options) * options.dss_length
        x = A**2 * rules.zoh(A, horizon)[1]
        B = B * A * x.conj() / (jnp.square(x.real) + jnp.square(x.imag) + 1e-7).astype(x.dtype)
    return A, B


def _discrete(
    params: Params, options: Options, rate: Rate | None
) -> tuple[Complex[Array, "*steps H N"], Complex[Array, "*steps H N"]]:
    """log(A_bar) and B_bar; the axes of `rate` come first."""
    A, B = _continuous(params, options)
    rate = jnp.asarray(1 if rate is None else rate, A.real.dtype)
    Delta = per_feature.step_sizes(params["log_step"], rate, options.dt_transform)
    A, B = (parameters.with_rank(x, Delta.ndim) for x in (A, B))
    rule: rules.Method = "bilinear" if options.discretization == "bilinear" else "zoh"
    return vandermonde.log_multiplier(A, Delta, rule), rules.discretize(A, Delta, rule)[1] * B


def _readouts(params: Params, options: Options) -> list[Complex[Array, "H N"]]:
    """C per direction: doubled if modes stand for conjugate pairs, and zero for modes beyond the band limit."""
    pairs = options.discretization != "dss" and options.modes == "complex"
    Cs = [2 * C if pairs else C for C in per_feature.readouts(params)]
    if options.bandlimit:
        turn = time_step(params, options) * jnp.abs(_continuous(params, options)[0].imag)
        Cs = [jnp.where(turn < np.pi * options.bandlimit, C, 0) for C in Cs]
    return Cs


def time_step(params: Params, options: Any) -> Float[Array, "H M"]:
    """The step sizes, in the time unit of A: (H, 1), or (H, N) with `dt_per_state`."""
    return per_feature.time_step(params["log_step"], getattr(options, "dt_transform", "exp"))  # S4 has no choice


def system(params: Params, options: Options) -> feature_system.System:
    """The functions from which `feature_system` computes outputs, states and steps."""
    discrete, Cs = functools.partial(_discrete, params, options), _readouts(params, options)
    return feature_system.System(discrete, Cs, functools.partial(feature_system.kernel, discrete, Cs), options.mode)


def kernel(params: Params, L: int, options: Options, *, rate: Rate | None = None) -> Float[Array, "directions H {L}"]:
    """K_l = 2 Re sum_n C_n B_bar_n A_bar_n^l (DSS and real modes: without the 2) of each direction, without D, for
    L >= 1 lags and a rate (), default 1."""
    return system(params, options).kernel(L, rate)


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
    """See `s5jax.mixers`. A missing sample is an input of zero; `key` and `dropout` are not used.

    Computed as a convolution or, with a `reset`, a rate per step, a symbolic length or `mode="scan"`, by a scan that
    stores all states, (B, L, H, N).
    """
    x, (lengths, _, reset, rate) = sequence.border(x, lengths, mask, reset, rate)
    x = x.astype(params["D"].dtype)
    y, state = feature_system.apply(system(params, options), x, options, lengths, reset, rate, state)
    return y + parameters.feedthrough(params, x), state


def init_state(params: Params, options: Any, batch: int, *, max_length: int | None = None) -> State:
    """The zero state (batch, H, N), complex. ValueError if bidirectional. `max_length` is not used."""
    if options.bidirectional:
        raise ValueError(sequence.NOT_RECURRENT)
    return feature_system.init_state(params["C"], batch)


def discretize(params: Params, options: Options, *, rate: Rate | None = None) -> dict[str, Array]:
    """The system for `step`, see `feature_system.cell`; `rate`: () or (B,), default 1. ValueError if bidirectional."""
    return feature_system.cell(system(params, options), params["D"], rate)


def step(
    cell: Params, state: State, x_k: Float[Array, "B H"], options: Options, *, mask: Flags = None, reset: Flags = None
) -> tuple[Float[Array, "B H"], State]:
    """One sample of `apply`: y_k and the next state."""
    return feature_system.step(cell, state, x_k, mask=mask, reset=reset)


def transfer_function(
    params: Params, s: Complex[Array, "*frequencies"], options: Options
) -> Complex[Array, "*frequencies H H"]:
    """G(s), diagonal. The step sizes matter only to DSS and to the band limit."""
    A, B = _continuous(params, options)
    s = s[..., None, None]
    G = params["D"].astype(A.dtype)
    for sign, C in zip((1, -1), _readouts(params, options), strict=False):
        v, pole = (parameters.with_rank(x, s.ndim) for x in (C * B / 2, A))
        terms = v / (sign * s - pole) + v.conj() / (sign * s - pole.conj())
        G = parameters.with_rank(G, s.ndim - 1) + jnp.sum(terms, -1)
    return G[..., None] * parameters.with_rank(jnp.eye(len(params["D"]), dtype=G.dtype), G.ndim + 1)
