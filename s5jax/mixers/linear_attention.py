"""Linear attention: the kernel elu(x) + 1 in place of the softmax (Katharopoulos, Vyas, Pappas, Fleuret 2020, arXiv
2006.16236).

    q_k = phi(W_q x_k + b_q),    k_i = phi(W_k x_i + b_k),    v_i = W_v x_i + b_v,    phi(x) = elu(x) + 1
    y_k = W_o (sum_i (q_k . k_i) v_i / (1e-6 + sum_i q_k . k_i)) + b_o

for each of `heads` heads of D = E / heads features, where E is H or `qkv_width`; i runs over all samples, or over those
up to k if causal. There are no positions: they come from the model, see `positions` in its options. Parameters:

    q_kernel, k_kernel, v_kernel (H, E)   o_kernel (E, H)   q_bias, k_bias, v_bias (E,)   o_bias (H,)

Biases exist only with `bias`. A dense layer is x @ kernel + bias. A missing sample is in no sum, and its own input is
replaced by zero. If there is no sample to attend to, the sum is zero. The recurrent mode has the state

    (B, heads, D, D + 1): sum_i k_i v_i^T, and sum_i k_i in the last column

The Long Range Arena's linear Transformer is this mixer without biases, in both directions. Its sums include the
padding, since its code builds an error about the mask without raising it.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer, PRNGKeyArray

from s5jax.mixers import attention, check, find
from s5jax.ssm import linear_attention
from s5jax.ssm.parameters import check_between, check_choices
from s5jax.ssm.positions import places
from s5jax.ssm.product import product
from s5jax.ssm.sequence import NOT_RECURRENT, Flags, border, reset_state

MASK = RESET = True

Params = dict[str, Array]
State = linear_attention.State


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of linear attention."""

    heads: int = 4
    """Number of heads; must divide E."""
    causal: bool = True
    """A sample attends to itself and earlier samples only."""
    qkv_width: int = 0
    """E, the width of queries, keys and values of all heads together; 0: that of the model."""
    bias: bool = True
    """Whether the four projections (q, k, v, o) have biases; initialised to zero."""

    def __post_init__(self) -> None:
        check_choices(self)
        check_between(self, 1, 2**16, "heads")
        check_between(self, 0, 2**16, "qkv_width")


def CAUSAL(options: Options) -> bool:
    return options.causal


def init(key: PRNGKeyArray, width: int, options: Options, *, depth: int = 1, length: int = 1) -> Params:
    """Initial parameters, float32: kernels with variance 1 / inputs (LeCun), biases zero. ValueError if the heads do
    not divide the width. `depth` and `length` are not used."""
    given = {name: getattr(options, name) for name in ("heads", "qkv_width", "bias")}
    return attention.init(key, width, attention.Options(**given, positions="none"))


def apply(
    params: Params,
    x: Float[Array, "B L H"],
    options: Options,
    *,
    lengths: Integer[Array, " B"] | None = None,
    mask: Bool[Array, "B L"] | None = None,
    reset: Bool[Array, "#B #L"] | None = None,
    rate: Any = None,
    state: State | None = None,
    key: PRNGKeyArray | None = None,
    dropout: Float[Array, ""] | float = 0.0,
) -> tuple[Float[Array, "B L H"], State | None]:
    """See `s5jax.mixers`. Time and memory grow as L; `key` and `dropout` are not used. Without a causal mask, resets
    double the time."""
    check(find(__name__), options, rate=rate, state=state)
    x, given = border(x, lengths, mask, reset)
    state = None if state is None else reset_state(state, given.reset, given.lengths)
    x, L = x.astype(params["q_kernel"].dtype), x.shape[1]
    starts, present = given.starts(L), given.counted(L)
    q, k, v = (heads(params, name, x, options.heads) for name in "qkv")
    q, k = feature_map(q), feature_map(k)
    k = k if present is None else jnp.where(present[..., None, None], k, 0)
    v = jnp.concatenate([v, jnp.ones_like(v[..., :1])], -1)
    sequence = None if starts is None else places(L, starts)[1]
    y, state = linear_attention.attend(q, k, v, sequence=sequence, causal=options.causal, state=state)
    y = y[..., :-1] / (y[..., -1:] + 1e-6)
    return project(params, "o", y.reshape(*x.shape[:2], params["o_kernel"].shape[0])), state


def feature_map(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """elu(x) + 1, which is positive."""
    return jnp.where(x > 0, x + 1, jnp.exp(jnp.where(x > 0, 0, x)))


def project(params: Params, name: str, x: Float[Array, "B L F"]) -> Float[Array, "B L G"]:
    """A dense layer, with its bias if there is one."""
    y, bias = product(x, params[f"{name}_kernel"]), params.get(f"{name}_bias")
    return y if bias is None else y + bias[None, None]


def heads(params: Params, name: str, x: Float[Array, "B L H"], n: int) -> Float[Array, "B L {n} D"]:
    """A dense layer, divided into heads."""
    y = project(params, name, x)
    return y.reshape(*y.shape[:2], n, y.shape[2] // n)


def init_state(params: Params, options: Options, batch: Any, *, max_length: int | None = None) -> State:
    """Sums of zero. ValueError if not causal. `max_length` is not used."""
    k = discretize(params, options)["k_kernel"]
    D = k.shape[1] // options.heads
    return jnp.zeros((batch, options.heads, D, D + 1), k.dtype)


def discretize(params: Params, options: Options, *, rate: Any = None) -> Params:
    """Returns the parameters, which `step` takes as its cell. ValueError for a rate, or if not causal."""
    check(find(__name__), options, rate=rate)
    if not options.causal:
        raise ValueError(NOT_RECURRENT)
    return params


def step(
    cell: Params, state: State, x_k: Float[Array, "B H"], options: Options, *, mask: Flags = None, reset: Flags = None
) -> tuple[Float[Array, "B H"], State]:
    """One sample of `apply`: y_k and the next state."""
    mask, reset = (None if flag is None else flag[:, None] for flag in (mask, reset))
    y, after = apply(cell, x_k[:, None], options, mask=mask, reset=reset, state=state)
    assert after is not None
    return y[:, 0], after
