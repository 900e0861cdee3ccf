"""A chain of n equal all-pass filters of first order, and weighted sums of its outputs, for each feature.

    v_0 = u,    v_j = phi(q) v_{j-1},    y = sum_{j=1..n} h_j v_j,
    phi(q) = (q - a) / (1 - a q),    a = (1 - Delta) / (1 + Delta)

q is the delay of one sample and Delta > 0 the step size. The state x_j,k-1 is what filter j carries from
step k-1 to k:

    v_j,k = x_j,k-1 - a v_{j-1},k,    x_j,k = v_{j-1},k + a v_j,k = x_j,k-1 - (1 - a) x_j,k-1 + (1 - a^2) v_{j-1},k

Polynomials in z, modulo z^n, stand for the vectors of the chain: x stands for sum_j x_j z^(j-1). Multiplication by

    A(z) = (a + z) / (1 + a z)    advances the state, x_k = A x_{k-1} + b u_k with b = (1 - a^2) / (1 + a z)

so that A is a triangular Toeplitz matrix, and each of its powers is given by its first column, n numbers. The powers
A^1, A^2, A^4, ... are stored as E_p = 1 - A^p, with E_2p = 2 E_p - E_p^2: if the step size is small, E_p is small, and
rounding errors do not add up over the steps as they would in powers of a rounded A. In float32 the errors of a kernel
are some 1e-6 of its norm for n = 128 and any length. |A| <= 1, in the norm of these vectors, at any step size.

Letters: H features, L length, T and Q powers of two with T Q >= L, both about sqrt(L). A product of polynomials is a
Fourier transform of length 2 n. A kernel costs n L multiplications and sqrt(L) products per feature, and no array has
the size H n L.
"""

import functools
from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

_einsum = functools.partial(jnp.einsum, precision="highest")


def kernel(h: Float[Array, "H n"], Delta: Float[Array, " H"], L: int) -> Float[Array, "H {L}"]:
    """The impulse response: y_l for the input 1, 0, 0, ..."""
    a, b, C = _system(h, Delta)
    later = _free_response(C, b, _powers(Delta, h.shape[1], L), L)
    return jnp.concatenate([-a * C[:, :1], later[:, : L - 1]], axis=1)


def response(
    h: Float[Array, "H n"], Delta: Float[Array, " H"], start: Float[Array, "B H n"], L: int
) -> Float[Array, "B H {L}"]:
    """The outputs after the state `start`, for inputs of zero."""
    return _free_response(_system(h, Delta)[2], start, _powers(Delta, h.shape[1], L), L)


def final_state(
    Delta: Float[Array, " H"],
    u: Float[Array, "B L H"],
    lengths: Integer[Array, " B"] | None,
    start: Float[Array, "B H n"],
) -> Float[Array, "B H n"]:
    """A^l start + sum_k A^(l-1-k) b u_k, the state after the l valid inputs."""
    (B, L, H), n = u.shape, start.shape[-1]
    _, b, _ = _system(jnp.zeros((H, n), u.dtype), Delta)
    powers = _powers(Delta, n, L + 1)
    steps = jnp.full((B,), L, jnp.int32) if lengths is None else lengths.astype(jnp.int32)
    state = start
    for i, E in enumerate(powers):
        state = jnp.where((steps >> i & 1)[:, None, None] == 1, state - _times(E[None], state), state)

    source = steps[:, None] - 1 - jnp.arange(L, dtype=jnp.int32)[None]  # the last valid input comes first
    back = jnp.where(
        source[..., None] >= 0,
        jnp.take_along_axis(u, jnp.maximum(source, 0)[..., None], axis=1),
        jnp.zeros((), u.dtype),
    )
    fine, coarse = _halves(powers)
    T, Q = 2 ** len(fine), 2 ** len(coarse)
    back = jnp.pad(back, ((0, 0), (0, T * Q - L), (0, 0))).reshape(B, Q, T, H)
    sums = _einsum("bqth,htn->bhqn", back, _rows(b, fine))
    for E in coarse:  # of two neighbours the second is further back
        near, far = sums[..., ::2, :], sums[..., 1::2, :]
        sums = near + far - _times(E[None, :, None], far)
    return state + sums[..., 0, :]


def step(
    h: Float[Array, "H n"], Delta: Float[Array, "*batch H"], state: Float[Array, "B H n"], u_k: Float[Array, "B H"]
) -> tuple[Float[Array, "B H"], Float[Array, "B H n"]]:
    """One sample: y_k and the next state. v is computed in log2(n) rounds, each of which doubles its reach."""
    n = h.shape[-1]
    Delta = jnp.broadcast_to(Delta, u_k.shape)[..., None]
    a = (1 - Delta) / (1 + Delta)
    u = u_k[..., None]
    v = jnp.concatenate([state[..., :1] - a * u, state[..., 1:]], axis=-1)
    reach, factor = 1, -a
    while reach < n:
        v = v + factor * jnp.pad(v, ((0, 0), (0, 0), (reach, 0)))[..., :n]
        reach, factor = 2 * reach, factor * factor
    before = jnp.concatenate([u, v[..., :-1]], axis=-1)
    state = state - (2 * Delta / (1 + Delta) * state - 4 * Delta / (1 + Delta) ** 2 * before)
    return jnp.sum(h[None] * v, axis=-1), state


def _free_response(
    C: Float[Array, "H n"], start: Float[Array, "*batch H n"], powers: Sequence[Array], L: int
) -> Float[Array, "*batch H {L}"]:
    """C A^l start: with l = q T + t a product of the matrices of C A^(q T) and of A^t start."""
    fine, coarse = _halves(powers)
    y = _einsum("hqn,...htn->...hqt", _rows(C, coarse, transposed=True), _rows(start, fine))
    return y.reshape(*y.shape[:-2], -1)[..., :L]


def _rows(
    x: Float[Array, "*batch H n"], powers: Sequence[Array], *, transposed: bool = False
) -> Float[Array, "*batch H rows n"]:
    """x, A^p x, A^2p x, ..., from E_p, E_2p, E_4p, ... as `powers`; or with the transpose of A."""
    x = x[..., None, :]
    for E in powers:
        E = jnp.expand_dims(E[:, None], tuple(range(x.ndim - 3)))
        x = jnp.concatenate([x, x - _times(E, x, transposed=transposed)], axis=-2)
    return x


def _halves(powers: Sequence[Array]) -> tuple[Sequence[Array], Sequence[Array]]:
    middle = (len(powers) + 1) // 2
    return powers[:middle], powers[middle:]


def _times(x: Float[Array, "*x n"], y: Float[Array, "*y n"], *, transposed: bool = False) -> Float[Array, "*y n"]:
    """The product of polynomials modulo z^n; transposed: by the transpose of the Toeplitz matrix of x."""
    n = y.shape[-1]
    of_x = jnp.fft.rfft(x, 2 * n)
    return jnp.fft.irfft(jnp.fft.rfft(y, 2 * n) * (of_x.conj() if transposed else of_x), 2 * n)[..., :n]


def _inverse(Delta: Float[Array, " H"], n: int) -> tuple[Float[Array, "H 1"], Float[Array, "H n"]]:
    """a, and 1 / (1 + a z)."""
    a = ((1 - Delta) / (1 + Delta))[:, None]
    return a, jnp.cumprod(jnp.where(jnp.arange(n)[None] == 0, jnp.ones((), a.dtype), -a), axis=1)


def _system(
    h: Float[Array, "H n"], Delta: Float[Array, " H"]
) -> tuple[Float[Array, "H 1"], Float[Array, "H n"], Float[Array, "H n"]]:
    """a, b and C, the row such that C x is the output of the state x without input."""
    a, inverse = _inverse(Delta, h.shape[1])
    return a, (4 * Delta / (1 + Delta) ** 2)[:, None] * inverse, _times(inverse, h, transposed=True)


def _powers(Delta: Float[Array, " H"], n: int, L: int) -> list[Float[Array, "H n"]]:
    """E_1, E_2, E_4, ..., so many that the exponents 0..L-1 are sums of theirs.

    E_2 is (1 - a^2) (1 - z^2) / (1 + a z)^2. It is as small as 1 - a^2, also for large step sizes, where A is near -1.
    """
    a, inverse = _inverse(Delta, n)
    i = jnp.arange(n, dtype=a.dtype)[None]
    by_z, by_z2 = (jnp.pad(inverse, ((0, 0), (k, 0)))[:, :n] for k in (1, 2))
    square = (4 * Delta / (1 + Delta) ** 2)[:, None]
    E = square * jnp.where(i == 0, 1, jnp.where(i == 1, -2 * a, by_z2 * (2 - (i + 1) * square)))
    powers = [(2 * Delta / (1 + Delta))[:, None] * (inverse - by_z)]
    while 2 ** len(powers) < L:
        powers.append(E)
        E = 2 * E - _times(E, E)
    return powers[: (L - 1).bit_length()]
