"""A diagonal system, as in `diagonal_system`, one sample at a time; and its kernel."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from s5jax.ssm.diagonal_scan import diagonal_scan
from s5jax.ssm.diagonal_system import System, real_readout
from s5jax.ssm.parameters import with_rank
from s5jax.ssm.sequence import NOT_RECURRENT, Flags, Rate, gaps

Cell = dict[str, Array]


def init_state(like: Float[Array, " P"], batch: int, *, two_directions: bool) -> Complex[Array, "B P"]:
    """The zero state (batch, P), complex, with the precision of `like` (P,). ValueError for two directions."""
    if two_directions:
        raise ValueError(NOT_RECURRENT)
    zero = jnp.zeros((batch, *like.shape), like.dtype)
    return jax.lax.complex(zero, zero)


def cell(system: System, D: Float[Array, " H"], rate: Rate | None) -> Cell:
    """The discretised system that `step` takes, for a rate () or (B,); `None`: 1. ValueError for two directions.

    Returns: a (P,) or (B, P), complex; real matrices B (H, 2 P), with gamma included, and C (2 P, H); D (H,). If gamma
    differs between sequences, it is separate: gamma (B, P).
    """
    discretize, B, Cs = system
    if len(Cs) == 2:
        raise ValueError(NOT_RECURRENT)
    a, gamma = discretize(gaps(rate, None))
    arrays = {"a": a, "C": real_readout(Cs[0]).T, "D": D}
    if gamma.ndim == 1:
        B = gamma[:, None] * B
    else:
        arrays["gamma"] = gamma
    return arrays | {"B": jnp.concatenate([B.real, B.imag]).T}


def step(
    cell: Cell, state: Complex[Array, "B P"], x_k: Float[Array, "B H"], *, mask: Flags = None, reset: Flags = None
) -> tuple[Float[Array, "B H"], Complex[Array, "B P"]]:
    """A mixer's `step`, with a cell from the function `cell`."""
    u = x_k.astype(cell["D"].dtype)
    u = u if mask is None else jnp.where(mask[:, None], 0, u)
    state = state if reset is None else jnp.where(reset[:, None], 0, state)
    Bu = jax.lax.complex(*jnp.split(u @ cell["B"], 2, axis=-1))
    state = with_rank(cell["a"], 2) * state + (cell["gamma"] * Bu if "gamma" in cell else Bu)
    y = jnp.concatenate([state.real, state.imag], axis=-1) @ cell["C"]
    return y + with_rank(cell["D"], 2) * u, state


def kernel(system: System, L: int, rate: Rate | None, method: str) -> Float[Array, "directions H H {L}"]:
    """K[d, :, :, l] = Re(C_d a^l gamma B), (direction, output, input, lag l < L); the second direction looks ahead."""
    discretize, B, Cs = system
    a, gamma = discretize(gaps(rate, None))
    one = jnp.ones((1, *a.shape), a.dtype)
    powers, _ = diagonal_scan(a, jnp.pad(one, ((0, L - 1), (0, 0))), method=method)
    B = gamma[:, None] * B
    return jnp.stack([jnp.einsum("op,lp,pi->oil", C, powers, B, precision="highest").real for C in Cs])
