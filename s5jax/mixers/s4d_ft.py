"""S4D-FT: S4D with a trained bias towards low or high frequencies (Yu, Lyu, Lim, Mahoney, Erichson 2024,
arXiv 2410.02035).

    Y_j = (1 + f_j)^s K_j U_j,    f_j = j / (2 M), j = 0..M,    y = (irfft Y)[:L] + D u

U and K are spectra of 2 M points, of the inputs and of S4D's kernel of M lags, both followed by zeros; f, the frequency
in cycles per sample, runs from 0 to 1/2. The paper's other method, a scale of the initial frequencies, is S4D's
`imag_scale`.
Parameters: those of S4D, and

    s (H,)    initially 0

The factor's own impulse response is symmetric in time: outputs depend on later inputs even if `bidirectional` is false,
and there is no recurrent mode. (If all s are 0, the mixer is S4D with the other parameters.) As published, M is the
length L of the batch, so that outputs change with the number of padded steps; with `freq_bias_length` it is fixed, and
they do not. At a rate g the factor is (1 + f_j / g)^s, with the frequency in cycles per sample of training (published:
f_j). g = 0 divides by zero.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer, PRNGKeyArray

from s5jax.mixers import check, find, s4d
from s5jax.ssm import feature_system, parameters, sequence
from s5jax.ssm.sequence import Rate

CAUSAL, RATE, MASK, RESET = False, "scalar", True, False
GROUPS = {**s4d.GROUPS, "freq_bias": "s"}

Params = dict[str, Array]
eigenvalues, time_step = s4d.eigenvalues, s4d.time_step


def PADDING(options: "Options") -> str:
    return "exact" if options.freq_bias_length else "zeros"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(s4d.Options):
    """Options of S4D-FT: those of S4D, with mode="convolution" and backward_skips_current=True, and M."""

    freq_bias_length: int = 0
    """M, half the number of points of the spectra, at least the length of the longest sequence. 0: the length of each
    batch, as published."""

    def __post_init__(self) -> None:
        super().__post_init__()
        parameters.check_between(self, 0, 2**30, "freq_bias_length")
        if self.mode == "scan" or not self.backward_skips_current:
            raise ValueError("s4d_ft computes spectra: mode must be convolution and backward_skips_current True")


def init(key: PRNGKeyArray, width: int, options: Options, *, depth: int = 1, length: int = 1) -> Params:
    """S4D's initial parameters, and s = 0. `depth` and `length` are not used."""
    return {**s4d.init(key, width, options), "s": jnp.zeros(width, jnp.float32)}


def _system(params: Params, options: Options) -> feature_system.System:
    """S4D's system with another kernel. It has two directions: lags 0, 1, 2, ... and lags -1, -2, ..."""
    system = s4d.system(params, options)

    def kernel(L: int, rate: Rate | None) -> Float[Array, "2 H {L}"]:
        M = options.freq_bias_length or L
        if L > M:
            raise ValueError(f"freq_bias_length must be at least the length of the sequences, {L}; got {M}")
        K = system.kernel(M, rate)
        K = jnp.concatenate([K[0], K[1, :, ::-1] if len(K) == 2 else jnp.zeros_like(K[0])], axis=1)
        frequency = jnp.arange(M + 1, dtype=K.dtype) / (2 * M)
        frequency = frequency if rate is None else frequency / jnp.asarray(rate, K.dtype)
        spectrum, factor = jnp.fft.rfft(K), jnp.exp(params["s"][:, None] * jnp.log1p(frequency)[None])
        K = jnp.fft.irfft(spectrum * factor.astype(spectrum.dtype), 2 * M)
        return jnp.stack([K[:, :L], K[:, : -L - 1 : -1]])

    return system._replace(kernel=kernel, mode="convolution only")


def kernel(params: Params, L: int, options: Options, *, rate: Rate | None = None) -> Float[Array, "2 H {L}"]:
    """The impulse response without D: to the current and L - 1 earlier inputs, and to L later ones. If freq_bias_length
    is 0, that of a batch of length L."""
    return _system(params, options).kernel(L, rate)


def apply(
    params: Params,
    x: Float[Array, "B L H"],
    options: Options,
    *,
    lengths: Integer[Array, " B"] | None = None,
    mask: Bool[Array, "B L"] | None = None,
    reset: Bool[Array, "#B #L"] | None = None,
    rate: Rate | None = None,
    state: Any = None,
    key: PRNGKeyArray | None = None,
    dropout: float = 0.0,
) -> tuple[Float[Array, "B L H"], None]:
    """See `s5jax.mixers`. A missing sample is an input of zero; `key` and `dropout` are not used. ValueError for
    a state, a reset, and a rate per step."""
    check(find(__name__), options, reset=reset, rate=rate, state=state)
    x, (lengths, _, reset, rate) = sequence.border(x, lengths, mask, reset, rate)
    x = x.astype(params["D"].dtype)
    y, _ = feature_system.apply(_system(params, options), x, options, lengths, reset, rate, None)
    return y + parameters.feedthrough(params, x), None
