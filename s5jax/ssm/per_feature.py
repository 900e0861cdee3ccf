"""Parameters of S4 and S4D, which have one system per feature: copies, step sizes, readouts, decay rates, and S4D's
initial A and B."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, PRNGKeyArray, Shaped

from s5jax.ssm import hippo, measures
from s5jax.ssm.parameters import pair, unpair, with_rank
from s5jax.ssm.sequence import known_rate


def check_state_size(n: int) -> None:
    """Raises ValueError unless n is even and lies in 2..16384."""
    if not 2 <= n <= 2**14 or n % 2:
        raise ValueError(f"state_size must be even, since states come in conjugate pairs, in 2..16384; got {n}")


def copies(n_ssm: int, d_model: int) -> int:
    """Number of copies of (A, B): n_ssm, or d_model if n_ssm is 0."""
    if n_ssm and d_model % n_ssm:
        raise ValueError(f"n_ssm {n_ssm} does not divide d_model {d_model}")
    return n_ssm or d_model


def tile_copies(x: Shaped[Array, "S N"], d_model: int) -> Shaped[Array, "H N"]:
    """From a row per copy, (S, N), to a row per feature, (H, N): feature h uses copy h mod S."""
    return jnp.tile(x, (d_model // x.shape[0], 1))


def clip_imaginary(B: Complex[np.ndarray, "*copies N"], bound: float) -> Complex[np.ndarray, "*copies N"]:
    """Clips the imaginary part of B to [-bound, bound], as published; 0: no clipping. The result depends on the phases
    of eigenvectors: B should come from `measures.normal_plus_low_rank`."""
    return B.real + 1j * np.clip(B.imag, -bound, bound) if bound else B


DtTransform = Literal["exp", "softplus"]
"""How a step size is computed from log_step. With `softplus` log_step is log(exp(Delta) - 1), log(Delta) if small."""


def time_step(log_step: Float[Array, "*shape"], transform: DtTransform = "exp") -> Float[Array, "*shape"]:
    """The step size at rate 1."""
    return jnp.exp(log_step) if transform == "exp" else jax.nn.softplus(log_step)


def raw_step(log_Delta: Float[Array, "*shape"], transform: DtTransform) -> Float[Array, "*shape"]:
    """The parameter to store for the log of a step size."""
    if transform == "exp":
        return log_Delta
    Delta = jnp.exp(log_Delta)
    return Delta + jnp.log(-jnp.expm1(-Delta))


def step_sizes(
    log_step: Float[Array, "H N"], rate: float | Float[Array, "..."], transform: DtTransform = "exp"
) -> Float[Array, "*steps H N"]:
    """Step sizes times `rate`, whose axes, (), (B,) or (B, L), come first."""
    Delta = time_step(log_step, transform)
    factor = known_rate(rate).astype(Delta.dtype)[..., None, None]
    return factor * with_rank(Delta, factor.ndim)


def init_readouts(
    key: PRNGKeyArray,
    shape: tuple[int, int],
    bidirectional: bool,
    V: Complex[np.ndarray, "n N"] | None = None,
    modes: Literal["complex", "real"] = "complex",
) -> dict[str, Float[Array, "H N ..."]]:
    """C, or C1 and C2, (H, N, 2) each, for `shape` (H, N): complex standard normal, as published for S4 and S4D; or,
    given eigenvectors V (n, N), a real standard normal matrix (H, n) times V. Real modes: standard normal, (H, N)."""
    names = ("C1", "C2") if bidirectional else ("C",)
    params: dict[str, Array] = {}
    for name, k in zip(names, jax.random.split(key, len(names)), strict=True):
        if modes == "real":
            params[name] = jax.random.normal(k, shape, jnp.float32)
        elif V is None:
            params[name] = jax.random.normal(k, (*shape, 2), jnp.float32) * jnp.float32(np.sqrt(0.5))
        else:
            C, basis = jax.random.normal(k, (shape[0], len(V))), jnp.asarray(V, jnp.complex64)
            params[name] = pair(jnp.matmul(C.astype(basis.dtype), basis, precision="highest"))
    return params


def as_complex(stored: Float[Array, "S N ..."]) -> Complex[Array, "S N"]:
    """From pairs (S, N, 2), or from real numbers (S, N)."""
    return unpair(stored) if stored.ndim == 3 else jax.lax.complex(stored, jnp.zeros_like(stored))


def readouts(params: dict[str, Array]) -> list[Complex[Array, "..."]]:
    """[C], or [C1, C2] for two directions, each complex (H, N)."""
    return [as_complex(params[name]) for name in ("C", "C1", "C2") if name in params]


RealTransform = Literal["exp", "relu", "softplus", "sigmoid", "best", "none"]
"""How a decay rate -Re(A) is computed from the stored parameter w (arXiv 2206.11893, section 3.2 and table 2). `best`
is 1 / (w^2 + 0.1) (StableSSM, arXiv 2311.14495, whose `direct` is `none`)."""


DECAY: dict[RealTransform, tuple[Callable[[Array], Array], Callable[[np.ndarray], np.ndarray]]] = {
    "exp": (jnp.exp, np.log),
    "relu": (lambda raw: jax.nn.relu(raw) + 1e-4, lambda rate: rate),
    "softplus": (jax.nn.softplus, lambda rate: rate + np.log(-np.expm1(-rate))),
    "sigmoid": (jax.nn.sigmoid, lambda rate: np.log(rate) - np.log1p(-rate)),
    "best": (lambda raw: 1 / (jnp.square(raw) + 0.1), lambda rate: np.sqrt(1 / rate - 0.1)),
    "none": (lambda raw: raw, lambda rate: rate),
}
"""By transform: the decay rate from the stored parameter, and back. `relu` adds 1e-4 to the rate, and the way back
does not subtract it, as published."""

BOUND = {"sigmoid": 1, "best": 10}
"""The bound below which a transform keeps the decay rate."""


def decay_rate(raw: Float[Array, "*shape"], transform: RealTransform) -> Float[Array, "*shape"]:
    """-Re(A) in 1/time from the stored parameter: positive, except with `none`."""
    return DECAY[transform][0](raw)


def raw_decay_rate(rate: Float[np.ndarray, "*shape"], transform: RealTransform) -> Float[np.ndarray, "*shape"]:
    """The parameter to store for a decay rate of at least 1e-4 (smaller ones become 1e-4), as published. ValueError: 1
    or more with `sigmoid`, 10 or more with `best`."""
    if rate.max() >= BOUND.get(transform, np.inf):
        raise ValueError(
            f"real_transform {transform} keeps -Re(A) below {BOUND[transform]}, but the initial A has {rate.max():g}:"
            " use exp, relu, softplus or none, or a smaller real_scale"
        )
    return DECAY[transform][1](np.maximum(rate, 1e-4))


Init = Literal["lin", "inv", "inv2", "quad", "real", "legs", "random", "ptd-conjugate"]
InitB = Literal["of_init", "constant", "random", "alternating", "unit_cw", "unit_ccw", "legs"]


def stored_states(options: Any) -> int:
    """N of S4D: one mode of each conjugate pair, or all modes if they are real."""
    return options.state_size if options.modes == "real" else options.state_size // 2


def initial_A(key: PRNGKeyArray, copies: int, options: Any) -> Complex[np.ndarray, "{copies} N"]:
    """The diagonal of S4D's initial A of each copy, in 1/time, one mode of each conjugate pair (arXiv 2206.11893,
    section 4), or all modes if they are real. `options` are S4D's, whose docstrings give the formulas; `key` is for
    what is drawn at random."""
    size, N = options.state_size, stored_states(options)
    real_key, imag_key = jax.random.split(key)
    n = np.tile(np.arange(N, dtype=np.float64), (copies, 1))
    if options.imag_random:
        n = N * _drawn(jax.random.uniform, imag_key, n.shape)
    decay = _drawn(jax.random.uniform, real_key, n.shape) if options.real_random else np.full(n.shape, 0.5)
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
            frequency = np.broadcast_to(-measures.normal_plus_low_rank(*hippo.legs(size))[0].imag, n.shape)
        case "ptd-conjugate":
            A = perturbed_legs(options)[0]
            decay, frequency = np.broadcast_to(-A.real, n.shape), np.broadcast_to(-A.imag, n.shape)
        case "random":
            frequency = np.exp(_drawn(jax.random.normal, imag_key, n.shape))
        case "real":
            frequency = np.zeros(n.shape)
            decay = N * decay if options.real_random else 1 + np.tile(np.arange(N), (copies, 1))
    return -options.real_scale * decay - 1j * options.imag_scale * frequency


def initial_B(options: Any) -> Complex[np.ndarray, " N"]:
    """S4D's initial B of each copy, for any `B_init` except "random"."""
    size, B_init = options.state_size, options.B_init
    if B_init == "of_init":
        if options.init == "ptd-conjugate":
            return perturbed_legs(options)[1]
        B_init = "legs" if options.init == "legs" else "constant"
    if B_init == "legs":
        return clip_imaginary(measures.normal_plus_low_rank(*hippo.legs(size))[1], options.B_clip)
    turn = {"constant": 0.0, "alternating": np.pi, "unit_cw": -2 * np.pi / size, "unit_ccw": 2 * np.pi / size}
    return np.exp(1j * turn[B_init] * np.arange(stored_states(options)))


def _drawn(distribution: Callable[..., Array], key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[np.ndarray, "..."]:
    return np.asarray(distribution(key, shape, jnp.float32), np.float64)


def perturbed_legs(
    options: Any,
) -> tuple[Complex[np.ndarray, " N"], Complex[np.ndarray, " N"], Complex[np.ndarray, "size N"]]:
    """Lambda, V^-1 B and V of perturbed HiPPO-LegS, one mode of each conjugate pair."""
    from s5jax.ssm import ptd  # only where it is asked for

    Lambda, V, inverse = ptd.perturbed_legs(options.state_size, options.ptd_kappa).halves()
    return Lambda, inverse @ hippo.legs(options.state_size)[1], V
