"""One diagonal system per feature, x_k = a_k x_{k-1} + B_k u_k, y_k = Re(C x_k): outputs by a convolution or by a scan,
and the recurrent mode.

For mixers without products between features, as S4D and DSS. Letters: H features, N stored states per feature.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim
from jaxtyping import Array, Bool, Complex, Float, Integer

from s5jax.ssm import fft_conv, scan, sequence, vandermonde, window
from s5jax.ssm.parameters import feedthrough, with_rank
from s5jax.ssm.sequence import Flags, Rate

Params = dict[str, Array]
State = Complex[Array, "B H N"]
Discrete = Callable[[Any], tuple[Complex[Array, "*steps H N"], Complex[Array, "*steps H N"]]]


class System(NamedTuple):
    """The functions of one set of parameters."""

    discrete: Discrete
    """log(a) and B from a rate (), (B,) or (B, L), whose axes come first."""
    Cs: list[Complex[Array, "H N"]]
    """C of each direction."""
    kernel: Callable[[int, Any], Float[Array, "directions H lags"]]
    """The impulse response of each direction, from a number of lags and a rate ()."""
    mode: Literal["convolution", "scan", "convolution only"] = "convolution"
    """`convolution`: a scan only where it is needed, see `apply`. `scan`: always. `convolution only`: never, because a
    scan of this system would not have the impulse response K."""
    window: int = 0
    """Number of lags after which K is zero, so that the state is the last window - 1 inputs. 0: no limit."""


def kernel(discrete: Discrete, Cs: list[Array], L: int, rate: Rate | None) -> Float[Array, "directions H {L}"]:
    """K_l = Re sum_n C_n B_n a_n^l of each direction."""
    log_a, B_bar = discrete(rate)
    return jnp.stack([vandermonde.vandermonde(C * B_bar, log_a, L) for C in Cs])


def apply(
    system: System,
    x: Float[Array, "B L H"],
    options: Any,
    lengths: Integer[Array, " B"] | None,
    reset: Bool[Array, "B L"] | None,
    rate: Rate | None,
    state: Array | None,
) -> tuple[Float[Array, "B L H"], Array | None]:
    """A mixer's `apply` without the feedthrough D u, on arguments from `sequence.border`, x in the parameters' dtype.

    Computed as a convolution or, with a `reset`, a rate per step, a symbolic length or the mode "scan", by a scan that
    stores all states, (B, L, H, N). ValueError if the mode does not allow it, and for a state that is given to a mixer
    with two directions. Of `options` it reads `bidirectional`, `backward_skips_current` and `scan_method`.
    """
    if state is not None and options.bidirectional:
        raise ValueError("a mixer with two directions cannot start from a state")
    rate = sequence.known_rate(1.0 if rate is None else rate).astype(x.dtype)
    if system.mode == "scan" or reset is not None or rate.ndim == 2 or is_symbolic_dim(x.shape[1]):
        if system.mode == "convolution only":
            raise ValueError("these options allow a convolution only: no reset, no rate per step, no symbolic length")
        scanned = functools.partial(_scanned, system.discrete, options)
        start = None if state is None else sequence.reset_state(state, reset, lengths)
        return by_direction(scanned, system.Cs, x, options, lengths, reset, rate, start)
    if rate.ndim == 1:  # one kernel per sequence

        def one(x: Array, lengths: Any, rate: Array, state: Any) -> tuple[Array, Array | None]:
            return _by_convolution(system, x, options, lengths, rate[0], state)

        return each_alone(one, x, lengths, rate, state)
    return _by_convolution(system, x, options, lengths, rate, state)


def each_alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """function(*arguments) on each sequence of a batch as a batch of one, for systems that differ between sequences."""

    def one(*arguments: Any) -> Any:
        return jax.tree.map(lambda a: a[0], function(*jax.tree.map(lambda a: a[None], arguments)))

    return jax.vmap(one)(*arguments)


def _by_convolution(system, x, options, lengths, rate, start) -> tuple[Array, Array | None]:
    L, plain = x.shape[1], options.scan_method == "plain"
    if start is not None and system.window:
        return window.apply(system.kernel(system.window, rate)[0], x, lengths, start, plain=plain)
    K = system.kernel(L, rate)
    y = fft_conv.convolve(x, K, skip_current=options.backward_skips_current, plain=plain)
    if start is None:
        return y, None
    (C,), (log_a, B_bar) = system.Cs, system.discrete(rate)
    left = vandermonde.vandermonde((C * jnp.exp(log_a))[None] * start, log_a, L)  # response to the initial state
    steps = jnp.full(x.shape[:1], L, jnp.int32) if lengths is None else lengths
    last = B_bar[None] * vandermonde.final_state(log_a, x, lengths)
    last = last + jnp.exp(log_a[None] * steps[:, None, None].astype(log_a.dtype)) * start
    return y + jnp.swapaxes(left, -1, -2), last


def by_direction(scanned, Cs, x, options, lengths, reset, rate, start) -> tuple[Array, Array | None]:
    """Outputs, and the final state if `start` is given, from a function that computes one direction.

    scanned(x, C, gap, first, start, valid, reverse) returns outputs and final state. It sets the state to zero before
    samples with `first` (B, L) true, and keeps it where `valid` (B, L) is false.
    """
    # Valid outputs need only zero inputs in the padding; a state that is returned must also be held there.
    valid = None if lengths is None or start is None else sequence.valid_steps(lengths, x.shape[1])
    y, last = scanned(x, Cs[0], sequence.gaps(rate, lengths), reset, start, valid, False)
    if options.bidirectional:
        first = None if reset is None else sequence.end_before(reset, None, x.shape[1])
        back, _ = scanned(x, Cs[1], sequence.backward_gaps(rate, lengths, reset), first, None, None, True)
        if options.backward_skips_current:
            back = jnp.concatenate([back[:, 1:], jnp.zeros_like(back[:, :1])], axis=1)
            back = back if first is None else jnp.where(first[..., None], 0, back)
        y = y + back
    return y, None if start is None else last


def _scanned(discrete, options, x, C, gap, first, start, valid, reverse) -> tuple[Array, Array]:
    log_a, B_bar = discrete(gap)
    (B, L, H), N = x.shape, log_a.shape[-1]
    if jnp.ndim(gap) == 1:
        log_a, B_bar = log_a[:, None], B_bar[:, None]
    a = jnp.exp(log_a)
    if first is not None:
        a = jnp.where(first[..., None, None], 0, with_rank(a, 4))
    b = with_rank(B_bar, 4) * x[..., None].astype(B_bar.dtype)
    a, b = with_rank(a.reshape(*a.shape[:-2], H * N), 3), b.reshape(B, L, H * N)
    if valid is not None:
        a = jnp.where(valid[..., None], a, jnp.ones((), a.dtype))
        b = jnp.where(valid[..., None], b, jnp.zeros((), b.dtype))
    start = jnp.zeros_like(b[:, 0]) if start is None else start.reshape(B, H * N)
    x = scan.unpack(scan.states(*map(scan.pack, (a, b, start)), reverse=reverse, method=options.scan_method))
    return read_out(C, x.reshape(B, L, H, N)), x[:, -1].reshape(B, H, N)


def read_out(C: Complex[Array, "H N"], state: Complex[Array, "*batch H N"]) -> Float[Array, "*batch H"]:
    """Re(C x) of each feature."""
    return jnp.sum((with_rank(C, state.ndim) * state).real, axis=-1)


def init_state(stored: Array, batch: int) -> State:
    """The zero state (batch, H, N), complex, where C is stored as (H, N, ...)."""
    zero = jnp.zeros((batch, *stored.shape[:2]), stored.dtype)
    return jax.lax.complex(zero, zero)


def cell(system: System, D: Float[Array, " H"], rate: Rate | None) -> Params:
    """The discretised system for `step`: A_bar, B_bar (H, N) or (B, H, N); C (H, N); D (H,). ValueError if there are
    two directions."""
    if len(system.Cs) == 2:
        raise ValueError(sequence.NOT_RECURRENT)
    log_a, B_bar = system.discrete(rate)
    return {"A_bar": jnp.exp(log_a), "B_bar": B_bar, "C": system.Cs[0], "D": D}


def step(
    cell: Params, state: State, x_k: Float[Array, "B H"], *, mask: Flags = None, reset: Flags = None
) -> tuple[Float[Array, "B H"], State]:
    """One sample of a mixer's `apply`: y_k and the next state."""
    x_k = x_k.astype(cell["D"].dtype)
    x_k = x_k if mask is None else jnp.where(mask[:, None], 0, x_k)
    state = state if reset is None else jnp.where(reset[:, None, None], 0, state)
    A_bar, B_bar = (with_rank(cell[name], state.ndim) for name in ("A_bar", "B_bar"))
    state = A_bar * state + B_bar * x_k[..., None].astype(B_bar.dtype)
    return read_out(cell["C"], state) + feedthrough(cell, x_k), state
