"""The contract's cases of liquid."""

import dataclasses
import functools
import itertools
import math
import types

import dense
import numpy as np

from contract import Case

CAUSAL = {"liquid_kernel": "pb"}
CASES = {
    "liquid": Case({"degree": 3}, main=True),
    "liquid_two": Case({"degree": 3, "bidirectional": True}),
    # With init legs the gradient of log_step cancels: parameters that move by 1e-7 change it by 1e-3.
    "liquid_kb": Case({"base": "s4d", "init": "lin", "liquid_kernel": "kb", "degree": 3}),
    "liquid_kb_s4": Case({"liquid_kernel": "kb", "n_ssm": 1}),
    "liquid_kb_two": Case({"base": "s4d", "liquid_kernel": "kb", "bidirectional": True}),
    "liquid_published": Case({"base": "s4d", "liquid_kernel": "published_pb", "degree": 3}, causal=CAUSAL),
    "liquid_published_two": Case(
        {"liquid_kernel": "published_pb", "products": "consecutive", "bidirectional": True}, causal=CAUSAL
    ),
    "liquid_published_kb": Case({"base": "s4d", "liquid_kernel": "published_kb", "degree": 3}, causal=CAUSAL),
}


@dataclasses.dataclass(frozen=True)
class Liquid:
    base: dense.System
    options: object
    frozen: dict

    def run_batch(self, x, *, lengths=None, mask=None, reset=None, rate=None, state=None):
        """Like `dense.System.run_batch`, but from zero and without states."""
        assert state is None
        if mask is not None:
            x = np.where(mask[..., None], 0, x)
        outputs = []
        for i, x_i in enumerate(x):
            n = len(x_i) if lengths is None else int(lengths[i])
            if self.options.liquid_kernel.startswith("published"):
                assert rate is None and reset is None
                padded = np.where(np.arange(len(x_i))[:, None] < n, x_i, 0)
                outputs.append(self.published(padded)[:n])
                continue
            factor = 1.0 if rate is None else rate[i] if np.ndim(rate) else rate
            flags = np.zeros(n, bool) if reset is None else reset[i, :n]
            bounds = [0, *np.flatnonzero(flags), n]
            pieces = [x_i[first:end] for first, end in itertools.pairwise(bounds)]
            outputs.append(np.concatenate([self.run(piece, factor) for piece in pieces]))
        return outputs, [None] * len(x)

    def run(self, u, rate):
        y = self.base.D * u + self.one_way(u, rate, self.base.C[0])
        if len(self.base.C) == 2 and len(u):
            back = self.one_way(u[::-1], rate, self.base.C[1])[::-1]
            y = y + np.concatenate([back[1:], 0 * back[:1]])
        return y

    def one_way(self, u, rate, C):
        A_bar, B_bar = self.base.discrete(rate)
        (L, H), N = u.shape, len(A_bar) // u.shape[1]
        blocks = np.stack([B_bar[h * N : (h + 1) * N, h] for h in range(H)])  # real parts, then imaginary parts
        pairs = np.moveaxis(blocks.reshape(H, 2, -1), 1, -1)
        x, y = np.zeros(len(A_bar)), []
        for k in range(L):
            x = A_bar @ x + B_bar @ u[k]
            power, product, added = pairs, u[k], 0
            for p in range(2, self.options.degree + 1):
                power = dense.times(power, pairs)
                product = product * (u[k - p + 1] if k >= p - 1 else 0)
                added = added + (dense.column(power) * product[:, None]).ravel()
            y.append(C @ (x + added))
            x = x + added if self.options.liquid_kernel == "kb" else x
        return np.array(y).reshape(L, H)

    def published(self, u):
        (L, H), s, v = u.shape, self.frozen["frozen_sum"], u
        y = self.base.run(u)[0]
        for p in range(2, self.options.degree + 1):
            if self.options.products == "consecutive":
                v = v * np.concatenate([np.zeros((1, H)), v[:-1]])
            else:
                index = chosen(L, p)
                v = np.concatenate([np.prod(u[index], axis=1), np.zeros((L - len(index), H))])
            if self.options.liquid_kernel == "published_kb":
                y = y + s ** (p - 1) * self.unequal_frequencies(v[::-1])
            else:
                for gain, turned in zip(self.frozen["frozen_gain"], (v[::-1], v), strict=False):
                    y = y + gain * s ** (2 ** (p - 1) - 1) * turned
        return y

    def unequal_frequencies(self, v):
        """The inverse real transform over 2 L points of that of v times the transform over L + 1 points of K."""
        L, H = v.shape
        K = self.base.kernel(L)[0][range(H), range(H)].T
        weight, cos, sin, cos_K, sin_K = transforms(L)
        v_re, v_im, K_re, K_im = cos @ v, -sin @ v, cos_K @ K, -sin_K @ K
        re, im = weight * (v_re * K_re - v_im * K_im), weight * (v_re * K_im + v_im * K_re)
        return cos.T @ re - sin.T @ im


@functools.cache
def chosen(L, p):
    n = next((n for n in range(2, L) if math.comb(n, p) >= L), L)
    return np.array(list(itertools.combinations(range(L - n, L), p))[-L:], int).reshape(-1, p)


@functools.cache
def transforms(L):
    """The weights of the inverse transform over 2 L points; cos and sin of it, and of that over L + 1 points."""
    j, t = np.arange(L + 1)[:, None], np.arange(L)
    of_v, of_K = np.pi * j * t / L, 2 * np.pi * j * t / (L + 1)
    return np.where((j == 0) | (j == L), 1, 2) / (2 * L), np.cos(of_v), np.sin(of_v), np.cos(of_K), np.sin(of_K)


def system(params, options):
    of_base = types.SimpleNamespace(
        modes="complex", real_transform="exp", discretization="bilinear", backward_skips_current=True
    )
    p = {n: v for n, v in params.items() if not n.startswith("frozen")}
    # No derivative is asked of what is never trained.
    frozen = {n: np.asarray(v).real.astype(np.float64) for n, v in params.items() if n.startswith("frozen")}
    return Liquid(dense.system(options.base, p, of_base), options, frozen)
