"""S4D and DSS: a diagonal system for each feature (Gu, Gupta, Goel, Ré 2022, arXiv 2206.11893; Gupta, Gu, Berant 2022,
arXiv 2203.14343).

    x_h'(t) = A x_h(t) + B u_h(t),    y_h(t) = 2 Re(C_h x_h(t)) + D_h u_h(t)

computed as a convolution with the kernel K_l = 2 Re sum_n C_n B_bar_n A_bar_n^l, or by a scan.

Letters: H features, N stored states of each, half of `state_size`, the other half being their conjugates; S = `n_ssm`
copies of (A, B), feature h using copy h mod S. Parameters:

    A_real, A_imag (S, N)   B (S, N, 2)   C (H, N, 2)   D (H,)   log_step (H, 1), or (H, N) with `dt_per_state`

with A = -f(A_real) - i A_imag, f the `real_transform`, and log_step the natural log of the step size. The names and
signs are those of the published code, but for its `inv_dt`, which is log_step. Two directions have C1 and C2 for C and
share all else.

S4-PTD (arXiv 2310.01698) is the init "ptd-conjugate": with a small perturbation HiPPO-LegS has a well-conditioned
eigenbasis V; its eigenvalues are A, B is V^-1 times HiPPO's, and C starts as C V with C real, so that the kernel is at
first close to one of S4 on HiPPO-LegS.

DSS is the discretisation "dss" (arXiv 2203.14343, proposition 1): zero-order hold with each mode divided by its sum
over a kernel of `dss_length` samples, a softmax over time. Its modes, as published, are not halves of conjugate pairs:
y = Re(C x) + D u. DSS-exp is the discretisation "zoh" with B fixed at 1.
"""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Integer, PRNGKeyArray

from s5jax.ssm import convolution, diagonalize, discretize, hippo, parameters, scan

__all__ = [
    "SSM_PARAMS",
    "Lambda",
    "Options",
    "advance",
    "apply",
    "init",
    "initial_state",
    "kernel",
    "recurrence",
    "step",
    "transfer_function",
]

SSM_PARAMS = ("A_real", "A_imag", "B", "log_step")
"""The parameters that define the state's dynamics, and by default train with the SSM learning rate."""

Params = dict[str, Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What defines the layer besides its width. Hashable, so that it can be static under `jax.jit`."""

    state_size: int = 64
    """States of a feature, before conjugate halves are dropped: even."""
    init: Literal["lin", "inv", "inv2", "quad", "real", "legs", "random", "ptd-conjugate"] = "lin"
    """The initial A = -1/2 - i w_n with, for n = 0..N-1 and M = state_size, w = pi n (`lin`), (M/pi) (M/(2n+1) - 1)
    (`inv`), (M/pi) (M/(n+1) - 1) (`inv2`), (2n+1)^2/pi (`quad`), the eigenvalues of HiPPO-LegS' normal part (`legs`),
    or exp of a standard normal (`random`); or A = -(n+1) (`real`). Arxiv 2206.11893, section 4. Or A, B and C as of
    `diagonalize.perturb_then_diagonalize` applied to HiPPO-LegS (`ptd-conjugate`)."""
    ptd_kappa: float = 0.0
    """Bound on the condition number of its eigenvectors; 0: the default there."""
    real_random: bool = False
    """Draw -Re(A) uniformly in [0, 1) instead of 1/2; for `real` in [0, N)."""
    real_scale: float = 1.0
    """Factor on the initial real parts."""
    imag_random: bool = False
    """Draw n uniformly in [0, N) in the formulas of `init`."""
    imag_scale: float = 1.0
    """Factor on the initial imaginary parts."""
    real_transform: parameters.RealTransform = "exp"
    """How -Re(A) is made of A_real. `none` lets training make the system unstable."""
    B_init: Literal["of_init", "constant", "random", "alternating", "unit_cw", "unit_ccw", "legs"] = "of_init"
    """The initial B: ones (`constant`), complex standard normal (`random`), 1, -1, 1, ... (`alternating`), powers of
    exp(-2 pi i / state_size) (`unit_cw`) or of its conjugate (`unit_ccw`), HiPPO-LegS' B (`legs`); `of_init` is `legs`
    for init=legs, V^-1 times HiPPO-LegS' B for `ptd-conjugate`, otherwise `constant`."""
    B_clip: float = 2.0
    """Bound on the imaginary part of HiPPO's initial B, as published; 0: none."""
    B_trained: bool = True
    """Otherwise B stays at its start, and is no parameter."""
    n_ssm: int = 0
    """S, copies of (A, B); must divide d_model; 0: one for each feature."""
    D_init: parameters.FeedthroughInit = "normal"
    """D starts as a standard normal or, to be none at first, as zero."""
    dt_min: float = 0.001
    """Least initial step size; log_step starts log-uniform between the two."""
    dt_max: float = 0.1
    dt_per_state: bool = False
    """A step size for every state instead of every feature."""
    discretization: Literal["zoh", "bilinear", "dss"] = "zoh"
    dss_length: int = 0
    """Samples that the discretisation "dss" normalises over: the length trained at. Other discretisations have none."""
    bandlimit: float = 0.0
    """Silence modes that turn by this share of pi or more in a step of training's size: 1 is the Nyquist frequency;
    0: none are."""
    bidirectional: bool = False
    """Read the sequence in both directions. Such a layer has no recurrent mode."""
    backward_skips_current: bool = True
    """Start the backward kernel at the next sample, as published; otherwise at the current one, as S5 does."""
    mode: Literal["convolution", "scan"] = "convolution"
    """How `apply` computes; the scan takes memory for every state at every step."""
    scan_method: scan.Method = "auto"

    def __post_init__(self) -> None:
        parameters.check_state_size(self.state_size)
        parameters.check_step_sizes(self.dt_min, self.dt_max)
        for name in ("n_ssm", "dss_length", "bandlimit", "B_clip", "imag_scale"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if self.real_scale <= 0:
            raise ValueError(f"real_scale must be positive, got {self.real_scale}: with Re(A) >= 0 A is unstable")
        if (self.discretization == "dss") != (self.dss_length > 0):
            raise ValueError(
                "discretization dss normalises over dss_length samples, at least 1; other discretizations take"
                f" dss_length 0. Got {self.discretization} and {self.dss_length}"
            )
        if self.discretization == "dss" and self.real_transform == "none":
            raise ValueError("discretization dss needs Re(A) < 0, which real_transform none does not keep")
        diagonalize.check_kappa(self.init, self.ptd_kappa)
        if self.init == "ptd-conjugate" and (self.B_init == "legs" or self.real_random or self.imag_random):
            raise ValueError(
                "init ptd-conjugate has a B and an A of its own: no B_init legs, real_random or imag_random"
            )
        if not self.B_trained and self.B_init == "random":
            raise ValueError("B_init random needs B_trained: a B that is not stored must be the same every time")


def init(key: PRNGKeyArray, d_model: int, options: Options = Options()) -> Params:
    """Initial parameters, float32, for `d_model` features (arXiv 2206.11893, sections 3 and 4).

    Raises:
      ValueError: `n_ssm` does not divide `d_model`, or the initial A is out of `real_transform`'s reach.
    """
    copies, N = parameters.copies(options.n_ssm, d_model), options.state_size // 2
    A_key, B_key, C_key, D_key, step_key = jax.random.split(key, 5)
    A = _initial_A(A_key, copies, options)
    params = {
        "A_real": jnp.asarray(parameters.raw_decay_rate(-A.real, options.real_transform), jnp.float32),
        "A_imag": jnp.asarray(-A.imag, jnp.float32),
        **parameters.init_readouts(C_key, (d_model, N), options.bidirectional),
        "D": parameters.init_feedthrough(D_key, d_model, options.D_init),
        "log_step": parameters.log_step(
            step_key, (d_model, N if options.dt_per_state else 1), options.dt_min, options.dt_max
        ),
    }
    if options.init == "ptd-conjugate":
        V = _perturbed(options.state_size, options.ptd_kappa)[2]
        params |= parameters.init_real_readouts(C_key, d_model, V, options.bidirectional)
    if options.B_init == "random":
        params["B"] = jax.random.normal(B_key, (copies, N, 2), jnp.float32) * jnp.float32(np.sqrt(0.5))
    elif options.B_trained:
        params["B"] = parameters.pair(jnp.asarray(np.tile(_initial_B(options), (copies, 1)), jnp.complex64))
    return params


def _initial_A(key: PRNGKeyArray, copies: int, options: Options) -> Complex[np.ndarray, "S N"]:
    size, N = options.state_size, options.state_size // 2
    real_key, imag_key = jax.random.split(key)
    n = np.tile(np.arange(N, dtype=np.float64), (copies, 1))
    if options.imag_random:
        n = N * np.asarray(jax.random.uniform(imag_key, n.shape), np.float64)
    decay = (
        np.asarray(jax.random.uniform(real_key, n.shape), np.float64) if options.real_random else np.full(n.shape, 0.5)
    )
    match options.init:
        case "lin":
            frequency = np.pi * n
        case "inv":
            frequency = size / np.pi * (size / (2 * n + 1) - 1)
        case "inv2":
            frequency = size / np.pi * (size / (n + 1) - 1)
        case "quad":
            frequency = (2 * n + 1) ** 2 / np.pi
        case "legs":
            frequency = np.broadcast_to(-_legs(size)[0].imag, n.shape)
        case "ptd-conjugate":
            A = _perturbed(size, options.ptd_kappa)[0]
            frequency = np.broadcast_to(-A.imag, n.shape)
            decay = np.broadcast_to(-A.real, n.shape)
        case "random":
            frequency = np.exp(np.asarray(jax.random.normal(imag_key, n.shape), np.float64))
        case "real":
            frequency = np.zeros(n.shape)
            decay = N * decay if options.real_random else 1 + np.tile(np.arange(N), (copies, 1))
    return -options.real_scale * decay - 1j * options.imag_scale * frequency


@functools.cache
def _legs(size: int) -> tuple[Complex[np.ndarray, " N"], Complex[np.ndarray, " N"]]:
    Lambda, B, _ = diagonalize.normal_plus_low_rank(*hippo.legs(size))
    return Lambda, B


@functools.cache
def _perturbed(
    size: int, kappa: float
) -> tuple[Complex[np.ndarray, " N"], Complex[np.ndarray, " N"], Complex[np.ndarray, "size N"]]:
    """Lambda, V^-1 B and V of HiPPO-LegS perturbed, half of its modes."""
    A, B, _ = hippo.legs(size)
    Lambda, V, inverse = diagonalize.perturb_then_diagonalize(A, kappa=kappa or None).halves()
    return Lambda, inverse @ B, V


def _initial_B(options: Options) -> Complex[np.ndarray, " N"]:
    n = np.arange(options.state_size // 2)
    kind = options.B_init
    if kind == "of_init":
        if options.init == "ptd-conjugate":
            return _perturbed(options.state_size, options.ptd_kappa)[1]
        kind = "legs" if options.init == "legs" else "constant"
    if kind == "legs":
        return parameters.clip_imaginary(_legs(options.state_size)[1], options.B_clip)
    turn = {"constant": 0.0, "alternating": np.pi, "unit_cw": -2 * np.pi / (2 * len(n))}
    turn["unit_ccw"] = -turn["unit_cw"]
    return np.exp(1j * turn[kind] * n)


def Lambda(params: Params, options: Options = Options()) -> Complex[Array, "S N"]:
    """The diagonal of A. The system is stable where all real parts are negative."""
    return jax.lax.complex(-parameters.decay_rate(params["A_real"], options.real_transform), -params["A_imag"])


def _continuous(params: Params, options: Options) -> tuple[Complex[Array, "H N"], Complex[Array, "H N"]]:
    """A and B of every feature."""
    H = params["D"].shape[0]
    A = parameters.of_features(Lambda(params, options), H)
    if "B" in params:
        B = parameters.of_features(parameters.unpair(params["B"]), H)
    else:
        B = jnp.broadcast_to(jnp.asarray(_initial_B(options), jnp.complex64)[None], A.shape)
    if options.discretization == "dss":
        # Over a kernel of dss_length samples exp(l Delta A) sums to (exp(dss_length Delta A) - 1) / (exp(Delta A) - 1),
        # whose denominator is zoh's gamma times A. The quotient is the authors', finite where the sum is zero.
        horizon = jnp.exp(params["log_step"]) * options.dss_length
        x = A**2 * discretize.zoh(A, horizon)[1]
        B = B * A * x.conj() / (jnp.square(x.real) + jnp.square(x.imag) + 1e-7).astype(x.dtype)
    return A, B


def _discrete(
    params: Params, options: Options, step_rescale: parameters.StepRescale
) -> tuple[Complex[Array, "*steps H N"], Complex[Array, "*steps H N"]]:
    """log(A_bar) and B_bar; where `step_rescale` has axes, they stand in front."""
    A, B = _continuous(params, options)
    Delta = parameters.step_sizes(params["log_step"], step_rescale)
    A, B = (parameters.with_rank(x, Delta.ndim) for x in (A, B))
    rule: discretize.Method = "bilinear" if options.discretization == "bilinear" else "zoh"
    return discretize.log_multiplier(A, Delta, rule), discretize.discretize(A, Delta, rule)[1] * B


def _readouts(params: Params, options: Options) -> list[Complex[Array, "H N"]]:
    """C of each direction, twice where modes stand for their conjugates too; zero for modes beyond the band limit."""
    Cs = [C if options.discretization == "dss" else 2 * C for C in parameters.readouts(params)]
    if options.bandlimit:
        turn = jnp.exp(params["log_step"]) * jnp.abs(_continuous(params, options)[0].imag)
        Cs = [jnp.where(turn < np.pi * options.bandlimit, C, 0) for C in Cs]
    return Cs


def kernel(
    params: Params, length: int, options: Options = Options(), *, step_rescale: float | Float[Array, ""] = 1.0
) -> Float[Array, "directions H {length}"]:
    """The convolution kernel of each direction, K_l = 2 Re sum_n C_n B_bar_n A_bar_n^l, without D."""
    log_a, B_bar = _discrete(params, options, step_rescale)
    return jnp.stack([convolution.vandermonde(C * B_bar, log_a, length) for C in _readouts(params, options)])


def apply(
    params: Params,
    u: Float[Array, "*batch L H"],
    options: Options = Options(),
    *,
    lengths: Integer[Array, "*batch"] | None = None,
    initial_state: Complex[Array, "..."] | None = None,
    step_rescale: parameters.StepRescale = 1.0,
    return_state: bool = False,
) -> Float[Array, "*batch L H"] | tuple[Float[Array, "*batch L H"], Complex[Array, "*batch H N"]]:
    """The layer on whole sequences.

    Args:
      params: as from `init`.
      u: inputs (..., L, H).
      options: those `params` were made with.
      lengths: (...), valid steps of each sequence. What stands after them changes no output before them, in
        neither direction, and no state. Default: every step is valid.
      initial_state: (H, N) or (..., H, N), the state before the first step, as from `initial_state`, `step` or
        `return_state`; one direction only. Default: zero.
      step_rescale: factor on the step sizes, 2 for an input sampled at half the rate of training; or one for each
        step, (L,) or (..., L), for an input sampled irregularly, which goes through the scan whatever the `mode`.
      return_state: return the state after the last valid step too; one direction only.

    Returns:
      y (..., L, H), or (y, state) with `return_state`.

    Raises:
      ValueError: a state is asked of a layer with two directions.
    """
    if (return_state or initial_state is not None) and options.bidirectional:
        raise ValueError("a layer with two directions has no state to start from or to return")
    u, step_rescale = scan.without_padding(u, lengths), scan.regular_in_padding(step_rescale, lengths)
    compute = _by_scan if options.mode == "scan" or jnp.ndim(step_rescale) else _by_convolution
    y, state = compute(params, u, options, lengths, initial_state, step_rescale, return_state)
    y = y + parameters.feedthrough(params, u)
    return y if state is None else (y, state)


def _by_convolution(
    params: Params,
    u: Float[Array, "*batch L H"],
    options: Options,
    lengths: Integer[Array, "*batch"] | None,
    start: Complex[Array, "..."] | None,
    step_rescale: parameters.StepRescale,
    return_state: bool,
) -> tuple[Float[Array, "*batch L H"], Complex[Array, "*batch H N"] | None]:
    L = u.shape[-2]
    K = kernel(params, L, options, step_rescale=step_rescale)
    if len(K) == 2:
        return convolution.two_sided(u, K[0], K[1], skip_current=options.backward_skips_current), None
    y, state = convolution.causal(u, K[0]), None
    log_a, B_bar = _discrete(params, options, step_rescale)
    if return_state:
        state = parameters.with_rank(B_bar, u.ndim) * convolution.final_state(log_a, u, lengths)
    if start is not None:
        start = jnp.broadcast_to(start, (*u.shape[:-2], *start.shape[-2:]))
        (C,) = _readouts(params, options)
        log_a, C = (parameters.with_rank(x, u.ndim) for x in (log_a, C))
        left = convolution.vandermonde(C * jnp.exp(log_a) * start, log_a.reshape(B_bar.shape), L)
        y = y + jnp.swapaxes(left, -1, -2)
        if state is not None:
            count = jnp.full(u.shape[:-2], L) if lengths is None else lengths
            state = state + jnp.exp(log_a * count[..., None, None].astype(log_a.dtype)) * start
    return y, state


def _by_scan(
    params: Params,
    u: Float[Array, "*batch L H"],
    options: Options,
    lengths: Integer[Array, "*batch"] | None,
    start: Complex[Array, "..."] | None,
    step_rescale: parameters.StepRescale,
    return_state: bool,
) -> tuple[Float[Array, "*batch L H"], Complex[Array, "*batch H N"] | None]:
    log_a, B_bar = _discrete(params, options, step_rescale)
    inputs = parameters.with_rank(B_bar, u.ndim + 1) * u[..., None].astype(B_bar.dtype)
    *_, H, N = inputs.shape

    def flat(x: Array) -> Array:
        return x.reshape(*x.shape[:-2], H * N)

    def scanned(reverse: bool) -> tuple[Array, Array]:
        # A padded input of zero is all that valid outputs need; only a state that is handed over must be held.
        mask = None if lengths is None or not return_state else scan.valid_steps(lengths, u.shape[-2])
        states, last = scan.scan(
            flat(jnp.exp(log_a)),
            flat(inputs),
            initial_state=None if start is None else flat(start),
            mask=mask,
            reverse=reverse,
            method=options.scan_method,
        )
        return states.reshape(inputs.shape), last.reshape(*last.shape[:-1], H, N)

    Cs = _readouts(params, options)
    states, last = scanned(reverse=False)
    y = _read_out(Cs[0], states)
    if len(Cs) == 2:
        backward = _read_out(Cs[1], scanned(reverse=True)[0])
        if options.backward_skips_current:
            backward = jnp.concatenate([backward[..., 1:, :], jnp.zeros_like(backward[..., :1, :])], axis=-2)
        y = y + backward
    return y, last if return_state else None


def _read_out(C: Complex[Array, "H N"], x: Complex[Array, "*batch H N"]) -> Float[Array, "*batch H"]:
    return jnp.sum((parameters.with_rank(C, x.ndim) * x).real, axis=-1)


def initial_state(params: Params, batch_shape: tuple[int, ...] = ()) -> Complex[Array, "*batch H N"]:
    """The zero state, (*batch_shape, H, N), complex64."""
    return jnp.zeros((*batch_shape, *parameters.readouts(params)[0].shape), jnp.complex64)


def recurrence(
    params: Params, options: Options = Options(), *, step_rescale: parameters.StepRescale = 1.0
) -> dict[str, Array]:
    """What `advance` needs of the parameters: to be computed once for many samples.

    Args:
      step_rescale: factor on the step sizes, one for all or (...), one for each sequence.

    Raises:
      ValueError: the layer has two directions.
    """
    if options.bidirectional:
        raise ValueError("a layer with two directions has no recurrent mode")
    log_a, B_bar = _discrete(params, options, step_rescale)
    return {"A_bar": jnp.exp(log_a), "B_bar": B_bar, "C": _readouts(params, options)[0], "D": params["D"]}


def advance(
    recurrence: dict[str, Array], state: Complex[Array, "*batch H N"], u_k: Float[Array, "*batch H"]
) -> tuple[Complex[Array, "*batch H N"], Float[Array, "*batch H"]]:
    """One sample of what `apply` computes: (state, u_k) to (next state, y_k)."""
    A_bar, B_bar = (parameters.with_rank(recurrence[name], state.ndim) for name in ("A_bar", "B_bar"))
    state = A_bar * state + B_bar * u_k[..., None].astype(B_bar.dtype)
    return state, _read_out(recurrence["C"], state) + parameters.feedthrough(recurrence, u_k)


def step(
    params: Params,
    state: Complex[Array, "*batch H N"],
    u_k: Float[Array, "*batch H"],
    options: Options = Options(),
    *,
    step_rescale: parameters.StepRescale = 1.0,
) -> tuple[Complex[Array, "*batch H N"], Float[Array, "*batch H"]]:
    """`advance` with the `recurrence` of the parameters, where there are errors described."""
    return advance(recurrence(params, options, step_rescale=step_rescale), state, u_k)


def transfer_function(
    params: Params, s: Complex[Array, "*frequencies"], options: Options = Options()
) -> Complex[Array, "*frequencies H H"]:
    """G(s) = C (s I - A)^-1 B + D of the continuous-time systems: diagonal, (output, input) on the last two axes.

    The conjugate modes are counted in. A backward direction adds its own, C2 (-s I - A)^-1 B. The step sizes have no
    part in it but through DSS' normalisation and the band limit.

    Args:
      s: complex frequencies, in the unit of A (radians/time); the step sizes measure that time.
    """
    A, B = _continuous(params, options)
    s = s[..., None, None]
    G = params["D"].astype(A.dtype)
    for sign, C in zip((1, -1), _readouts(params, options), strict=False):
        v, pole = (parameters.with_rank(x, s.ndim) for x in (C * B / 2, A))
        G = parameters.with_rank(G, s.ndim - 1) + jnp.sum(
            v / (sign * s - pole) + v.conj() / (sign * s - pole.conj()), -1
        )
    return G[..., None] * parameters.with_rank(jnp.eye(len(params["D"]), dtype=G.dtype), G.ndim + 1)
