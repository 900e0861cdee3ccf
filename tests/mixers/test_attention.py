"""Attention against a loop over samples in float64, its derivatives against that loop's complex step."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everyday import variants
from numerics import relative_error
from small_models import quick_key

from s5jax import mixers
from s5jax.mixers import attention
from s5jax.mixers.attention import Options

H = 8
TOLERANCE = {np.float32: (1e-5, 1e-4), np.float64: (1e-10, 1e-8)}
apply = jax.jit(attention.apply, static_argnames="options")
step = jax.jit(attention.step, static_argnames="options")
init_state = jax.jit(attention.init_state, static_argnames=("options", "batch", "max_length"))
discretize = jax.jit(attention.discretize, static_argnames="options")


def rotated(x, k):
    """Features (D,) turned by the angles of position k."""
    a, b = np.split(x, 2)
    angle = k * 10000.0 ** (-np.arange(len(a)) / len(a))
    return np.r_[a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle)]


def dense(p, name, x):
    return x @ p[name + "_kernel"] + p.get(name + "_bias", 0)


def slow_sequence(p, x, options, missing, window=None):
    """One sequence (L, H) from its start, sample by sample, in real or complex numbers."""
    window = options.window if window is None else window
    x = np.where(missing[:, None], 0, x)
    placed = x + p["positions"][: len(x)] if options.positions == "learned" else x
    q, k, v = dense(p, "q", placed), dense(p, "k", placed), dense(p, "v", x)
    y = np.zeros_like(v)
    for t in range(len(x)):
        seen = [i for i in range(len(x)) if not missing[i]]
        seen = [i for i in seen if i <= t or not options.causal]
        seen = [i for i in seen if abs(t - i) < window or not window]
        for head in np.split(np.arange(H), options.heads):
            mixed = np.zeros(len(head), v.dtype)
            if seen:
                turn = rotated if options.positions == "rotary" else lambda z, _: z
                logits = np.array([turn(q[t, head], t) @ turn(k[i, head], i) for i in seen]) / np.sqrt(len(head))
                weights = np.exp(logits - logits.real.max())
                mixed = (weights / weights.sum()) @ v[seen][:, head]
            y[t, head] = mixed
    return dense(p, "o", y)


def slow_apply(p, x, options, lengths=None, mask=None, reset=None, window=None):
    """(B, L, H), every sequence by itself; zero after the end."""
    p, x = jax.tree.map(lambda a: np.asarray(a, complex if np.iscomplexobj(a) else float), (p, x))
    B, L = x.shape[:2]
    y = np.zeros(x.shape, np.result_type(x, *p.values()))
    for b in range(B):
        end = L if lengths is None else int(lengths[b])
        inner = [] if reset is None else [k for k in range(1, end) if reset[b, k]]
        bounds = [0, *inner, end]
        missing = np.zeros(L, bool) if mask is None else mask[b]
        for start, stop in itertools.pairwise(bounds):
            part = slice(start, stop)
            y[b, part] = slow_sequence(p, x[b, part], options, missing[part], window)
    return y


def draw(options, shape, dtype=np.float64, seed=0, length=60):
    """Parameters with nothing at zero, in `dtype`, and an input (B, L, H)."""
    rng = np.random.default_rng(seed)
    params = jax.eval_shape(lambda: attention.init(jax.random.key(0), H, options, length=length))
    params = {n: (rng.normal(size=a.shape) * 0.6).astype(dtype) for n, a in params.items()}
    return params, rng.normal(size=(*shape, H)).astype(dtype)


def signs(tree, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: rng.choice([-1, 1], a.shape).astype(a.dtype), tree)


@functools.partial(jax.jit, static_argnames="options")
def derivatives(params, x, direction, weights, options, **arguments):
    """Outputs, their derivative in a direction, and the gradient of the outputs' weighted sum."""

    def outputs(params, x):
        return attention.apply(params, x, options, **arguments)[0]

    (y, pull), (_, y_dot) = jax.vjp(outputs, params, x), jax.jvp(outputs, (params, x), direction)
    return y, y_dot, pull(weights)


def check(options, shape, dtype, lengths=None, mask=None, reset=None):
    """Outputs and derivatives of `apply` are those of the loop; NaN where nothing may be read."""
    near, nearly = TOLERANCE[dtype]
    params, x = draw(options, shape, dtype)
    arguments = {"lengths": lengths, "mask": mask, "reset": reset}
    unread = np.zeros(shape, bool) if mask is None else mask.copy()
    valid = np.ones(shape, bool) if lengths is None else np.arange(shape[1]) < np.asarray(lengths, int)[:, None]
    unread |= ~valid
    direction, weights = signs((params, x), 1), signs(x, 2) * valid[..., None].astype(dtype)
    direction[1][unread] = 0
    shifted = [
        jax.tree.map(lambda a, d: a.astype(complex) + 1e-30j * d.astype(float), *pair)
        for pair in zip((params, x), direction, strict=True)
    ]
    expected = slow_apply(*shifted, options, **arguments)
    slope = (expected.imag / 1e-30)[valid]
    with jax.enable_x64(dtype is np.float64):
        noise = np.where(unread[..., None], np.array(np.nan, dtype), x)
        y, y_dot, gradient = derivatives(params, noise, direction, weights, options, **arguments)
        assert y.dtype == dtype
    assert relative_error(y[valid], expected.real[valid]) < near
    assert relative_error(y_dot[valid], slope) < nearly
    assert np.isfinite(y).all()
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))
    assert not np.asarray(gradient[1])[unread].any()
    products = jax.tree.map(lambda g, d: (np.asarray(g, float) * d).sum(), gradient, direction)
    size = np.sqrt(sum((np.asarray(g, float) ** 2).sum() for g in jax.tree.leaves(gradient)))
    assert abs(sum(jax.tree.leaves(products)) - (slope * weights[valid]).sum()) < nearly * size
    return np.asarray(y)


VARIANTS = {
    "rotary": Options(heads=2),
    "learned": Options(positions="learned", bias=False),
    "window": Options(heads=1, window=3),
    "one": Options(positions="none", window=1),
    "both": Options(heads=2, causal=False),
    "both-window": Options(causal=False, window=4, positions="learned"),
}


@variants([("rotary", np.float32), ("one", np.float64)], variant=VARIANTS, dtype=[np.float32, np.float64])
def test_equals_loop(variant, dtype):
    check(VARIANTS[variant], (2, 13), dtype)


@variants(["both-window"], variant=["rotary", "both-window"])
def test_one_sample(variant):
    check(VARIANTS[variant], (2, 1), np.float64)


@variants(
    [("learned", np.float64), ("window", np.float32)],
    variant=["rotary", "learned", "window", "both", "both-window"],
    dtype=[np.float32, np.float64],
)
def test_lengths_missing_samples_and_resets(variant, dtype):
    rng = np.random.default_rng(3)
    mask, reset = rng.random((4, 17)) < 0.4, rng.random((4, 17)) < 0.15
    mask[0] = True
    mask[1, :3] = True
    check(VARIANTS[variant], (4, 17), dtype, np.array([17, 9, 0, 1], np.uint8), mask, reset)


def test_nothing_to_see_is_a_sum_of_zero():
    options = Options()
    mask = np.array([[True, True, False, False]])
    params, x = draw(options, (1, 4), np.float32)
    y, _ = jax.tree.map(np.asarray, apply(params, x, options, mask=mask))
    np.testing.assert_array_equal(y[0, :2], np.stack([params["o_bias"]] * 2))
    assert not np.array_equal(y[0, 2], params["o_bias"])


@variants(["both-window"], variant=["rotary", "learned", "both", "both-window"])
def test_sequences_in_a_row_equal_each_alone(variant):
    """Their gradients, too: `check` differentiates a loop over each alone."""
    options, bounds = VARIANTS[variant], [0, 1, 3, 53]
    reset = np.zeros((1, 53), bool)
    reset[0, bounds[:-1]] = True
    y = check(options, (1, 53), np.float64, reset=reset)
    params, x = draw(options, (1, 53), np.float64)

    @jax.jit
    def each_alone(params, x):
        return jnp.concatenate(
            [attention.apply(params, x[:, i:j], options)[0] for i, j in itertools.pairwise(bounds)], 1
        )

    with jax.enable_x64(True):
        alone = np.asarray(each_alone(params, x))
    assert relative_error(y, alone) < 1e-12


RECURRENT = {
    "rotary": (Options(heads=2), 40, 0),
    "learned": (Options(positions="learned"), 40, 0),
    "window": (Options(window=5), None, 5),
    "window-long": (Options(window=5), 9, 5),
    "window-one": (Options(window=1, positions="none"), 4, 1),
    "slide": (Options(heads=1, cache="slide"), 6, 6),
    "slide-window": (Options(heads=1, cache="slide", window=9, positions="none"), 4, 4),
}


def stream(dtype):
    """Flags of 3 sequences of 29 samples: none, few, many missing; resets in the last two."""
    rng = np.random.default_rng(4)
    return rng.random((3, 29)) < [[0], [0.2], [0.6]], rng.random((3, 29)) < [[0], [0.1], [0.2]]


@variants(
    [("learned", np.float64), ("slide-window", np.float64)],
    case=RECURRENT,
    dtype=[np.float32, np.float64],
)
def test_steps_and_pieces_equal_loop(case, dtype):
    options, max_length, window = RECURRENT[case]
    near = TOLERANCE[dtype][0]
    mask, reset = stream(dtype)
    params, x = draw(options, (3, 29), dtype)
    expected = slow_apply(params, x, options, mask=mask, reset=reset, window=window)
    x[mask] = np.nan
    with jax.enable_x64(dtype is np.float64):
        start = init_state(params, options, 3, max_length=max_length)
        assert start["k"].dtype == dtype
        cell, state, outputs = discretize(params, options), start, []
        for k in range(29):
            y, state = step(cell, state, x[:, k], options, mask=mask[:, k], reset=reset[:, k])
            outputs.append(y)
        assert relative_error(np.stack(outputs, 1), expected) < near

        pieces, outputs = start, []
        for i, j in (0, 14), (14, 28), (28, 29):
            flags = {"mask": mask[:, i:j], "reset": reset[:, i:j]}
            y, pieces = apply(params, x[:, i:j], options, state=pieces, **flags)
            outputs.append(y)
        assert relative_error(np.concatenate(outputs, 1), expected) < near
    same(state, pieces, near)


def same(a, b, near):
    """Equal states, whatever lies in slots that are never read."""
    a, b = jax.tree.map(np.asarray, (a, b))
    for name in "valid", "count":
        np.testing.assert_array_equal(a[name], b[name])
    for name in "kv":
        assert relative_error(a[name][a["valid"]], b[name][b["valid"]]) < near


@variants(["window"], case=["rotary", "learned", "window", "slide"])
def test_ragged_pieces(case):
    """Every row is cut elsewhere; what lies behind the cuts is NaN."""
    options, max_length, window = RECURRENT[case]
    mask, reset = stream(np.float64)
    params, x = draw(options, (3, 29))
    expected = slow_apply(params, x, options, mask=mask, reset=reset, window=window)
    cuts = np.array([[0, 10, 10, 29, 29], [0, 0, 1, 8, 29], [0, 21, 22, 22, 29]])
    with jax.enable_x64(True):
        state = start = init_state(params, options, 3, max_length=max_length)
        y = np.full_like(x, np.nan)
        for c in range(4):
            rows = [slice(*cuts[b, c : c + 2]) for b in range(3)]
            lengths = np.diff(cuts, axis=1)[:, c]
            piece = {"x": np.full((3, 21, H), np.nan), "mask": np.zeros((3, 21), bool), "reset": np.ones((3, 21), bool)}
            for b, n in enumerate(lengths):
                for name, whole in ("x", x), ("mask", mask), ("reset", reset):
                    piece[name][b, :n] = whole[b, rows[b]]
            before = jax.tree.map(np.asarray, state)
            out, state = apply(params, options=options, lengths=lengths.astype(np.int8), state=state, **piece)
            out, after = jax.tree.map(np.asarray, (out, state))
            assert np.isfinite(out).all()
            for b, n in enumerate(lengths):
                y[b, rows[b]] = out[b, :n]
                if n == 0:
                    assert all((after[name][b] == before[name][b]).all() for name in after)
        assert relative_error(y, expected) < 1e-10
        _, whole = apply(params, x, options, mask=mask, reset=reset, state=start)
    same(state, whole, 1e-10)


def test_gradients_through_a_state():
    options = Options(window=5)
    params, x = draw(options, (2, 9))

    def pieces(params, x):
        state, outputs = attention.init_state(params, options, 2), []
        for i, j in (0, 4), (4, 9):
            y, state = attention.apply(params, x[:, i:j], options, state=state)
            outputs.append(y)
        return jnp.concatenate(outputs, 1)

    @jax.jit
    def both_ways(weights, direction):
        """The derivatives of the pieces, then those of the whole."""
        functions = pieces, lambda *a: attention.apply(*a, options)[0]
        slopes = [jax.jvp(function, (params, x), direction)[1] for function in functions]
        return slopes, [jax.vjp(function, params, x)[1](weights) for function in functions]

    with jax.enable_x64(True):
        weights, direction = signs(x, 2), signs((params, x), 1)
        (slope, expected), (parts, whole) = both_ways(weights, direction)
    for a, b in zip(jax.tree.leaves(parts), jax.tree.leaves(whole), strict=True):
        assert relative_error(a, b) < 1e-8
    assert relative_error(slope, expected) < 1e-10


@variants([2**31 - 200], count=[10**6, 2**31 - 200])
def test_long_streams_do_not_lose_the_angle(count):
    options = Options(window=16)
    params, x = draw(options, (1, 90), np.float32)
    state = init_state(params, options, 1) | {"count": np.array([count], np.int32)}
    first, state = apply(params, x[:, :45], options, state=state)
    second, state = apply(params, x[:, 45:], options, state=state)
    assert relative_error(np.concatenate([first, second], 1), slow_apply(params, x, options)) < 1e-5
    assert np.asarray(state["count"]) == count + 90


def test_full_cache():
    options = Options()
    params, x = draw(options, (2, 6), np.float32)
    expected = slow_apply(params, x, options)
    state = init_state(params, options, 2, max_length=4)
    with pytest.raises(ValueError, match="the cache is full: it holds 4 samples"):
        attention.apply(*jax.tree.map(jnp.asarray, (params, x)), options, state=state)
    with pytest.raises(ValueError, match="the cache is full"):  # six in a row are too many whatever came before
        apply(params, x, options, state=state)
    y, full = apply(params, x[:, :4], options, state=state)
    assert relative_error(np.asarray(y), expected[:, :4]) < 1e-5
    with pytest.raises(ValueError, match="the cache is full"):
        attention.step(jax.tree.map(jnp.asarray, params), full, jnp.asarray(x[:, 4]), options)
    one, none = np.array([True, False]), np.zeros(2, bool)
    y, after = step(params, full, x[:, 4], options, reset=one)
    y = np.asarray(y)
    assert np.isfinite(y[0]).all() and np.isnan(y[1]).all()
    assert np.isnan(np.asarray(step(params, after, x[:, 5], options, reset=none)[0])[1]).all()
    y, _ = apply(params, x, options, state=state, lengths=np.array([4, 6]))
    np.testing.assert_array_equal(np.isnan(y).all(-1), [[False] * 6, [False] * 4 + [True] * 2])


def test_longer_than_the_table():
    options = Options(positions="learned")
    params, x = draw(options, (2, 7), np.float32, length=5)
    with pytest.raises(ValueError, match="a sequence is longer than the table of 5 positions"):
        apply(params, x, options)
    with pytest.raises(ValueError, match="longer than the table"):
        attention.apply(*jax.tree.map(jnp.asarray, (params, x)), options, lengths=jnp.array([7, 1]))
    y, _ = apply(params, x, options, lengths=np.array([5, 6]))
    np.testing.assert_array_equal(np.isnan(y).all(-1), [[False] * 7, [False] * 5 + [True, False]])
    reset = np.zeros((2, 7), bool)
    reset[:, 4] = True
    y, _ = apply(params, x, options, reset=reset)
    assert relative_error(y, slow_apply(params, x, options, reset=reset)) < 1e-5
    window = Options(positions="learned", window=2)
    state = init_state(params, window, 2)
    _, state = apply(params, x[:, :5], window, state=state)
    with pytest.raises(ValueError, match="longer than the table"):
        attention.step(jax.tree.map(jnp.asarray, params), state, jnp.asarray(x[:, 5]), window)


def test_dropout():
    options = Options(heads=2)
    params, x = jax.tree.map(jnp.asarray, draw(options, (2, 9), np.float32))
    whole, _ = apply(params, x, options)
    with pytest.raises(ValueError, match="dropout needs a key"):
        apply(params, x, options, dropout=jnp.float32(0.1))

    @jax.jit
    def dropped(key, dropout):
        return attention.apply(params, x, options, key=key, dropout=dropout)[0]

    key = quick_key(0)
    assert relative_error(dropped(key, 0.0), whole) < 1e-6
    assert relative_error(dropped(key, 0.5), whole) > 0.1
    np.testing.assert_array_equal(dropped(key, 0.5), dropped(key, 0.5))
    many = jax.jit(jax.vmap(dropped, (0, None)))(jax.random.split(key, 1000), 0.3)
    assert relative_error(many.mean(0), whole) < 0.05  # inverse scaling keeps the mean
    all_gone = dropped(key, 1.0)
    np.testing.assert_array_equal(all_gone, np.broadcast_to(params["o_bias"], x.shape))
    gradient = jax.jit(jax.grad(lambda p: attention.apply(p, x, options, key=key, dropout=1.0)[0].sum()))(params)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))


@variants(["rotary"], variant=["rotary", "learned"])
def test_seeds_in_one_program(variant):
    options = VARIANTS[variant]
    seeds = [draw(options, (2, 7), np.float32, seed)[0] for seed in range(3)]
    x = draw(options, (2, 7), np.float32)[1]
    stacked = jax.tree.map(lambda *a: np.stack(a), *seeds)

    @jax.jit
    @jax.vmap
    def both(params):
        def advance(state, x_k):
            y_k, state = attention.step(params, state, x_k, options)
            return state, y_k

        start = init_state(params, options, 2, max_length=7)
        _, stepped = jax.lax.scan(advance, start, jnp.moveaxis(x, 1, 0))
        return attention.apply(params, jnp.asarray(x), options)[0], jnp.moveaxis(stepped, 0, 1)

    y, stepped = jax.tree.map(np.asarray, both(stacked))
    for s, params in enumerate(seeds):
        expected = slow_apply(params, x, options)
        assert relative_error(y[s], expected) < 1e-5
        assert relative_error(stepped[s], expected) < 1e-5


@pytest.mark.slow  # every day `apply` and `step` in test_contract
def test_export_with_symbolic_batch():
    options = Options(window=4)
    params, x = draw(options, (3, 6), np.float32)
    mask, reset = np.zeros((3, 6), bool), np.zeros((3, 6), bool)
    mask[1, 2] = reset[2, 3] = True
    (b,) = jax.export.symbolic_shape("b")

    def shape(a):
        return jax.ShapeDtypeStruct((b, *a.shape[1:]), a.dtype)

    def run(params, x, lengths, mask, reset):
        y, _ = attention.apply(params, x, options, lengths=lengths, mask=mask, reset=reset)
        state = attention.init_state(params, options, x.shape[0])
        _, state = attention.apply(params, x[:, :3], options, mask=mask[:, :3], state=state)
        for k in range(3, 6):
            last, state = attention.step(params, state, x[:, k], options, mask=mask[:, k], reset=reset[:, k])
        return y, last

    arguments = (x, np.full(3, 6, np.int32), mask, reset)
    y, last = jax.export.export(jax.jit(run))(params, *map(shape, arguments)).call(params, *arguments)
    expected = slow_apply(params, x, options, mask=mask, reset=reset)
    assert relative_error(y, expected) < 1e-5
    assert relative_error(last, expected[:, -1]) < 1e-5


def test_parameters():
    options = Options(positions="learned")
    params = attention.init(jax.random.key(0), 64, options, depth=2, length=50)
    assert set(params) == {f"{n}_{part}" for n in "qkvo" for part in ("kernel", "bias")} | {"positions"}
    assert params["positions"].shape == (50, 64)
    assert all(leaf.dtype == np.float32 for leaf in params.values())
    assert abs(np.std(params["q_kernel"]) * 8 - 1) < 0.05
    assert not any(np.array_equal(params["q_kernel"], params[f"{n}_kernel"]) for n in "kvo")
    assert set(attention.init(jax.random.key(0), 8, Options(bias=False))) == {f"{n}_kernel" for n in "qkvo"}


def test_refusals():
    for bad, message in (
        ({"heads": 0}, r"heads must lie in 1\.\.65536, got 0"),
        ({"window": -1}, r"window must lie in 0\.\.1073741824, got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            Options(**bad)
    with pytest.raises(ValueError, match="heads must divide the width; got 4 heads for a width of 6"):
        attention.init(jax.random.key(0), 6, Options())
    with pytest.raises(ValueError, match="rotary positions need an even width per head; got 3"):
        attention.init(jax.random.key(0), 12, Options())
    both = Options(causal=False)
    params, x = jax.tree.map(jnp.asarray, draw(both, (2, 3), np.float32))
    for function in attention.discretize, functools.partial(attention.init_state, batch=2):
        with pytest.raises(ValueError, match="two directions has no recurrent mode"):
            function(params, both)
    state = init_state(params, Options(), 2, max_length=3)
    with pytest.raises(ValueError, match="two directions"):
        attention.apply(params, x, both, state=state)
    with pytest.raises(ValueError, match="needs a max_length"):
        init_state(params, Options(), 2)
    with pytest.raises(ValueError, match="takes no rate"):
        attention.discretize(params, Options(), rate=2.0)
    with pytest.raises(ValueError, match="takes no rate"):
        attention.apply(params, x, both, rate=2.0)
    assert mixers.find("attention") is attention
    assert mixers.ability(attention, "CAUSAL", Options()) and not mixers.ability(attention, "CAUSAL", both)
    assert mixers.ability(attention, "RATE", both) == "none"
