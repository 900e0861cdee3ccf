"""S4: a diagonal-plus-low-rank system for each feature (Gu, Goel, Ré 2022, arXiv 2111.00396).

    x_h'(t) = A x_h(t) + B u_h(t),    y_h(t) = C_h x_h(t) + D_h u_h(t),    A = diag(Lambda) - sum_r p_r p_r^*

HiPPO's matrices in the eigenbasis of their normal part, in conjugate pairs of which one half is stored: the whole
vectors are [Lambda, conj Lambda], p = [P, conj P], and so on, and the low-rank part couples the halves. A whole state
is the conjugate pair of its half too, so that p^* x = 2 Re(P^* x) for the halves; A is a real-linear map of these.

Letters: H features, N stored states of each, half of `state_size`; S = `n_ssm` copies of (A, B), feature h using copy
h mod S; R rank. Parameters:

    A_real, A_imag (S, N)   P (R, S, N, 2)   B (S, N, 2)   C (H, N, 2)   D (H,)   log_step (H, 1)

with Lambda = -f(A_real) - i A_imag, f the `real_transform`, and log_step the natural log of the step size. The names
and signs are those of the published code, with two exceptions. Its `inv_dt` is log_step. And its C is
C (I - A_bar^L) for a length L that it keeps beside, so that a kernel of another length needs a correction; here C is C,
of any length and step size, and what a kernel needs is computed with it. Two directions have C1 and C2 for C and share
all else.

The discretisation is bilinear: A_bar = (I - Delta/2 A)^-1 (I + Delta/2 A), B_bar = (I - Delta/2 A)^-1 Delta B.
"""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Integer, PRNGKeyArray

from s5jax.ssm import convolution, diagonalize, hippo, parameters, scan

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

SSM_PARAMS = ("A_real", "A_imag", "P", "B", "log_step")
"""The parameters that define the state's dynamics, and by default train with the SSM learning rate."""

Params = dict[str, Array]

_einsum = functools.partial(jnp.einsum, precision="highest")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What defines the layer besides its width. Hashable, so that it can be static under `jax.jit`."""

    state_size: int = 64
    """States of a feature, before conjugate halves are dropped: even."""
    init: Literal["legs", "legt", "fout", "legs_fout"] = "legs"
    """HiPPO's measure: scaled or translated Legendre, truncated Fourier, or the first and the last of these in turn
    over the copies (arXiv 2206.12037, section 4)."""
    rank: int = 1
    """Of the low-rank part. LegT needs 2; further rows of P start small and random, of standard deviation 0.01."""
    real_transform: parameters.RealTransform = "exp"
    """How -Re(Lambda) is made of A_real. `none` lets training make the system unstable."""
    B_clip: float = 2.0
    """Bound on the imaginary part of the initial B, as published; 0: none."""
    n_ssm: int = 0
    """S, copies of (A, B); must divide d_model; 0: one for each feature."""
    D_init: parameters.FeedthroughInit = "normal"
    """D starts as a standard normal or, to be none at first, as zero."""
    dt_min: float = 0.001
    """Least initial step size; log_step starts log-uniform between the two."""
    dt_max: float = 0.1
    bidirectional: bool = False
    """Read the sequence in both directions. Such a layer has no recurrent mode."""
    backward_skips_current: bool = True
    """Start the backward kernel at the next sample, as published; otherwise at the current one, as S5 does."""

    def __post_init__(self) -> None:
        parameters.check_state_size(self.state_size)
        parameters.check_step_sizes(self.dt_min, self.dt_max)
        for name in ("n_ssm", "B_clip"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        needed = max(len(hippo.MEASURES[measure](2)[2]) for measure in self.measures)
        if self.rank < needed:
            raise ValueError(f"init {self.init} needs a low-rank part of rank {needed} or more, got rank {self.rank}")

    @property
    def measures(self) -> tuple[hippo.Measure, ...]:
        """What the copies of (A, B) start as, in turn."""
        return ("legs", "fout") if self.init == "legs_fout" else (self.init,)


def init(key: PRNGKeyArray, d_model: int, options: Options = Options()) -> Params:
    """Initial parameters, float32, for `d_model` features (arXiv 2111.00396, theorem 1 and appendix C.1).

    Raises:
      ValueError: `n_ssm` does not divide `d_model`, or there is not an equal number of copies for each measure.
    """
    copies, measures = parameters.copies(options.n_ssm, d_model), options.measures
    if copies % len(measures):
        raise ValueError(f"init {options.init} needs an even number of copies n_ssm, got {copies}")
    systems = [diagonalize.normal_plus_low_rank(*hippo.MEASURES[m](options.state_size)) for m in measures]
    repeats = copies // len(measures)
    diagonal = np.tile(np.stack([system[0] for system in systems]), (repeats, 1))
    B = np.tile(np.stack([system[1] for system in systems]), (repeats, 1))
    rows = [np.pad(system[2], ((0, options.rank - len(system[2])), (0, 0))) for system in systems]
    P = np.tile(np.stack(rows, axis=1), (1, repeats, 1))
    C_key, D_key, step_key, P_key = jax.random.split(key, 4)
    extra = 0.01 * jax.random.normal(P_key, (*P.shape, 2), jnp.float32)  # at 0 the gradient of p p^* is 0
    return {
        "A_real": jnp.asarray(parameters.raw_decay_rate(-diagonal.real, options.real_transform), jnp.float32),
        "A_imag": jnp.asarray(-diagonal.imag, jnp.float32),
        "P": jnp.where((P == 0).all(-1)[..., None, None], extra, parameters.pair(jnp.asarray(P, jnp.complex64))),
        "B": parameters.pair(jnp.asarray(parameters.clip_imaginary(B, options.B_clip), jnp.complex64)),
        **parameters.init_readouts(C_key, (d_model, options.state_size // 2), options.bidirectional),
        "D": parameters.init_feedthrough(D_key, d_model, options.D_init),
        "log_step": parameters.log_step(step_key, (d_model, 1), options.dt_min, options.dt_max),
    }


def Lambda(params: Params, options: Options = Options()) -> Complex[Array, "S N"]:
    """The diagonal part of A. Where all its real parts are negative the system is stable, as -p p^* can only damp."""
    return jax.lax.complex(-parameters.decay_rate(params["A_real"], options.real_transform), -params["A_imag"])


def _continuous(
    params: Params, options: Options
) -> tuple[Complex[Array, "H N"], Complex[Array, "R H N"], Complex[Array, "H N"]]:
    """Lambda, P and B of every feature."""
    H = params["D"].shape[0]
    P = jnp.stack([parameters.of_features(row, H) for row in parameters.unpair(params["P"])])
    B = parameters.of_features(parameters.unpair(params["B"]), H)
    return parameters.of_features(Lambda(params, options), H), P, B


def _project(p: Complex[Array, "H N"], x: Complex[Array, "*batch H N"]) -> Complex[Array, "*batch H 1"]:
    """p^* x of whole vectors, from their halves: real numbers, in a complex array."""
    products = parameters.with_rank(p.conj(), x.ndim) * x
    return 2 * jnp.sum(products.real, axis=-1, keepdims=True).astype(x.dtype)


def _solve(
    Lambda: Array, P: Complex[Array, "R H N"], Delta: Float[Array, "H 1"], x: Complex[Array, "*batch H N"]
) -> Complex[Array, "*batch H N"]:
    """(I - Delta/2 A)^-1 x of halves, in time N R.

    By the Sherman-Morrison formula for I - Delta/2 Lambda plus one Delta/2 p_r p_r^* after the other. No denominator is
    less than 1 while Lambda is stable.
    """
    half = (Delta / 2).astype(Lambda.dtype)
    inverse = 1 / (1 - half * Lambda)
    x = parameters.with_rank(inverse, x.ndim) * x
    columns = [inverse * p for p in P]  # what the inverse so far makes of each p_r
    for r, p in enumerate(P):
        factor = columns[r] * half / (1 + half * _project(p, columns[r]))
        x = x - parameters.with_rank(factor, x.ndim) * _project(p, x)
        columns = [column - factor * _project(p, column) for column in columns]
    return x


def _one_minus_multiplier(
    Lambda: Array, P: Complex[Array, "R H N"], Delta: Float[Array, "H 1"]
) -> tuple[Complex[Array, "H N"], Complex[Array, "R H N"], Complex[Array, "R H N"]]:
    """d, u_r and w_r of I - A_bar = 2 I - 2 (I - Delta/2 A)^-1: x to d x + sum_r u_r w_r^* x, of halves.

    The inverse as in `_solve`: diagonal, less one product for every p_r. Nothing cancels, however small Delta is.
    """
    half = (Delta / 2).astype(Lambda.dtype)
    inverse = 1 / (1 - half * Lambda)
    columns, rows, us, ws = [inverse * p for p in P], [inverse.conj() * p for p in P], [], []
    for r, p in enumerate(P):
        u = columns[r] * half / (1 + half * _project(p, columns[r]))
        us.append(2 * u)
        ws.append(rows[r])
        columns = [column - u * _project(p, column) for column in columns]
        rows = [row - _project(q, u) * rows[r] for q, row in zip(P, rows, strict=True)]
    return -2 * half * Lambda * inverse, jnp.stack(us), jnp.stack(ws)


def _dense(d: Complex[Array, "H N"], us: Complex[Array, "R H N"], ws: Complex[Array, "R H N"]) -> Float[Array, "H M M"]:
    """x to d x + sum_r u_r w_r^* x as a matrix, of halves as real vectors (re, im)."""
    M = _complex_diagonal(d)
    for u, w in zip(us, ws, strict=True):  # w^* x of whole vectors is 2 (re w, im w) (re x, im x)
        u_pair, w_pair = (jnp.concatenate([x.real, x.imag], axis=-1) for x in (u, w))
        M = M + 2 * u_pair[:, :, None] * w_pair[:, None, :]
    return M


def _complex_diagonal(c: Complex[Array, "H N"]) -> Float[Array, "H M M"]:
    """x to c x, of (re, im)."""
    re, im = (jnp.eye(c.shape[-1], dtype=x.dtype)[None] * x[:, None] for x in (c.real, c.imag))
    return jnp.concatenate([jnp.concatenate([re, -im], axis=2), jnp.concatenate([im, re], axis=2)], axis=1)


def kernel(
    params: Params, length: int, options: Options = Options(), *, step_rescale: float | Float[Array, ""] = 1.0
) -> Float[Array, "directions H {length}"]:
    """The convolution kernel of each direction, K_l = C A_bar^l B_bar, without D.

    With l = q T + t, K is the product of the rows C (A_bar^T)^q and the columns A_bar^t B_bar, and each of both is
    had from those before it by doubling, with A_bar to a power of 2. That is a product of small dense matrices, H of
    them, for each doubling of the length. The published way, by its generating function and a Cauchy product of size
    H N L (arXiv 2111.00396, section 3), needs them too, for C (I - A_bar^L), unless C is stored for one length; and
    that product is what takes time on a CPU.

    Powers are kept as M_l = I - A_bar^l, M_2l = 2 M_l - M_l^2, so that slow modes, for which A_bar^l is next to I, keep
    their digits.
    """
    diagonal, P, B = _continuous(params, options)
    Delta = _Delta(params, step_rescale)
    M = _dense(*_one_minus_multiplier(diagonal, P, Delta))
    B_bar = _solve(diagonal, P, Delta, Delta.astype(B.dtype) * B)
    columns = jnp.concatenate([B_bar.real, B_bar.imag], axis=-1)[:, :, None]
    rows = jnp.stack([2 * jnp.concatenate([C.real, -C.imag], axis=-1) for C in parameters.readouts(params)], axis=1)
    H, directions, _ = rows.shape
    doublings = (length - 1).bit_length()
    for i in range(doublings):
        if i < doublings // 2:
            columns = jnp.concatenate([columns, columns - _einsum("hij,hjt->hit", M, columns)], axis=2)
        else:
            rows = jnp.concatenate([rows, rows - _einsum("hqi,hij->hqj", rows, M)], axis=1)
        if i < doublings - 1:
            M = 2 * M - _einsum("hij,hjk->hik", M, M)
    K = _einsum("hqi,hit->hqt", rows, columns).reshape(H, -1, directions, columns.shape[-1])
    return jnp.moveaxis(K, 2, 0).reshape(directions, H, -1)[..., :length]


def _Delta(params: Params, step_rescale: parameters.StepRescale) -> Float[Array, "H 1"]:
    if jnp.ndim(step_rescale):
        raise ValueError("S4 takes one step_rescale for all steps; s5 and s4d take one for each")
    return parameters.step_sizes(params["log_step"], step_rescale)


def _eliminate(
    table: Complex[Array, "I J H F"], coupling: Complex[Array, "#H #F"], rank: int
) -> Complex[Array, "I J H F"]:
    """x (E + coupling p p^*)^-1 y from the table of all x E^-1 y: rows x = C, ..., p_r^*, columns y = B, p_r.

    Woodbury's identity, one row of p after the other. There is no pivoting: E has a non-negative real part, so that the
    pivots stay away from zero.
    """
    for r in range(rank):
        row, column = table.shape[0] - rank + r, 1 + r
        factor = coupling / (1 + coupling * table[row, column])
        table = table - factor[None, None] * table[:, column, None] * table[None, row]
    return table


def apply(
    params: Params,
    u: Float[Array, "*batch L H"],
    options: Options = Options(),
    *,
    lengths: Integer[Array, "*batch"] | None = None,
    initial_state: Complex[Array, "..."] | None = None,
    step_rescale: float | Float[Array, ""] = 1.0,
    return_state: bool = False,
) -> Float[Array, "*batch L H"] | tuple[Float[Array, "*batch L H"], Complex[Array, "*batch H N"]]:
    """The layer on whole sequences: by convolution, or where a state is given or asked for, step by step.

    Step by step a gradient keeps every step's state, (..., L, H, N).

    Args:
      params: as from `init`.
      u: inputs (..., L, H).
      options: those `params` were made with.
      lengths: (...), valid steps of each sequence. What stands after them changes no output before them, in
        neither direction, and no state. Default: every step is valid.
      initial_state: (H, N) or (..., H, N), the state before the first step, as from `initial_state`, `step` or
        `return_state`; one direction only. Default: zero.
      step_rescale: factor on the step sizes: 2 for an input sampled at half the rate of training.
      return_state: return the state after the last valid step too; one direction only.

    Returns:
      y (..., L, H), or (y, state) with `return_state`.

    Raises:
      ValueError: a state is asked of a layer with two directions.
    """
    with_state = return_state or initial_state is not None
    if with_state and options.bidirectional:
        raise ValueError("a layer with two directions has no state to start from or to return")
    u = scan.without_padding(u, lengths)
    if with_state:
        y, state = _by_steps(params, u, options, lengths, initial_state, step_rescale)
        return (y, state) if return_state else y
    K = kernel(params, u.shape[-2], options, step_rescale=step_rescale)
    if options.bidirectional:
        y = convolution.two_sided(u, K[0], K[1], skip_current=options.backward_skips_current)
    else:
        y = convolution.causal(u, K[0])
    return y + parameters.feedthrough(params, u)


def _by_steps(
    params: Params,
    u: Float[Array, "*batch L H"],
    options: Options,
    lengths: Integer[Array, "*batch"] | None,
    start: Complex[Array, "..."] | None,
    step_rescale: float | Float[Array, ""],
) -> tuple[Float[Array, "*batch L H"], Complex[Array, "*batch H N"]]:
    valid = jnp.ones(u.shape[:-1], bool) if lengths is None else scan.valid_steps(lengths, u.shape[-2])
    state = initial_state(params, u.shape[:-2])
    if start is not None:
        state = jnp.broadcast_to(parameters.with_rank(start, state.ndim), state.shape).astype(state.dtype)

    arrays = recurrence(params, options, step_rescale=step_rescale)

    def read(state: Array, inputs: tuple[Array, Array]) -> tuple[Array, Array]:
        u_k, valid_k = inputs
        after, y_k = advance(arrays, state, u_k)
        return jnp.where(valid_k[..., None, None], after, state), y_k

    state, y = jax.lax.scan(read, state, (jnp.moveaxis(u, -2, 0), jnp.moveaxis(valid, -1, 0)))
    return jnp.moveaxis(y, 0, -2), state


def initial_state(params: Params, batch_shape: tuple[int, ...] = ()) -> Complex[Array, "*batch H N"]:
    """The zero state, (*batch_shape, H, N), complex64."""
    return jnp.zeros((*batch_shape, *parameters.readouts(params)[0].shape), jnp.complex64)


def recurrence(
    params: Params, options: Options = Options(), *, step_rescale: float | Float[Array, ""] = 1.0
) -> dict[str, Array]:
    """What `advance` needs of the parameters: to be computed once for many samples.

    Raises:
      ValueError: the layer has two directions.
    """
    if options.bidirectional:
        raise ValueError("a layer with two directions has no recurrent mode")
    diagonal, P, B = _continuous(params, options)
    Delta = _Delta(params, step_rescale)
    decay, columns, rows = _one_minus_multiplier(diagonal, P, Delta)
    (C,) = parameters.readouts(params)
    B_bar = _solve(diagonal, P, Delta, Delta.astype(B.dtype) * B)
    return {"decay": decay, "columns": columns, "rows": rows, "B_bar": B_bar, "C": 2 * C, "D": params["D"]}


def advance(
    recurrence: dict[str, Array], state: Complex[Array, "*batch H N"], u_k: Float[Array, "*batch H"]
) -> tuple[Complex[Array, "*batch H N"], Float[Array, "*batch H"]]:
    """One sample of what `apply` computes: (state, u_k) to (next state, y_k), in time N R for every feature."""
    decay, B_bar, C = (parameters.with_rank(recurrence[name], state.ndim) for name in ("decay", "B_bar", "C"))
    lost = decay * state
    for column, row in zip(recurrence["columns"], recurrence["rows"], strict=True):
        lost = lost + parameters.with_rank(column, state.ndim) * _project(row, state)
    state = state - lost + B_bar * u_k[..., None].astype(B_bar.dtype)
    return state, jnp.sum((C * state).real, axis=-1) + parameters.feedthrough(recurrence, u_k)


def step(
    params: Params,
    state: Complex[Array, "*batch H N"],
    u_k: Float[Array, "*batch H"],
    options: Options = Options(),
    *,
    step_rescale: float | Float[Array, ""] = 1.0,
) -> tuple[Complex[Array, "*batch H N"], Float[Array, "*batch H"]]:
    """`advance` with the `recurrence` of the parameters, where there are errors described."""
    return advance(recurrence(params, options, step_rescale=step_rescale), state, u_k)


def transfer_function(
    params: Params, s: Complex[Array, "*frequencies"], options: Options = Options()
) -> Complex[Array, "*frequencies H H"]:
    """G(s) = C (s I - A)^-1 B + D of the continuous-time systems: diagonal, (output, input) on the last two axes.

    The conjugate halves are counted in. A backward direction adds its own, C2 (-s I - A)^-1 B. The step sizes have no
    part in it.

    Args:
      s: complex frequencies, in the unit of A (radians/time); the step sizes measure that time.
    """
    diagonal, P, B = _continuous(params, options)
    flat = s.reshape(1, -1, 1)
    G = jnp.broadcast_to(params["D"].astype(B.dtype)[:, None], (len(B), s.size))
    for sign, C in zip((1, -1), parameters.readouts(params), strict=False):
        v = jnp.stack([C, *P.conj()])[:, None] * jnp.stack([B, *P])[None]
        table = _einsum("ijhn,hfn->ijhf", v, 1 / (sign * flat - diagonal[:, None]))
        table = table + _einsum("ijhn,hfn->ijhf", v.conj(), 1 / (sign * flat - diagonal.conj()[:, None]))
        G = G + _eliminate(table, jnp.ones((1, 1), table.dtype), len(P))[0, 0]
    G = G.T.reshape(*s.shape, len(B), 1)
    return G * parameters.with_rank(jnp.eye(len(B), dtype=G.dtype), G.ndim)
