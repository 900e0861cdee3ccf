"""S5: one multi-input, multi-output diagonal system per layer (Smith, Warrington, Linderman 2023, arXiv 2208.04933).

    x'(t) = Lambda x(t) + B u(t),    y(t) = Re(C x(t)) + D u(t)

Before it is diagonalised, A is block-diagonal with J equal blocks, each the normal part of HiPPO-LegS or, in S5-PTD,
HiPPO-LegS with a small perturbation (arXiv 2310.01698). With `conj_sym` one mode of each conjugate pair is stored, and
y = 2 Re(C x) + D u.

Letters: H features, P stored states (half of `state_size` with `conj_sym`), L length. Parameters have the names and
shapes of the published code; a complex array has a trailing axis (re, im):

    Lambda_re, Lambda_im (P,)   B (P, H, 2)   C (H, P, 2)   D (H,)   log_step (P, 1), natural log of the step size

A bidirectional mixer has C1 and C2 instead of C, or one C of shape (H, 2 P, 2) with `C_init="complex_normal"`; the two
directions share all other parameters.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Bool, Complex, Float, Inexact, Integer, PRNGKeyArray

from s5jax.ssm import diagonal_system, hippo, parameters, scan
from s5jax.ssm import discretize as rules
from s5jax.ssm.parameters import pair, unpair, with_rank
from s5jax.ssm.sequence import Flags, Rate, border

Params = dict[str, Array]
State = Complex[Array, "B P"]

GROUPS = {"dynamics": "Lambda_re|Lambda_im|B|log_step"}
RATE, PADDING, MASK, RESET = "step", "exact", True, True


def CAUSAL(options: "Options") -> bool:
    return not options.bidirectional


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of S5. Hashable, so that they can be static arguments of `jax.jit`."""

    state_size: int = 64
    """Number of states, conjugate modes included (`ssm_size_base` of the published recipes)."""
    blocks: int = 1
    """J, the number of equal diagonal blocks of A."""
    init: Literal["normal", "ptd-conjugate"] = "normal"
    """Initial value of each block: the normal part of HiPPO-LegS, or HiPPO-LegS with a small perturbation
    (`ptd-conjugate`, see `ssm.ptd.perturb_then_diagonalize`)."""
    ptd_kappa: float = 0.0
    """Bound on the condition number of a perturbed block's eigenvectors; 0: the default of `ptd`."""
    C_init: Literal["trunc_standard_normal", "lecun_normal", "complex_normal"] = "trunc_standard_normal"
    """Initialisation of C, by the published names. Real and imaginary parts have the standard deviation
    1/sqrt(state_size) (`trunc_standard_normal`) or 1/sqrt(state_size H) (`lecun_normal`) before C is transformed to the
    eigenbasis, or sqrt(1/2) in the eigenbasis (`complex_normal`)."""
    D_init: parameters.FeedthroughInit = "normal"
    """Initialisation of D: standard normal, or zero."""
    dt_min: float = 0.001
    """Smallest initial step size, in the time unit of Lambda. They are drawn log-uniformly from dt_min to dt_max."""
    dt_max: float = 0.1
    """Largest initial step size."""
    bidirectional: bool = False
    """Read the sequence in both directions; there is no recurrent mode then."""
    conj_sym: bool = True
    """Store one mode of each conjugate pair."""
    discretization: rules.Method = "zoh"
    """Zero-order hold or the bilinear transform, see `ssm.discretize`."""
    clip_eigs: bool = False
    """Clip the real part of Lambda to at most -1e-4."""
    scan_method: scan.Method = "auto"
    """How the recurrence is computed, see `ssm.scan`. `plain` supports `jax.jvp` and `jax.linearize`."""

    def __post_init__(self) -> None:
        parameters.check_choices(self)
        parameters.check_between(self, 1, 2**14, "state_size", "blocks")
        if self.state_size % self.blocks:
            raise ValueError(f"state_size {self.state_size} is not divisible by blocks {self.blocks}")
        size = self.state_size // self.blocks
        if self.conj_sym and size % 2:
            raise ValueError(f"conj_sym needs blocks of even size, got state_size/blocks = {size}")
        parameters.check_kappa(self.init, self.ptd_kappa)
        parameters.check_step_sizes(self.dt_min, self.dt_max)


def init(key: PRNGKeyArray, width: int, options: Options = Options(), *, depth: int = 1, length: int = 1) -> Params:
    """Initial parameters, float32 (arXiv 2208.04933, section 4 and appendix B.1). `depth` and `length` are not used."""
    Lambda, V, V_inverse = _block(options)
    Lambda = np.tile(Lambda, options.blocks)
    V, V_inverse = (scipy.linalg.block_diag(*[M] * options.blocks) for M in (V, V_inverse))
    B_key, C_key, D_key, step_key = jax.random.split(key, 4)
    B = jax.nn.initializers.lecun_normal()(B_key, (options.state_size, width), jnp.float32)
    return {
        "Lambda_re": jnp.asarray(Lambda.real, jnp.float32),
        "Lambda_im": jnp.asarray(Lambda.imag, jnp.float32),
        "B": pair(_matmul(V_inverse, B)),
        **_init_C(C_key, width, V, options),
        "D": parameters.init_feedthrough(D_key, width, options.D_init),
        "log_step": parameters.log_step(step_key, (len(Lambda), 1), options.dt_min, options.dt_max),
    }


def _block(options: Options) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Eigenvalues, eigenvectors V, and rows of V^-1, for the stored modes of one block."""
    n = options.state_size // options.blocks
    if options.init == "normal":
        A, _, P = hippo.legs(n)
        Lambda, V = hippo.normal_part(A, P)
        Lambda, V = hippo.conjugate_half(Lambda, V) if options.conj_sym else (Lambda, V)
        return Lambda, V, V.conj().T
    from s5jax.ssm import ptd  # only where it is asked for

    perturbed = ptd.perturbed_legs(n, options.ptd_kappa)
    return perturbed.halves() if options.conj_sym else (perturbed.Lambda, perturbed.V, perturbed.inverse)


def _init_C(key: PRNGKeyArray, H: int, V: Complex[np.ndarray, "n P"], options: Options) -> Params:
    n, P = V.shape
    names = ("C1", "C2") if options.bidirectional else ("C",)
    if options.C_init == "complex_normal":
        return {"C": jax.random.normal(key, (H, len(names) * P, 2), jnp.float32) * jnp.float32(np.sqrt(0.5))}
    # By default fan-in is the product of all axes but the last: H n for `lecun_normal`, as in the published code.
    batch_axis = 0 if options.C_init == "trunc_standard_normal" else ()
    initializer = jax.nn.initializers.lecun_normal(batch_axis=batch_axis)
    drawn = [unpair(initializer(k, (H, n, 2), jnp.float32)) for k in jax.random.split(key, len(names))]
    return {name: pair(_matmul(C, V)) for name, C in zip(names, drawn, strict=True)}


def _matmul(x: Inexact[Array | np.ndarray, "a b"], y: Inexact[Array | np.ndarray, "b c"]) -> Complex[Array, "a c"]:
    """Complex product in full single precision on every device."""
    return jnp.matmul(jnp.asarray(x, jnp.complex64), jnp.asarray(y, jnp.complex64), precision="highest")


def apply(
    params: Params,
    x: Float[Array, "B L H"],
    options: Options = Options(),
    *,
    lengths: Integer[Array, " B"] | None = None,
    mask: Bool[Array, "B L"] | None = None,
    reset: Bool[Array, "#B #L"] | None = None,
    rate: Rate | None = None,
    state: State | None = None,
    key: PRNGKeyArray | None = None,
    dropout: float = 0.0,
) -> tuple[Float[Array, "B L H"], State | None]:
    """See `s5jax.mixers`. A missing sample is an input of zero; `key` and `dropout` are not used."""
    x, (lengths, _, reset, rate) = border(x, lengths, mask, reset, rate)
    x = x.astype(params["D"].dtype)
    y, state = diagonal_system.apply(_system(params, options), x, lengths, reset, rate, state, options.scan_method)
    return y + parameters.feedthrough(params, x), state


def init_state(params: Params, options: Options, batch: int, *, max_length: int | None = None) -> State:
    """The zero state (batch, P), complex. ValueError if bidirectional. `max_length` is not used."""
    from s5jax.ssm import diagonal_step

    return diagonal_step.init_state(params["Lambda_re"], batch, two_directions=options.bidirectional)


def discretize(params: Params, options: Options, *, rate: Rate | None = None) -> dict[str, Array]:
    """The discretised system, see `diagonal_step.cell`. ValueError if bidirectional."""
    from s5jax.ssm import diagonal_step

    return diagonal_step.cell(_system(params, options), params["D"], rate)


def step(
    cell: Params, state: State, x_k: Float[Array, "B H"], options: Options, *, mask: Flags = None, reset: Flags = None
) -> tuple[Float[Array, "B H"], State]:
    """One sample of `apply`: y_k and the next state."""
    from s5jax.ssm import diagonal_step

    return diagonal_step.step(cell, state, x_k, mask=mask, reset=reset)


def kernel(
    params: Params, L: int, options: Options = Options(), *, rate: Rate | None = None
) -> Float[Array, "directions H H {L}"]:
    """The impulse response of the discrete system, (direction, output, input, lag), for L >= 1 lags, without D.

    `rate` is (), default 1. With two directions, y_k = sum_l K[0, :, :, l] u_{k-l} + K[1, :, :, l] u_{k+l}, and both
    include lag 0.
    """
    from s5jax.ssm import diagonal_step

    return diagonal_step.kernel(_system(params, options), L, rate, options.scan_method)


def eigenvalues(params: Params, options: Options = Options()) -> Complex[Array, " P"]:
    """The eigenvalues Lambda of A. The system is stable if all real parts are negative."""
    real = params["Lambda_re"]
    return jax.lax.complex(jnp.clip(real, None, -1e-4) if options.clip_eigs else real, params["Lambda_im"])


def time_step(params: Params, options: Options = Options()) -> Float[Array, "P 1"]:
    """The step sizes Delta, in the time unit of Lambda."""
    return jnp.exp(params["log_step"])


def transfer_function(
    params: Params, s: Complex[Array, "*frequencies"], options: Options = Options()
) -> Complex[Array, "*frequencies H H"]:
    """G(s) of the map u -> Re(C x) + D u, a sum over the stored modes and their conjugates, with the readouts C/2 and
    conj(C)/2 or, with `conj_sym`, C and conj(C). The step sizes have no effect."""
    pole, (_, B, Cs) = eigenvalues(params, options), _system(params, options)
    pole, B = jnp.concatenate([pole, pole.conj()]), jnp.concatenate([B, B.conj()])
    Cs = [jnp.concatenate([C, C.conj()], axis=1) / 2 for C in Cs]
    s = s[..., None]
    G = jnp.broadcast_to(jnp.diag(params["D"]).astype(B.dtype), (*s.shape[:-1], *2 * params["D"].shape))
    for sign, C in zip((1, -1), Cs, strict=False):
        G = G + jnp.einsum("hp,...p,pi->...hi", C, 1 / (sign * s - with_rank(pole, s.ndim)), B, precision="highest")
    return G


def _system(params: Params, options: Options) -> diagonal_system.System:
    """A function from gaps in step sizes to Lambda_bar and gamma; B; and C per direction, doubled with `conj_sym`."""

    def discretize(gap: Rate) -> tuple[Complex[Array, "*gaps P"], Complex[Array, "*gaps P"]]:
        gap = jnp.asarray(gap, params["log_step"].dtype)[..., None]
        Delta = gap * with_rank(time_step(params)[:, 0], gap.ndim)
        return rules.discretize(with_rank(eigenvalues(params, options), Delta.ndim), Delta, options.discretization)

    if "C1" in params:
        Cs = [params["C1"], params["C2"]]
    else:
        Cs = jnp.split(params["C"], params["C"].shape[1] // params["Lambda_re"].shape[0], axis=1)
    return discretize, unpair(params["B"]), [unpair(2 * C if options.conj_sym else C) for C in Cs]
