"""LRU: a linear recurrent unit, diagonal from the start (Orvieto et al. 2023, arXiv 2303.06349).

    h_k = lambda * h_{k-1} + exp(gamma_log) * (B u_k),    y_k = Re(C h_k) + D u_k,
    lambda = exp(-exp(nu_log) + i exp(theta_log))

The modes are not conjugate pairs: there is no factor 2. Letters: H features, N states, L length. Parameters, as in the
published code:

    nu_log, theta_log, gamma_log (N,)   B_re, B_im (N, H)   C_re, C_im (H, N)   D (H,)

A mixer with two directions has C2_re and C2_im, the readout of the backward direction; the directions share everything
else. The recurrence knows no step size; a rate g makes it lambda^g, and leaves gamma as it is.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float, Integer, PRNGKeyArray

from s5jax.ssm import diagonal_system, scan
from s5jax.ssm.parameters import check_choices, feedthrough, with_rank
from s5jax.ssm.sequence import Rate, clean

Params = dict[str, Array]

GROUPS = {"dynamics": "nu_log|theta_log|gamma_log|B_re|B_im"}
RATE, PADDING, MASK, RESET = "step", "exact", True, True


def CAUSAL(options: "Options") -> bool:
    return not options.bidirectional


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What defines the mixer besides its width."""

    state_size: int = 64
    """N."""
    r_min: float = 0.0
    """Least initial |lambda|; |lambda|^2 starts uniform between r_min^2 and r_max^2."""
    r_max: float = 1.0
    max_phase: float = 6.28
    """The phase of lambda starts uniform between 0 and this, in radians."""
    bidirectional: bool = False
    """Read the sequence in both directions. Such a mixer has no recurrent mode."""
    scan_method: scan.Method = "auto"
    """How the recurrence is computed, see `scan`. `plain` is the way to forward-mode derivatives."""

    def __post_init__(self) -> None:
        check_choices(self)
        if self.state_size < 1:
            raise ValueError(f"state_size must be at least 1, got {self.state_size}")
        if not 0 <= self.r_min < self.r_max <= 1:
            raise ValueError(f"r_min and r_max must satisfy 0 <= r_min < r_max <= 1, got {self.r_min} and {self.r_max}")
        if not (self.max_phase > 0 and math.isfinite(self.max_phase)):
            raise ValueError(f"max_phase must be a positive number, got {self.max_phase}")


def init(key: PRNGKeyArray, width: int, options: Options = Options(), *, depth: int = 1, length: int = 1) -> Params:
    """Initial parameters, float32 (arXiv 2303.06349, section 3.3 and lemma 3.2). `depth` and `length` are not used."""
    N, H = options.state_size, width
    keys = jax.random.split(key, 9)
    uniform = [jax.random.uniform(k, (N,), jnp.float32, minval=1e-7) for k in keys[:2]]  # 0 has no logarithm
    # 1 - |lambda|^2, from which |lambda| near 1 follows without cancellation.
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
    state: Complex[Array, "B N"] | None = None,
    key: PRNGKeyArray | None = None,
    dropout: float = 0.0,
) -> tuple[Float[Array, "B L H"], Complex[Array, "B N"] | None]:
    """The mixer on whole sequences; the arguments are explained in `s5jax.mixers`. `key` and `dropout` are not used.

    Raises:
      ValueError: L is 0, or a state is given to a mixer with two directions.
    """
    x = clean(x, lengths, mask).astype(params["D"].dtype)
    y, state = diagonal_system.apply(_system(params), x, lengths, reset, rate, state, options.scan_method)
    return y + feedthrough(params, x), state


def init_state(params: Params, options: Options, batch: int, *, max_length: int | None = None) -> Complex[Array, "B N"]:
    """The zero state; ValueError for two directions. `max_length` is not used."""
    return diagonal_system.init_state(params["nu_log"], batch, two_directions=options.bidirectional)


def discretize(params: Params, options: Options, *, rate: Rate | None = None) -> dict[str, Array]:
    """What `step` needs of the parameters, for a rate () or (B,); ValueError for two directions."""
    return diagonal_system.cell(_system(params), params["D"], rate)


step = diagonal_system.step


def kernel(
    params: Params, L: int, options: Options = Options(), *, rate: Rate | None = None
) -> Float[Array, "directions H H {L}"]:
    """The response to an impulse, (direction, output, input, lag), without D; both directions include lag 0."""
    return diagonal_system.kernel(_system(params), L, rate, options.scan_method)


def eigenvalues(params: Params, options: Options = Options()) -> Complex[Array, " N"]:
    """log(lambda), in 1/sample: the eigenvalues of the continuous-time system that lambda samples at step size 1."""
    return jax.lax.complex(-jnp.exp(params["nu_log"]), jnp.exp(params["theta_log"]))


def _system(params: Params) -> diagonal_system.System:
    """lambda^g of a gap g and gamma, B, and C of each direction."""

    def discretize(gap: Rate) -> tuple[Complex[Array, "*gaps N"], Complex[Array, " N"]]:
        gap = jnp.asarray(gap, params["nu_log"].dtype)[..., None]
        log = eigenvalues(params)
        real, imag = (gap * with_rank(part, gap.ndim) for part in (log.real, log.imag))
        gamma = jnp.exp(params["gamma_log"])
        return jnp.exp(jax.lax.complex(real, imag)), jax.lax.complex(gamma, jnp.zeros_like(gamma))

    Cs = [jax.lax.complex(params[f"{C}_re"], params[f"{C}_im"]) for C in ("C", "C2") if f"{C}_re" in params]
    return discretize, jax.lax.complex(params["B_re"], params["B_im"]), Cs
