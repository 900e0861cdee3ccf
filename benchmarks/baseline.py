"""The published algorithms, as plain as their authors' code, to measure s5jax against.

A model processes one example under `jax.vmap`, averages batch statistics over the axis of the batch, and loops over its
layers in Python. Gradients and fusion are left to autodiff and XLA. Tokens are one-hot.

- S5 is in complex64: B u, then `jax.lax.associative_scan` over pairs (Lambda_bar, B u) with Lambda_bar repeated for
  every step, then C x on the concatenated states of both directions (arXiv 2208.04933, appendix A).
- S4D forms the Vandermonde matrix of size H x N x L (arXiv 2206.11893, listing 1), and S4 the Cauchy matrix
  (arXiv 2111.00396, algorithm 1). Both convolve by an FFT of twice the length.

XLA can compile two ways to write the same line to programs of different speed, see `_norm`. After a change to this
module, compare its compiled step with that of the published S5. Otherwise the comparison may flatter s5jax.

The parameters are those of s5jax, with the same names. The models compute the same functions, so that outputs can be
compared.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, PRNGKeyArray, Shaped

from s5jax.mixers import s4, s4d, s5
from s5jax.models.options import Options
from s5jax.ssm.parameters import unpair

__all__ = ["State", "logits", "step"]

Tree = dict[str, Any]


def logits(
    params: Tree,
    batch_stats: Tree,
    inputs: Shaped[Array, "B L ..."],
    *,
    model: Options,
    ssm: tuple[str, Any],
    train: bool,
    key: PRNGKeyArray | None = None,
) -> tuple[Float[Array, "B classes"], Tree]:
    """Logits, and the batch statistics after this batch.

    Args:
      params: parameters of a `Model`, with the published names.
      batch_stats: its running statistics.
      inputs: values (B, L, C), or one-hot tokens, or token ids (B, L); without padding.
      model: the model's options.
      ssm: "s5", "s4d" or "s4", and the layer's options.
      train: use the statistics of the batch, and dropout.
      key: random key for dropout.
    """

    layers: dict[str, Callable[..., Array]] = {"s5": _s5, "s4d": _s4d, "s4": _s4}
    layer = functools.partial(layers[ssm[0]], options=ssm[1])

    def one(inputs: Array, keys: Array | None) -> tuple[Array, Tree]:
        stack, stats = params["encoder"], dict(batch_stats.get("encoder", {}))
        if model.encoder == "one_hot" and inputs.ndim == 1:
            inputs = jax.nn.one_hot(inputs, stack["encoder"]["kernel"].shape[0])
        x = stack["encoder"]["embedding"][inputs] if model.encoder == "embedding" else _dense(stack["encoder"], inputs)
        for i in range(model.depth):
            name = f"layers_{i}"
            own = None if keys is None else keys[2 * i : 2 * i + 2]
            x, new = _block(stack[name], stats.get(name), x, model, layer, train, own)
            if new is not None:
                stats[name] = new
        pooled = x.mean(0) if model.pooling == "mean" else x[-1]
        return _dense(params["decoder"], pooled), {"encoder": stats} if stats else {}

    keys = None if key is None else jax.random.split(key, (len(inputs), 2 * model.depth))
    return jax.vmap(one, in_axes=(0, None if keys is None else 0), out_axes=(0, None), axis_name="batch")(inputs, keys)


State = tuple[list[Complex[Array, "B P"]], Float[Array, "B H"], Float[Array, ""]]
"""The SSMs' states, the sum of the features so far, and how many they are."""


def step(
    params: Tree, batch_stats: Tree, state: State, sample: Float[Array, "B C"], *, model: Options, options: s5.Options
) -> tuple[State, Float[Array, "B classes"]]:
    """One sample of a causal S5 model: the next state, and the logits. Discretises the parameters each time."""
    stack, stats = params["encoder"], batch_stats.get("encoder", {})

    def one(states: list[Array], sample: Array) -> tuple[list[Array], Array]:
        x, after = _dense(stack["encoder"], sample[None]), []
        for i, state in enumerate(states):

            def layer(params: Tree, u: Array, state: Array = state) -> Array:
                Lambda_bar, B_bar, C = _discrete(params, options)
                after.append(Lambda_bar * state + B_bar @ u[0].astype(jnp.complex64))
                y = (C @ after[-1]).real[None]
                return (2 * y if options.conj_sym else y) + params["D"][None] * u

            x, _ = _block(stack[f"layers_{i}"], stats.get(f"layers_{i}"), x, model, layer, False, None)
        return after, x[0]

    after, x = jax.vmap(one)(state[0], sample)
    total, steps = state[1] + x, state[2] + 1
    return (after, total, steps), _dense(params["decoder"], total / steps)


def _dense(layer: Tree, x: Array) -> Array:
    return x @ layer["kernel"] + jnp.broadcast_to(layer["bias"], (*x.shape[:-1], len(layer["bias"])))


def _block(
    params: Tree,
    stats: Tree | None,
    x: Array,
    model: Options,
    layer: Callable[[Tree, Array], Array],
    train: bool,
    keys: Array | None,
) -> tuple[Array, Tree | None]:
    def drop(x: Array, i: int) -> Array:
        if keys is None or not model.dropout:
            return x
        kept = jax.random.bernoulli(keys[i], 1 - model.dropout, (1, x.shape[1]))
        return jnp.where(jnp.broadcast_to(kept, x.shape), x / (1 - model.dropout), 0)

    skip, new = x, None
    if model.prenorm:
        x, new = _norm(params["norm"], stats, x, model, train)
    x = layer(params["seq"], x)
    g = drop(jax.nn.gelu(x), 0)
    if model.activation == "gelu":
        x = g
    else:
        value = _dense(params["out1"], g) if model.activation == "full_glu" else g
        value = x if model.activation == "half_glu2" else value
        x = drop(value * jax.nn.sigmoid(_dense(params["out2"], g)), 1)
    x = skip + x
    if not model.prenorm:
        x, new = _norm(params["norm"], stats, x, model, train)
    return x, new


def _norm(params: Tree, stats: Tree | None, x: Array, model: Options, train: bool) -> tuple[Array, Tree | None]:
    """The norm, with the order of operations that gives the speed of the published code.

    The gradients of x, of x^2 and of x - mean are added in the reverse order of these lines. If x^2 comes after the
    mean of x, XLA fuses the sum, and those of all later layers, into each of its uses, and the work grows with the
    square of the depth. If the scale multiplies x - mean instead of the factor, the forward and the backward pass each
    read x once more.
    """
    new = None
    if model.norm == "layer":
        mean, var, epsilon = x.mean(1, keepdims=True), x.var(1, keepdims=True), 1e-6
    else:
        assert stats is not None
        epsilon = 1e-5
        if train:
            square = jnp.square(x)
            mean = jax.lax.pmean(x.mean(0, keepdims=True), "batch")
            var = jax.lax.pmean(square.mean(0, keepdims=True), "batch") - jnp.square(mean)
            kept = model.bn_momentum
            new = {
                "norm": {
                    "mean": kept * stats["norm"]["mean"] + (1 - kept) * mean[0],
                    "var": kept * stats["norm"]["var"] + (1 - kept) * var[0],
                }
            }
        else:
            mean, var = stats["norm"]["mean"][None], stats["norm"]["var"][None]
    factor = jax.lax.rsqrt(var + epsilon) * params["scale"][None]
    return (x - mean) * factor + params["bias"][None], new


def _discrete(
    params: Tree, options: s5.Options
) -> tuple[Complex[Array, " P"], Complex[Array, "P H"], Complex[Array, "H DP"]]:
    Lambda, Delta = s5.eigenvalues(params, options), jnp.exp(params["log_step"][:, 0]).astype(jnp.complex64)
    Lambda_bar = jnp.exp(Lambda * Delta)
    B_bar = ((Lambda_bar - 1) / Lambda)[:, None] * unpair(params["B"])
    return Lambda_bar, B_bar, jnp.concatenate([unpair(params[n]) for n in ("C", "C1", "C2") if n in params], axis=1)


def _s5(params: Tree, u: Float[Array, "L H"], options: s5.Options) -> Float[Array, "L H"]:
    Lambda_bar, B_bar, C = _discrete(params, options)

    def combine(earlier: tuple[Array, Array], later: tuple[Array, Array]) -> tuple[Array, Array]:
        return later[0] * earlier[0], later[0] * earlier[1] + later[1]

    Bu = jax.vmap(lambda u: B_bar @ u.astype(jnp.complex64))(u)
    elements = (Lambda_bar[None] * jnp.ones_like(Bu), Bu)
    _, x = jax.lax.associative_scan(combine, elements)
    if options.bidirectional:
        _, back = jax.lax.associative_scan(combine, elements, reverse=True)
        x = jnp.concatenate([x, back], axis=-1)
    y = jax.vmap(lambda x: (C @ x).real)(x)
    return (2 * y if options.conj_sym else y) + params["D"][None] * u


def _convolve(K: Float[Array, "H K"], u: Float[Array, "L H"]) -> Float[Array, "L H"]:
    """Convolves with K, which has the lags >= 0 at its start and the negative lags at its end."""
    size = 2 * len(u)
    product = jnp.fft.rfft(K, size) * jnp.fft.rfft(u.T, size)
    return jnp.fft.irfft(product, size)[:, : len(u)].T


def _from_kernel(K: Float[Array, "directions H L"], params: Tree, u: Float[Array, "L H"], skips: bool) -> Array:
    L = K.shape[2]
    lags = jnp.pad(K[0], ((0, 0), (0, L)))
    if len(K) == 2 and skips:
        lags = lags + jnp.pad(K[1, :, ::-1], ((0, 0), (L, 0)))
    elif len(K) == 2:
        lags = lags.at[:, 0].add(K[1, :, 0]) + jnp.pad(K[1, :, :0:-1], ((0, 0), (L + 1, 0)))
    return _convolve(lags, u) + params["D"][None] * u


def _features(x: Array, H: int) -> Array:
    return jnp.tile(x, (H // len(x), *(1,) * (x.ndim - 1)))


def _s4d(params: Tree, u: Float[Array, "L H"], options: s4d.Options) -> Float[Array, "L H"]:
    L, H = u.shape
    A, B = (_features(x, H) for x in (s4d.eigenvalues(params, options), unpair(params["B"])))
    dtA = A * jnp.exp(params["log_step"]).astype(A.dtype)
    powers = jnp.exp(dtA[..., None] * jnp.arange(L, dtype=A.dtype)[None, None])
    Cs = [unpair(params[name]) * B * (jnp.exp(dtA) - 1) / A for name in ("C", "C1", "C2") if name in params]
    K = jnp.stack([2 * jnp.einsum("hn,hnl->hl", C, powers).real for C in Cs])
    return _from_kernel(K, params, u, options.backward_skips_current)


def _s4(params: Tree, u: Float[Array, "L H"], options: s4.Options) -> Float[Array, "L H"]:
    """Uses C where the published code has C (I - A_bar^L): the parameter has another meaning, but the same cost."""
    L, H = u.shape
    Lambda, B = (_features(x, H) for x in (s4.eigenvalues(params, options), unpair(params["B"])))
    P = _features(unpair(params["P"])[0], H)
    Delta = jnp.exp(params["log_step"]).astype(Lambda.dtype)
    nodes = jnp.asarray(np.exp(-2j * np.pi * np.arange(L // 2 + 1) / L), Lambda.dtype)
    z = (2 * (1 - nodes))[None, None] / (1 + nodes)[None, None]

    def cauchy(v: Complex[Array, "H N"]) -> Complex[Array, "H F"]:
        inverse = 1 / (z - (Delta * Lambda)[..., None])
        inverse_conjugate = 1 / (z - (Delta * Lambda).conj()[..., None])
        return jnp.einsum("hn,hnf->hf", v, inverse) + jnp.einsum("hn,hnf->hf", v.conj(), inverse_conjugate)

    kernels = []
    for C in (unpair(params[name]) for name in ("C", "C1", "C2") if name in params):
        CB, CP, PB, PP = (cauchy(Delta * v) for v in (C * B, C * P, P.conj() * B, P.conj() * P))
        kernels.append(jnp.fft.irfft((CB - CP * PB / (1 + PP)) * (2 / (1 + nodes))[None], L))
    return _from_kernel(jnp.stack(kernels), params, u, options.backward_skips_current)
