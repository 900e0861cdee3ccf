"""In two directions a mixer treats both ends alike: with the sequence turned round and the readouts exchanged, it gives
its outputs turned round. Irregular samples, padding, missing samples and several sequences in a row, all together."""

import jax
import jax.numpy as jnp
import numpy as np
from everyday import variants
from numerics import relative_error

from s5jax.mixers import lru, s4d, s5

H, L = 3, 17
CASES = {
    "s5-zoh": (s5, {"discretization": "zoh"}),
    "s5-bilinear": (s5, {"discretization": "bilinear", "conj_sym": False}),
    "s5-one-C": (s5, {"C_init": "complex_normal"}),
    "s4d-zoh": (s4d, {"discretization": "zoh", "backward_skips_current": False, "mode": "scan"}),
    "s4d-bilinear": (s4d, {"discretization": "bilinear", "backward_skips_current": False}),
    "s4d-copies": (s4d, {"init": "inv", "backward_skips_current": False, "n_ssm": 3}),
    "lru": (lru, {}),
}


def exchanged(params):
    """The params with the readouts of both directions exchanged."""
    swap = {"C1": "C2", "C2": "C1", "C_re": "C2_re", "C2_re": "C_re", "C_im": "C2_im", "C2_im": "C_im"}
    params = {swap.get(name, name): x for name, x in params.items()}
    if "C" in params:
        params["C"] = jnp.concatenate(jnp.split(params["C"], 2, axis=1)[::-1], axis=1)
    return params


def rows(seed, length):
    """One row: values, whether they are missing, where a sequence starts, and the gaps before the samples. The gap
    before a sequence's first sample has no other end, so it is 1, as the gap after its last sample is."""
    rng = np.random.default_rng(seed)
    start = rng.random(length) < 0.2
    start[0] = rng.random() < 0.5
    gap = np.where(start | (np.arange(length) == 0), 1, rng.choice([0.0, 0.3, 1.0, 2.5], length))
    return rng.normal(size=(length, H)), rng.random(length) < 0.3, start, gap


def turned(x, missing, start, gap):
    """The row read from its end. A sequence then starts at what was its last sample."""
    first = np.append(start[1:], start[0])[::-1]
    return x[::-1], missing[::-1], first, np.where(first, 1, np.roll(gap[::-1], 1))


def padded(row):
    """A row of L samples, NaN in the padding."""
    return [np.concatenate([part, np.full((L - len(part), *part.shape[1:]), fill)]) for part, fill in row]


@variants(
    [("s5-zoh", True, 0), ("s4d-bilinear", True, 0)],
    name=list(CASES),
    irregular=[False, True],
    seed=list(range(5)),
)
def test_both_ends_are_alike(name, irregular, seed):
    mixer, options = CASES[name]
    options = mixer.Options(state_size=6, bidirectional=True, **options)
    params = mixer.init(jax.random.key(seed), H, options)
    lengths = np.random.default_rng(seed).integers(1, L + 1, 4)

    @jax.jit
    def outputs(params, x, mask, reset, rate):
        rate = rate if irregular else None
        return mixer.apply(params, x, options, lengths=jnp.asarray(lengths), mask=mask, reset=reset, rate=rate)[0]

    there = [rows(seed + i, length) for i, length in enumerate(lengths)]
    found = []
    for params_, row in ((params, there), (exchanged(params), [turned(*r) for r in there])):
        given = [padded(zip(r, (np.nan, True, False, np.nan), strict=True)) for r in row]
        x, mask, reset, rate = (np.stack(part) for part in zip(*given, strict=True))
        y = outputs(params_, jnp.asarray(x, jnp.float32), mask > 0, reset > 0, jnp.asarray(rate, jnp.float32))
        found.append([np.asarray(y[i, :length]) for i, length in enumerate(lengths)])
    for y, back in zip(*found, strict=True):
        assert relative_error(back[::-1], y) < 1e-6
