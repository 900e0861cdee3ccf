"""RTF: one rational transfer function per feature (Parnichkun et al. 2024, arXiv 2405.06147).

    y_k = d u_k + sum_{n=1..N} c_n v_{k-n},    v_k = u_k - sum_{n=1..N} a_n v_{k-n}

In the delay z its transfer function is d + c(z) / a(z), with a(z) = 1 + sum_n a_n z^n and c(z) = sum_n c_n z^n; its
kernel is K_0 = d and K_l = C A^(l-1) e_1, with A the companion matrix of a. The state is v_{k-N..k-1}, N real numbers
per feature.

Letters: H features, N states per feature, L length, S sets of denominators: feature h uses set h // (H / S). Parameters
have the names and shapes of the published code:

    ab (S + H, N), the denominators a, then the numerators b   h_0 (H,)   scalar (S,), with `l1_montel`

A bidirectional mixer has twice as many of all: those of the forward direction, then those of the backward direction,
whose kernel starts at the next sample.

Numerators are stored in one of two ways. `aliased` gives a kernel of M samples by one FFT, K = irfft(b(z) / a(z) + h_0)
at the M-th roots of unity, M the even number at or after `trunc_len` (section 3.3). There z^M = 1, so that with
b = C (I - A^M) these are the samples 0..M-1 of the system above, with d = h_0 + C A^(M-1) e_1. `apply`, at any length,
and `step` compute that system: c(z) is a(z) (K(z) - d) up to z^N. With `exact`, the published RTF2, b_1..b_N are C
itself: K_l = C A^l e_1, plus h_0 at l = 0.

Longer kernels, those of `exact`, and all that starts from a state, come from the recurrence for v, in blocks of steps.
The quotient of spectra is less accurate where poles are slow: a rounding error of a(z) counts 1 / |a(z)| times.

In three things the published code differs from this function. With two directions and an odd length it takes spectra of
2 L and of 2 L - 1 points for one product. With an odd `trunc_len` its `step` corrects b by A^trunc_len, not A^M. Its
`step` has d = h_0, where its kernel has h_0 + C A^(M-1) e_1.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer, PRNGKeyArray, Shaped

from s5jax.mixers import check, find
from s5jax.ssm import fft_conv, window
from s5jax.ssm.dropout import drop
from s5jax.ssm.parameters import check_between, check_choices, check_share
from s5jax.ssm.sequence import NOT_RECURRENT, Flags, border

MASK = True
GROUPS = {"dynamics": "ab|h_0|scalar"}

Params = dict[str, Array]
State = Float[Array, "B N H"]

BLOCK = 64  # steps of the recurrence for v that are solved for at once


def CAUSAL(options: "Options") -> bool:
    return not options.bidirectional


def DROPOUT(options: "Options") -> bool | Literal["own"]:
    return "own" if options.kernel_dropout else False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of RTF. Hashable, so that they can be static arguments of `jax.jit`."""

    state_size: int = 64
    """N, the number of states per feature, the degree of a."""
    num_a: int = 0
    """S, the number of sets of denominators; must divide the width; 0: one per feature."""
    numerator: Literal["aliased", "exact"] = "aliased"
    """Whether the stored numerators are those of a kernel aliased to `trunc_len` samples, or the true ones (RTF2)."""
    trunc_len: int = 1024
    """Number of samples to which `aliased` numerators belong, more than N; best the length of training. Longer
    sequences are computed with the same function, at a higher cost: that of the recurrence."""
    init: Literal["zeros", "xavier", "montel"] = "zeros"
    """Initial a and b: zero, uniform in +-1/sqrt(N), or uniform in +-1/N, with which the poles are stable."""
    constraint: Literal["none", "l1_montel"] = "none"
    """With `l1_montel`, a is divided by sum_n |a_n| + |scalar| + 1e-6, which keeps the poles stable."""
    kernel_dropout: float = 0.0
    """Probability of dropping a sample of the kernel in training, whatever the model's dropout is."""
    bidirectional: bool = False
    """Read the sequence in both directions; there is no recurrent mode then."""
    conv_method: Literal["fft", "plain"] = "fft"
    """How convolutions are differentiated, see `ssm.fft_conv`; `plain` supports `jax.jvp`."""

    def __post_init__(self) -> None:
        check_choices(self)
        check_between(self, 1, 2**16, "state_size")
        check_between(self, 0, 2**16, "num_a")
        check_between(self, 1, 2**30, "trunc_len")
        check_share(self, "kernel_dropout")
        if self.numerator == "aliased" and self.trunc_len <= self.state_size:
            raise ValueError(f"trunc_len must exceed state_size, got {self.trunc_len} and {self.state_size}")


def init(key: PRNGKeyArray, width: int, options: Options, *, depth: int = 1, length: int = 1) -> Params:
    """Initial parameters, float32: a and b as `init` says, h_0 standard normal, scalar uniform in [0, 1). `depth` and
    `length` are not used. ValueError if `num_a` does not divide the width."""
    sets, directions = options.num_a or width, 1 + options.bidirectional
    if width % sets:
        raise ValueError(f"num_a {sets} does not divide the width {width}")
    N, (ab_key, h_key, scalar_key) = options.state_size, jax.random.split(key, 3)
    bound = {"zeros": 0.0, "xavier": N**-0.5, "montel": 1 / N}[options.init]
    ab = bound * jax.random.uniform(ab_key, (directions * (sets + width), N), jnp.float32, -1, 1)
    params = {"ab": ab, "h_0": jax.random.normal(h_key, (directions * width,), jnp.float32)}
    if options.constraint == "l1_montel":
        params["scalar"] = jax.random.uniform(scalar_key, (directions * sets,), jnp.float32)
    return params


def apply(
    params: Params,
    x: Float[Array, "B L H"],
    options: Options,
    *,
    lengths: Integer[Array, " B"] | None = None,
    mask: Bool[Array, "B L"] | None = None,
    reset: Any = None,
    rate: Any = None,
    state: State | None = None,
    key: PRNGKeyArray | None = None,
    dropout: Float[Array, ""] | float = 0.0,
) -> tuple[Float[Array, "B L H"], State | None]:
    """See `s5jax.mixers`. A missing sample is an input of zero. With a `key`, samples of the kernel are dropped with
    the probability `kernel_dropout`; `dropout` is not used. ValueError: a state is given to a mixer with two
    directions, or together with a kernel whose samples are dropped."""
    check(find(__name__), options, reset=reset, rate=rate, state=state)
    x, (lengths, *_) = border(x, lengths, mask)
    x, plain = x.astype(params["h_0"].dtype), options.conv_method == "plain"
    if state is None:
        K = kernel(params, x.shape[1], options)
        K = drop(K, key, options.kernel_dropout) if options.kernel_dropout else K
        return fft_conv.convolve(x, K, plain=plain), None
    if key is not None and options.kernel_dropout:
        raise ValueError("kernel_dropout drops samples of a kernel, which a start from a state does not have")
    a, c, d = _system(params, options)
    y, state = window.apply(_delayed(c), _recurrence(a, x, state), lengths, state, plain=plain)
    return y + d[None, None] * x, state


def kernel(params: Params, L: int, options: Options, *, rate: Any = None) -> Float[Array, "directions H {L}"]:
    """K_l of each direction for L >= 1 lags, with K_0 = d: unlike D of other mixers, h_0 is one of the kernel's taps.
    ValueError for a rate."""
    check(find(__name__), options, rate=rate)
    if options.numerator == "aliased" and options.trunc_len >= L:
        K = _aliased_kernel(params, options)[:, :L]
    else:
        a, c, d = _system(params, options)
        impulse = jnp.zeros((1, L, len(a)), a.dtype).at[:, 0].set(1)
        g = _recurrence(a, impulse, jnp.zeros_like(a.T)[None])[0].T
        K = _causal(_per_feature(g, d), _delayed(c), options.conv_method == "plain").at[:, 0].set(d)
    return K.reshape(1 + options.bidirectional, -1, L)


def init_state(params: Params, options: Options, batch: int, *, max_length: int | None = None) -> State:
    """Zeros (batch, N, H): v at the last N samples, the oldest first. ValueError if bidirectional. `max_length` is not
    used."""
    c = discretize(params, options)["c"]
    return jnp.zeros((batch, *c.T.shape), c.dtype)


def discretize(params: Params, options: Options, *, rate: Any = None) -> Params:
    """The system for `step`: a and c (H, N), d (H,). ValueError for a rate, or if bidirectional."""
    check(find(__name__), options, rate=rate)
    if options.bidirectional:
        raise ValueError(NOT_RECURRENT)
    a, c, d = _system(params, options)
    return {"a": _per_feature(a, d), "c": c, "d": d}


def step(
    cell: Params, state: State, x_k: Float[Array, "B H"], options: Options, *, mask: Flags = None, reset: Flags = None
) -> tuple[Float[Array, "B H"], State]:
    """One sample of `apply`: y_k and the next state."""
    x_k = x_k.astype(cell["d"].dtype)
    x_k = x_k if mask is None else jnp.where(mask[:, None], 0, x_k)
    state = state if reset is None else jnp.where(reset[:, None, None], 0, state)
    of_a, of_c = (jnp.einsum("bnh,hn->bh", state, cell[name][:, ::-1], precision="highest") for name in "ac")
    return cell["d"][None] * x_k + of_c, jnp.concatenate([state[:, 1:], (x_k - of_a)[:, None]], axis=1)


def _coefficients(params: Params, options: Options) -> tuple[Float[Array, "S N"], Float[Array, "R N"]]:
    """a, under its constraint, and b; R is H for each direction."""
    a, b = jnp.split(params["ab"], [params["ab"].shape[0] - params["h_0"].shape[0]])
    if options.constraint == "l1_montel":
        a = a / (jnp.sum(jnp.abs(a), axis=1) + jnp.abs(params["scalar"]) + 1e-6)[:, None]
    return a, b


def _per_feature(rows: Shaped[Array, "S _"], d: Float[Array, " R"]) -> Shaped[Array, "R _"]:
    """Each set's row, for the features that use it."""
    return jnp.repeat(rows, d.shape[0] // rows.shape[0], axis=0)


def _aliased_kernel(params: Params, options: Options) -> Float[Array, "R M"]:
    M, (a, b), h_0 = options.trunc_len + options.trunc_len % 2, _coefficients(params, options), params["h_0"]
    spectrum = jnp.fft.rfft(_delayed(b), M) / _per_feature(jnp.fft.rfft(_monic(a), M), h_0)
    return jnp.fft.irfft(spectrum + h_0[:, None].astype(spectrum.dtype), M)


def _system(params: Params, options: Options) -> tuple[Float[Array, "S N"], Float[Array, "R N"], Float[Array, " R"]]:
    """a, c and d."""
    (a, b), h_0 = _coefficients(params, options), params["h_0"]
    each = _per_feature(a, h_0)
    if options.numerator == "exact":  # C A
        return a, jnp.pad(b[:, 1:], ((0, 0), (0, 1))) - b[:, :1] * each, h_0 + b[:, 0]
    K = _aliased_kernel(params, options)[:, : a.shape[1] + 1]
    return a, _causal(K[:, 1:], _monic(each)[:, :-1], options.conv_method == "plain"), K[:, 0]


def _recurrence(a: Float[Array, "S N"], u: Float[Array, "B L H"], before: State) -> Float[Array, "B L H"]:
    """v, from its N samples before the first step. Each block is solved by substitution, in the coefficients of a
    themselves: powers of the companion matrix would be rounded, which moves the poles."""
    (B, L, H), (S, N), T = u.shape, a.shape, min(u.shape[1], BLOCK)
    row = jnp.pad(_monic(a)[:, ::-1], ((0, 0), (0, T)))  # one longer than a row of the band: each starts a step later
    band = jnp.tile(row, (1, T))[:, : T * (N + T)].reshape(S, T, N + T)

    def advance(before: Float[Array, "S N M"], u: Float[Array, "S T M"]) -> tuple[Array, Array]:
        u = u - jnp.einsum("stn,snm->stm", band[..., :N], before, precision="highest")
        v = jax.lax.linalg.triangular_solve(band[..., N:], u, left_side=True, lower=True, unit_diagonal=True)
        return jnp.concatenate([before, v], axis=1)[:, T:], v

    def by_set(u: Float[Array, "B L H"]) -> Float[Array, "S L M"]:
        return jnp.transpose(u.reshape(*u.shape[:2], S, H // S), (2, 1, 0, 3)).reshape(S, u.shape[1], -1)

    blocks = by_set(jnp.pad(u, ((0, 0), (0, -L % T), (0, 0)))).reshape(S, -(-L // T), T, B * (H // S))
    v = jnp.swapaxes(jax.lax.scan(advance, by_set(before), jnp.swapaxes(blocks, 0, 1))[1], 0, 1)
    return jnp.transpose(v.reshape(S, -1, B, H // S)[:, :L], (2, 1, 0, 3)).reshape(B, L, H)


def _causal(p: Float[Array, "R L"], q: Float[Array, "R _"], plain: bool) -> Float[Array, "R L"]:
    """The first L coefficients of the product of two power series."""
    return fft_conv.convolve(p.T, q[None, :, : p.shape[1]], plain=plain).T


def _monic(a: Float[Array, "R N"]) -> Float[Array, "R N+1"]:
    return jnp.pad(a, ((0, 0), (1, 0)), constant_values=1)


def _delayed(c: Float[Array, "R N"]) -> Float[Array, "R N+1"]:
    return jnp.pad(c, ((0, 0), (1, 0)))
