"""LRU: the linear recurrent unit, a diagonal discrete-time system (Orvieto et al. 2023, arXiv 2303.06349).

    h_k = lambda * h_{k-1} + exp(gamma_log) * (B u_k),    y_k = Re(C h_k) + D u_k,
    lambda = exp(-exp(nu_log) + i exp(theta_log))

The modes do not stand for conjugate pairs, so that there is no factor 2. Letters: H features, N states, L length. The
parameters are those of the published code:

    nu_log, theta_log, gamma_log (N,)   B_re, B_im (N, H)   C_re, C_im (H, N)   D (H,)

A bidirectional mixer also has C2_re and C2_im, the readout of the backward direction; the directions share all other
parameters. The recurrence has no step size; a rate g replaces lambda by lambda^g and leaves gamma unchanged.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float, Integer, PRNGKeyArray

from s5jax.ssm import diagonal_system, scan
from s5jax.ssm.parameters import check_between, check_choices, feedthrough, with_rank
from s5jax.ssm.sequence import Flags, Rate, border

Params = dict[str, Array]
State = Complex[Array, "B N"]

GROUPS = {"dynamics": "nu_log|theta_log|gamma_log|B_re|B_im"}
RATE, PADDING, MASK, RESET = "step", "exact", True, True


def CAUSAL(options: "Options") -> bool:
    return not options.bidirectional


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the LRU."""

    state_size: int = 64
    """N, the number of states."""
    r_min: float = 0.0
    """Smallest initial |lambda|; |lambda|^2 is drawn uniformly between r_min^2 and r_max^2."""
    r_max: float = 1.0
    """Largest initial |lambda|."""
    max_phase: float = 6.28
    """The phase of lambda is drawn uniformly between 0 and this, in radians."""
    bidirectional: bool = False
    """Read the sequence in both directions; there is no recurrent mode then."""
    scan_method: scan.Method = "auto"
    """How the recurrence is computed, see `ssm.scan`. `plain` supports `jax.jvp` and `jax.linearize`."""

    def __post_init__(self) -> None:
        check_choices(self)
        check_between(self, 1, 2**16, "state_size")
        if not 0 <= self.r_min < self.r_max <= 1:
            raise ValueError(f"r_min and r_max must satisfy 0 <= r_min < r_max <= 1, got {self.r_min} and {self.r_max}")
        if self.max_phase <= 0:
            raise ValueError(f"max_phase must be a positive number, got {self.max_phase}")


def init(key: PRNGKeyArray, width: int, options: Options = Options(), *, depth: int = 1, length: int = 1) -> Params:
    """Initial parameters, float32 (arXiv 2303.06349, section 3.3 and lemma 3.2). `depth` and `length` are not used."""
    N, H = options.state_size, width
    keys = jax.random.split(key, 9)
    uniform = [jax.random.uniform(k, (N,), jnp.float32, minval=1e-7) for k in keys[:2]]  # log(0) is infinite
    # Draw 1 - |lambda|^2, from which |lambda| near 1 follows without cancellation.
    rest = uniform[0] * (options.r_max**2 - options.r_min**2) + (1 - options.r_max**2)
    nu = -jnp.log1p(-jnp.minimum(rest, 1 - 1e-7)) / 2

    def normal(key: PRNGKeyArray, shape: tuple[int, ...], variance: float) -> Float[Array, "..."]:
        return jax.random.normal(key, shape, jnp.float32) * math.sqrt(variance)

    params = {
        "nu_log": jnp.log(nu),
        "theta_log": jnp.log(options.max_phase * uniform[1]),
        "gamma_log": jnp.log(rest) / 2,
        "B_re": normal(keys[2], (N, H), 1 / (2 * H)),
        "B_im": normal(keys[3], (N, H), 1 / (2 * H)),
        "C_re": normal(keys[4], (H, N), 1 / N),
        "C_im": normal(keys[5], (H, N), 1 / N),
        "D": normal(keys[6], (H,), 1.0),
    }
    if options.bidirectional:
        params |= {"C2_re": normal(keys[7], (H, N), 1 / N), "C2_im": normal(keys[8], (H, N), 1 / N)}
    return params


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
    y, state = diagonal_system.apply(_system(params), x, lengths, reset, rate, state, options.scan_method)
    return y + feedthrough(params, x), state


def init_state(params: Params, options: Options, batch: int, *, max_length: int | None = None) -> State:
    """The zero state (batch, N), complex. ValueError if bidirectional. `max_length` is not used."""
    from s5jax.ssm import diagonal_step

    return diagonal_step.init_state(params["nu_log"], batch, two_directions=options.bidirectional)


def discretize(params: Params, options: Options, *, rate: Rate | None = None) -> dict[str, Array]:
    """The system for `step`, see `diagonal_step.cell`; `rate`: () or (B,), default 1. ValueError if bidirectional."""
    from s5jax.ssm import diagonal_step

    return diagonal_step.cell(_system(params), params["D"], rate)


def step(
    cell: Params, state: State, x_k: Float[Array, "B H"], options: Options, *, mask: Flags = None, reset: Flags = None
) -> tuple[Float[Array, "B H"], State]:
    """One sample of `apply`: y_k and the next state."""
    from s5jax.ssm import diagonal_step

    return diagonal_step.step(cell, state, x_k, mask=mask, reset=reset)


def kernel(
    params: Params, L: int, options: Options = Options(), *, rate: Rate | None = None
) -> Float[Array, "directions H H {L}"]:
    """The impulse response, (direction, output, input, lag), see `s5.kernel`."""
    from s5jax.ssm import diagonal_step

    return diagonal_step.kernel(_system(params), L, rate, options.scan_method)


def eigenvalues(params: Params, options: Options = Options()) -> Complex[Array, " N"]:
    """log(lambda), in 1/sample: the eigenvalues of the continuous-time system that has the multiplier lambda at step
    size 1."""
    return jax.lax.complex(-jnp.exp(params["nu_log"]), jnp.exp(params["theta_log"]))


def _system(params: Params) -> diagonal_system.System:
    """A function from gaps g to lambda^g and gamma; B; and C per direction."""

    def discretize(gap: Rate) -> tuple[Complex[Array, "*gaps N"], Complex[Array, " N"]]:
        gap = jnp.asarray(gap, params["nu_log"].dtype)[..., None]
        log = eigenvalues(params)
        real, imag = (gap * with_rank(part, gap.ndim) for part in (log.real, log.imag))
        gamma = jnp.exp(params["gamma_log"])
        return jnp.exp(jax.lax.complex(real, imag)), jax.lax.complex(gamma, jnp.zeros_like(gamma))

    Cs = [jax.lax.complex(params[f"{C}_re"], params[f"{C}_im"]) for C in ("C", "C2") if f"{C}_re" in params]
    return discretize, jax.lax.complex(params["B_re"], params["B_im"]), Cs
