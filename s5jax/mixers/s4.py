"""S4: one diagonal-plus-low-rank system per feature (Gu, Goel, Ré 2022, arXiv 2111.00396).

    x_h'(t) = A x_h(t) + B u_h(t),    y_h(t) = C_h x_h(t) + D_h u_h(t),    A = diag(Lambda) - sum_r p_r p_r^*

HiPPO's matrix is written in the eigenbasis of its normal part. Modes come in conjugate pairs, of which one is stored:
the full vectors are [Lambda, conj(Lambda)], p = [P, conj(P)] and so on, and the low-rank part couples the two halves.
The full state is [x, conj(x)], so that its product with p^* is 2 Re(P^* x), and A acts on the stored half x as a
real-linear, not a complex-linear, map.

Letters: H features, N stored states per feature, half of `state_size`; S = `n_ssm` copies of (A, B), feature h uses
copy h mod S; R rank. Parameters:

    A_real, A_imag (S, N)   P (R, S, N, 2)   B (S, N, 2)   C (H, N, 2)   D (H,)   log_step (H, 1)

with Lambda = -f(A_real) - i A_imag, f the `real_transform`, and log_step the natural log of the step size. The names
and signs are those of the published code, with two exceptions: its `inv_dt` is log_step here, and it stores
C (I - A_bar^L) for one length L, whereas this module stores C, for any length and step size. A bidirectional mixer has
C1 and C2 instead of C; the directions share all other parameters.

The discretisation is bilinear: A_bar = (I - Delta/2 A)^-1 (I + Delta/2 A), B_bar = (I - Delta/2 A)^-1 Delta B.
"""

import dataclasses
import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.export import is_symbolic_dim
from jaxtyping import Array, Bool, Complex, Float, Integer, PRNGKeyArray

from s5jax.mixers import s4d
from s5jax.ssm import fft_conv, parameters, per_feature, sequence
from s5jax.ssm.measures import MEASURES, Measure, normal_plus_low_rank
from s5jax.ssm.sequence import Flags, Rate

RATE, MASK, RESET = "step", True, True
GROUPS = {"dynamics": "A_real|A_imag|P|B|log_step"}
CAUSAL, eigenvalues, init_state, time_step = s4d.CAUSAL, s4d.eigenvalues, s4d.init_state, s4d.time_step

Params = dict[str, Array]
State = Complex[Array, "B H N"]

_einsum = functools.partial(jnp.einsum, precision="highest")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of S4. Hashable, so that they can be static arguments of `jax.jit`."""

    state_size: int = 64
    """Number of states per feature, conjugate modes included; must be even."""
    init: Literal["legs", "legt", "fout", "legs_fout"] = "legs"
    """HiPPO's measure: scaled Legendre, translated Legendre, truncated Fourier, or the first and the last of these for
    alternate copies (arXiv 2206.12037, section 4)."""
    rank: int = 1
    """Rank of the low-rank part; `legt` needs 2. Further rows of P are random, with real and imaginary parts of
    standard deviation 0.01."""
    real_transform: per_feature.RealTransform = "exp"
    """How -Re(Lambda) is computed from A_real. With `none` the system can become unstable in training."""
    B_clip: float = 2.0
    """Bound on the imaginary part of the initial B, as published; 0: no bound."""
    n_ssm: int = 0
    """S, the number of copies of (A, B); must divide the width; 0: one copy per feature."""
    D_init: parameters.FeedthroughInit = "normal"
    """Initialisation of D: standard normal, or zero."""
    dt_min: float = 0.001
    """Smallest initial step size, in the time unit of A. Step sizes are drawn log-uniformly from dt_min to dt_max."""
    dt_max: float = 0.1
    """Largest initial step size."""
    bidirectional: bool = False
    """Read the sequence in both directions; there is no recurrent mode then."""
    backward_skips_current: bool = True
    """Start the backward kernel at the next sample, as published; otherwise at the current sample, as in S5."""
    scan_method: Literal["auto", "plain"] = "auto"
    """`plain`: the convolution supports `jax.jvp` and `jax.linearize`; by default it has a rule for reverse mode."""

    def __post_init__(self) -> None:
        parameters.check_choices(self)
        per_feature.check_state_size(self.state_size)
        parameters.check_step_sizes(self.dt_min, self.dt_max)
        parameters.check_least(self, 0, "B_clip")
        parameters.check_between(self, 0, 2**16, "n_ssm")
        parameters.check_between(self, 0, 2**10, "rank")
        needed = max(len(MEASURES[measure](2)[2]) for measure in self.measures)
        if self.rank < needed:
            raise ValueError(f"init {self.init} needs a low-rank part of rank {needed} or more, got rank {self.rank}")

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The measures with which the copies of (A, B) are initialised, in turn."""
        return ("legs", "fout") if self.init == "legs_fout" else (self.init,)


def init(key: PRNGKeyArray, width: int, options: Options, *, depth: int = 1, length: int = 1) -> Params:
    """Initial parameters, float32 (arXiv 2111.00396, theorem 1 and appendix C.1). `depth` and `length` are not used.
    ValueError: `n_ssm` does not divide `width`, or the number of measures does not divide that of the copies."""
    copies, measures = per_feature.copies(options.n_ssm, width), options.measures
    if copies % len(measures):
        raise ValueError(f"init {options.init} needs an even number of copies n_ssm, got {copies}")
    systems = [normal_plus_low_rank(*MEASURES[m](options.state_size)) for m in measures]
    repeats = copies // len(measures)
    Lambda, B = (np.tile(np.stack([system[i] for system in systems]), (repeats, 1)) for i in (0, 1))
    rows = [np.pad(system[2], ((0, options.rank - len(system[2])), (0, 0))) for system in systems]
    P = np.tile(np.stack(rows, axis=1), (1, repeats, 1))
    C_key, D_key, step_key, P_key = jax.random.split(key, 4)
    extra = 0.01 * jax.random.normal(P_key, (*P.shape, 2), jnp.float32)  # at p = 0 the gradient of p p^* is 0
    return {
        "A_real": jnp.asarray(per_feature.raw_decay_rate(-Lambda.real, options.real_transform), jnp.float32),
        "A_imag": jnp.asarray(-Lambda.imag, jnp.float32),
        "P": jnp.where((P == 0).all(-1)[..., None, None], extra, parameters.pair(jnp.asarray(P, jnp.complex64))),
        "B": parameters.pair(jnp.asarray(per_feature.clip_imaginary(B, options.B_clip), jnp.complex64)),
        **per_feature.init_readouts(C_key, (width, options.state_size // 2), options.bidirectional),
        "D": parameters.init_feedthrough(D_key, width, options.D_init),
        "log_step": parameters.log_step(step_key, (width, 1), options.dt_min, options.dt_max),
    }


def _continuous(params: Params, options: Options) -> tuple[Array, ...]:
    """Lambda, P, B and Delta of each feature."""
    H = params["D"].shape[0]
    P = jnp.stack([per_feature.tile_copies(row, H) for row in parameters.unpair(params["P"])])
    B = per_feature.tile_copies(parameters.unpair(params["B"]), H)
    return per_feature.tile_copies(eigenvalues(params, options), H), P, B, time_step(params, options)


def _project(p: Complex[Array, "*#batch H N"], x: Complex[Array, "*#batch H N"]) -> Complex[Array, "*batch H 1"]:
    """p^* x of the full vectors, computed from the stored halves: real values in a complex array."""
    return 2 * jnp.sum((p.conj() * x).real, axis=-1, keepdims=True).astype(x.dtype)


def _discrete(system: tuple[Array, ...], rate: Rate | None) -> Params:
    """I - A_bar, as the map x -> decay x + sum_r columns_r rows_r^* x of stored halves, and B_bar.

    The axes of `rate` come first: decay and B_bar are (*rate, H, N), columns and rows (R, *rate, H, N).
    I - A_bar = 2 I - 2 (I - Delta/2 A)^-1. By the Sherman-Morrison formula the inverse is that of the diagonal
    I - Delta/2 Lambda, minus one product for each p_r. If Lambda is stable, no denominator is less than 1 and nothing
    cancels, however small Delta is. Time N R^2 per feature.
    """
    Lambda, P, B, Delta = system
    if rate is not None:
        rate = sequence.known_rate(rate).astype(Delta.dtype)[..., None, None]
        Delta = rate * parameters.with_rank(Delta, rate.ndim)
    Lambda, B, *Ps = (parameters.with_rank(x, Delta.ndim) for x in (Lambda, B, *P))
    Delta = Delta.astype(B.dtype)
    half = Delta / 2
    inverse = 1 / (1 - half * Lambda)
    columns, rows, us, ws = [inverse * p for p in Ps], [inverse.conj() * p for p in Ps], [], []
    for r, p in enumerate(Ps):
        u = columns[r] * half / (1 + half * _project(p, columns[r]))
        us.append(u)
        ws.append(rows[r])
        columns = [column - u * _project(p, column) for column in columns]
        rows = [row - _project(u, q) * rows[r] for q, row in zip(Ps, rows, strict=True)]
    B_bar = Delta * inverse * B - sum((u * _project(w, Delta * B) for u, w in zip(us, ws, strict=True)), 0)
    return {
        "decay": -2 * half * Lambda * inverse,
        "columns": jnp.stack([2 * u for u in us]),
        "rows": jnp.stack(ws),
        "B_bar": B_bar,
    }


def _dense(d: Complex[Array, "H N"], us: Complex[Array, "R H N"], ws: Complex[Array, "R H N"]) -> Float[Array, "H M M"]:
    """The map x -> d x + sum_r u_r w_r^* x as a real matrix, acting on stored halves as vectors (re, im)."""
    re, im = (jnp.eye(d.shape[-1], dtype=x.dtype)[None] * x[:, None] for x in (d.real, d.imag))
    M = jnp.concatenate([jnp.concatenate([re, -im], axis=2), jnp.concatenate([im, re], axis=2)], axis=1)
    for u, w in zip(us, ws, strict=True):  # w^* x of full vectors is 2 (re w, im w) . (re x, im x)
        u_pair, w_pair = (jnp.concatenate([x.real, x.imag], axis=-1) for x in (u, w))
        M = M + 2 * u_pair[:, :, None] * w_pair[:, None, :]
    return M


def kernel(params: Params, L: int, options: Options, *, rate: Rate | None = None) -> Float[Array, "directions H {L}"]:
    """K_l = C A_bar^l B_bar of each direction, without D, for L >= 1 lags and a rate (), default 1.

    With l = q m + t and m about sqrt(L), K is the product of the rows C A_bar^(q m) and the columns A_bar^t B_bar.
    Both are computed by repeated squaring of A_bar, H dense 2N x 2N matrices: about log2 L squarings, and O(H N L) for
    the product. The published generating function (arXiv 2111.00396, section 3) needs the same powers, unless C is
    stored for one length, and its Cauchy product is slow on a CPU.

    Powers are kept as M_l = I - A_bar^l, with M_2l = 2 M_l - M_l^2, so that slow modes, for which A_bar^l is close to
    I, keep their digits.
    """
    cell = _discrete(_continuous(params, options), rate)
    M, B_bar = _dense(cell["decay"], cell["columns"], cell["rows"]), cell["B_bar"]
    columns = jnp.concatenate([B_bar.real, B_bar.imag], axis=-1)[:, :, None]
    rows = jnp.stack([2 * jnp.concatenate([C.real, -C.imag], axis=-1) for C in per_feature.readouts(params)], axis=1)
    H, directions, _ = rows.shape
    doublings = (L - 1).bit_length()
    for i in range(doublings):
        if i < doublings // 2:
            columns = jnp.concatenate([columns, columns - _einsum("hij,hjt->hit", M, columns)], axis=2)
        else:
            rows = jnp.concatenate([rows, rows - _einsum("hqi,hij->hqj", rows, M)], axis=1)
        if i < doublings - 1:
            M = 2 * M - _einsum("hij,hjk->hik", M, M)
    K = _einsum("hqi,hit->hqt", rows, columns).reshape(H, -1, directions, columns.shape[-1])
    return jnp.moveaxis(K, 2, 0).reshape(directions, H, -1)[..., :L]


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

    Computed as a convolution. With a state, a `reset`, a rate per sequence or step, or a symbolic length it is computed
    step by step, and all states, (B, L, H, N) complex, are stored for the backward pass.
    """
    if state is not None and options.bidirectional:
        raise ValueError("a mixer with two directions cannot start from a state")
    x, (lengths, _, reset, rate) = sequence.border(x, lengths, mask, reset, rate)
    x = x.astype(params["D"].dtype)
    rate = jnp.asarray(1 if rate is None else rate, x.dtype)
    if state is None and reset is None and rate.ndim == 0 and not is_symbolic_dim(x.shape[1]):
        K, plain = kernel(params, x.shape[1], options, rate=rate), options.scan_method == "plain"
        y = fft_conv.convolve(x, K, skip_current=options.backward_skips_current, plain=plain)
    else:
        scanned, Cs = functools.partial(_scanned, params, options), per_feature.readouts(params)
        y, state = s4d.by_direction(scanned, Cs, x, options, lengths, reset, rate, state)
    return y + parameters.feedthrough(params, x), state


def _scanned(params, options, x, C, gap, first, start, valid, reverse) -> tuple[Array, Array]:
    system, each = _continuous(params, options), jnp.ndim(gap) == 2
    constant = {} if each else _discrete(system, gap)

    def read(state: Array, at: Any) -> tuple[Array, Array]:
        x_k, first_k, valid_k, gap_k = at
        cell = _discrete(system, gap_k) if each else constant
        before = state if first_k is None else jnp.where(first_k[:, None, None], 0, state)
        after = _advance(cell, before, x_k)
        y_k = s4d.read_out(2 * C, after)
        return after if valid_k is None else jnp.where(valid_k[:, None, None], after, state), y_k

    start = jnp.zeros((x.shape[0], *C.shape), C.dtype) if start is None else start
    # The backward pass recomputes the discretisation, which is several times larger than the states.
    read = jax.checkpoint(read, prevent_cse=False) if each else read
    along = jax.tree.map(lambda a: jnp.moveaxis(a, 1, 0), (x, first, valid, gap if each else None))
    last, y = jax.lax.scan(read, start, along, reverse=reverse)
    return jnp.moveaxis(y, 0, 1), last


def _advance(cell: Params, state: Complex[Array, "B H N"], x_k: Float[Array, "B H"]) -> Complex[Array, "B H N"]:
    decay, B_bar = (parameters.with_rank(cell[name], state.ndim) for name in ("decay", "B_bar"))
    lost = decay * state
    for column, row in zip(cell["columns"], cell["rows"], strict=True):
        column, row = (parameters.with_rank(v, state.ndim) for v in (column, row))
        lost = lost + column * _project(row, state)
    return state - lost + B_bar * x_k[..., None].astype(B_bar.dtype)


def discretize(params: Params, options: Options, *, rate: Rate | None = None) -> dict[str, Array]:
    """The discretised system for `step`. ValueError if bidirectional.

    Returns: decay, B_bar (H, N) or (B, H, N); columns, rows (R, H, N) or (R, B, H, N); C (H, N), doubled; D (H,).
    I - A_bar is the map x -> decay x + sum_r columns_r rows_r^* x.
    """
    if options.bidirectional:
        raise ValueError(sequence.NOT_RECURRENT)
    return {**_discrete(_continuous(params, options), rate), "C": 2 * parameters.unpair(params["C"]), "D": params["D"]}


def step(
    cell: Params, state: State, x_k: Float[Array, "B H"], options: Options, *, mask: Flags = None, reset: Flags = None
) -> tuple[Float[Array, "B H"], State]:
    """One sample of `apply`: y_k and the next state. Time N R per feature."""
    x_k = x_k.astype(cell["D"].dtype)
    x_k = x_k if mask is None else jnp.where(mask[:, None], 0, x_k)
    state = state if reset is None else jnp.where(reset[:, None, None], 0, state)
    state = _advance(cell, state, x_k)
    return s4d.read_out(cell["C"], state) + parameters.feedthrough(cell, x_k), state


def transfer_function(
    params: Params, s: Complex[Array, "*frequencies"], options: Options
) -> Complex[Array, "*frequencies H H"]:
    """G(s), diagonal; the step sizes have no effect."""
    Lambda, P, B, _ = _continuous(params, options)
    flat = s.reshape(1, -1, 1)
    G = jnp.broadcast_to(params["D"].astype(B.dtype)[:, None], (len(B), s.size))
    for sign, C in zip((1, -1), per_feature.readouts(params), strict=False):
        v = jnp.stack([C, *P.conj()])[:, None] * jnp.stack([B, *P])[None]
        table = _einsum("ijhn,hfn->ijhf", v, 1 / (sign * flat - Lambda[:, None]))
        table = table + _einsum("ijhn,hfn->ijhf", v.conj(), 1 / (sign * flat - Lambda.conj()[:, None]))
        for r in range(1, 1 + len(P)):  # Woodbury identity; with Re(s) >= 0 no pivot is near zero
            table = table - table[:, r, None] * table[None, r] / (1 + table[r, r])[None, None]
        G = G + table[0, 0]
    G = G.T.reshape(*s.shape, len(B), 1)
    return G * parameters.with_rank(jnp.eye(len(B), dtype=G.dtype), G.ndim)
