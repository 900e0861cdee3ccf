"""LongVQ: a moving average, and gated attention whose keys are quantised by a codebook of fixed size (Liu et al. 2024,
arXiv 2404.11163).

There is no published code. What was at hand of the paper, its abstract and two summaries, defines this: a state space
layer gives the input of a gated attention; keys are replaced by the nearest codeword, with gradients straight through;
attention then takes linear time; and a local window has a bias of positions. OUR choices are MEGA's moving average and
gates (`mega` and `ssm.gated_attention` have the equations and the parameters) and the attention of `ssm.vq_attention`,
which is that of Transformer-VQ (arXiv 2309.16354): softmax, with a bias where samples are less than `chunk` apart, and
gradients straight through there. As there, keys are normalised first, k / sqrt(mean(k^2) + 1e-6), or all would be
nearest to one code. There is no commitment loss.

The codebook is a buffer, which training moves to the averages of the keys nearest to each code:

    weight' = decay weight + (1 - decay) n,    codes' = codes + (1 - decay) / weight' sum_j (k_j - codes)

over the n keys of a batch that are nearest to a code; a code without keys stays. Buffers: codes (S, Z), weight (S,).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer, PRNGKeyArray

from s5jax.mixers import check, find, mega
from s5jax.ssm import gated_attention, parameters, vq_attention
from s5jax.ssm.sequence import Flags

MASK = OWN_RESIDUAL = DROPOUT = True
GROUPS, CAUSAL, RESET = mega.GROUPS, mega.CAUSAL, mega.RESET

Params = dict[str, Array]
Buffers = dict[str, Array]
State = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(mega.Options):
    """Options of LongVQ: those of MEGA, with the attention softmax, and of the codebook."""

    chunk: int = 64
    """Distance below which the bias depends on the positions, and gradients reach the keys; at least 1."""
    codebook_size: int = 64
    """S, the number of codes."""
    decay: float = 0.99
    """Decay of the moving averages that are the codebook, per training step (or micro-batch)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        parameters.check_between(self, 1, 2**20, "chunk")
        parameters.check_between(self, 1, 2**16, "codebook_size")
        parameters.check_share(self, "decay")
        if self.attention != "softmax":
            raise ValueError(f"attention on quantised keys must be softmax, got {self.attention}")


def init(key: PRNGKeyArray, width: int, options: Options, *, depth: int = 1, length: int = 1) -> Params:
    """The initial parameters of MEGA."""
    return mega.init(key, width, options, depth=depth, length=length)


def init_buffers(key: PRNGKeyArray, width: int, options: Options) -> Buffers:
    """Codes standard normal, and weights 1. Float32. `width` is not used."""
    codes = jax.random.normal(key, (options.codebook_size, options.key_size), jnp.float32)
    return {"codes": codes, "weight": jnp.ones(options.codebook_size, jnp.float32)}


def apply(
    params: Params,
    x: Float[Array, "B L H"],
    options: Options,
    *,
    buffers: Buffers,
    lengths: Integer[Array, " B"] | None = None,
    mask: Bool[Array, "B L"] | None = None,
    reset: Bool[Array, "#B #L"] | None = None,
    rate: Any = None,
    state: State | None = None,
    key: PRNGKeyArray | None = None,
    dropout: Float[Array, ""] | float = 0.0,
    skip: Float[Array, "B L H"] | None = None,
) -> tuple[Float[Array, "B L H"], State | None, Buffers]:
    """See `s5jax.mixers` and, for the moving average, `mega.apply`. Attention uses the codes of `buffers`;
    then keys at valid samples that are not missing move the codebook that is returned."""
    check(find(__name__), options, reset=reset, rate=rate, state=state)
    x, skip, given = gated_attention.border(params, x, skip, lengths, mask, reset)
    a, ema = mega.average(params, x, options, given, None if state is None else state["ema"])
    memory, codes = None if state is None else state["memory"], buffers["codes"].astype(x.dtype)

    def attend(q: Array, k: Array, v: Array) -> tuple[Array, tuple[Any, Buffers]]:
        bias = gated_attention.distance_bias(params, options, options.chunk)
        k = _normalized(k)
        o, after = vq_attention.attend(q, k, v, bias, codes, given, memory, causal=not options.bidirectional)
        weight, counted = buffers["weight"].astype(x.dtype), given.counted(x.shape[1])
        new = vq_attention.moved(codes, weight, k, counted, options.decay)
        return o, (after, dict(zip(("codes", "weight"), new, strict=True)))

    y, (memory, moved) = gated_attention.apply(params, options, x, a, skip, attend, key, dropout)
    moved = {name: value.astype(buffers[name].dtype) for name, value in moved.items()}
    return y, None if state is None else {"ema": ema, "memory": memory}, moved


def _normalized(k: Float[Array, "B L Z"]) -> Float[Array, "B L Z"]:
    return k * jax.lax.rsqrt(jnp.mean(k * k, -1, keepdims=True) + 1e-6)


def init_state(params: Params, options: Options, batch: Any, *, max_length: int | None = None) -> State:
    """The zero state of the moving average, as in `mega.init_state`, and a memory without samples: the last C of them,
    and a sum of values for each code. ValueError if bidirectional. `max_length` is not used."""
    ema = mega.init_state(params, options, batch)["ema"]
    E, dtype = params["v_kernel"].shape[1], params["v_kernel"].dtype
    sizes = (options.chunk, options.codebook_size, options.key_size, E)
    return {"ema": ema, "memory": vq_attention.init_memory(batch, *sizes, dtype)}


def discretize(params: Params, options: Options, *, buffers: Buffers, rate: Any = None) -> dict[str, Any]:
    """The parameters, "codes" and, as "ema", the moving average for `step`. ValueError for a rate, or if
    bidirectional."""
    return {**mega.discretize(params, options, rate=rate), "codes": buffers["codes"].astype(params["v_kernel"].dtype)}


def step(
    cell: dict[str, Any],
    state: State,
    x_k: Float[Array, "B H"],
    options: Options,
    *,
    mask: Flags = None,
    reset: Flags = None,
    skip: Float[Array, "B H"] | None = None,
) -> tuple[Float[Array, "B H"], State]:
    """One sample of `apply`: y_k and the next state. Takes time in proportion to C + S."""
    at_once = [None if value is None else value[:, None] for value in (x_k, skip, mask, reset)]
    x, skip, given = gated_attention.border(cell, at_once[0], at_once[1], None, *at_once[2:])
    a, ema = mega.average_step(cell, x[:, 0], options, state["ema"], reset)
    bias = gated_attention.distance_bias(cell, options, options.chunk)

    def attend(q: Array, k: Array, v: Array) -> tuple[Array, Any]:
        return vq_attention.attend(q, _normalized(k), v, bias, cell["codes"], given, state["memory"], causal=True)

    y, memory = gated_attention.apply(cell, options, x, a[:, None], skip, attend)
    return y[:, 0], {"ema": ema, "memory": memory}
