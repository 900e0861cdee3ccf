"""What S5 and the LRU do with rates, resets, missing samples and states, against a loop in float64 NumPy; and the
transformations of jax that they go through."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numerics import relative_error

from s5jax.mixers import lru, s5

pytestmark = pytest.mark.slow  # test_contract holds every mixer to the same every day

MIXERS = pytest.mark.parametrize("mixer", [s5, lru])
H, L, LENGTHS = 3, 12, (12, 7, 5)
RESETS = ((0, 4, 9), (3,), (5,))  # the last stands in the padding
MISSING = ((2, 4), (6,), (0, 1))


def system(mixer, params, options):
    """gap -> (multipliers, B), and C of each direction, complex128."""
    p = {name: np.asarray(x, np.float64) for name, x in params.items()}
    if mixer is lru:
        log = -np.exp(p["nu_log"]) + 1j * np.exp(p["theta_log"])
        B = np.exp(p["gamma_log"])[:, None] * (p["B_re"] + 1j * p["B_im"])
        C = [p[f"{name}_re"] + 1j * p[f"{name}_im"] for name in ("C", "C2") if f"{name}_re" in p]
        return lambda gap: (np.exp(gap * log), B), C
    Lambda, Delta, B = p["Lambda_re"] + 1j * p["Lambda_im"], np.exp(p["log_step"][:, 0]), p["B"] @ [1, 1j]
    C = [2 * p[name] @ [1, 1j] for name in ("C", "C1", "C2") if name in p]

    def discrete(gap):
        a = np.exp(Lambda * Delta * gap)
        return a, ((a - 1) / Lambda)[:, None] * B

    return discrete, C


def loop(mixer, params, options, x, gaps, start=None):
    """One sequence from its first sample to its last."""
    discrete, C = system(mixer, params, options)
    y = x * np.asarray(params["D"], np.float64)
    h = np.zeros(C[0].shape[1], complex) if start is None else start
    for k in range(len(x)):
        a, B = discrete(gaps[k])
        h = a * h + B @ x[k]
        y[k] += (C[0] @ h).real
    end = h
    if len(C) == 2:
        h = np.zeros_like(h)
        for k in reversed(range(len(x))):
            a, B = discrete(gaps[k + 1] if k + 1 < len(x) else 1.0)  # the gap that the state crosses
            h = a * h + B @ x[k]
            y[k] += (C[1] @ h).real
    return y, end


def expected(mixer, params, options, x, rate, starts=None, resets=RESETS, missing=MISSING):
    """Valid outputs and final states: each piece between resets is a sequence of its own."""
    outputs, ends = [], []
    for i, length in enumerate(LENGTHS):
        cuts = [0, *(k for k in resets[i] if 0 < k < length), length]
        u = np.array(x[i], np.float64)
        u[list(missing[i])] = 0
        start = None if starts is None or 0 in resets[i] else starts[i]
        for first, last in itertools.pairwise(cuts):
            y, start = loop(mixer, params, options, u[first:last], np.asarray(rate)[i, first:last], start)
            outputs.append(y)
            start, end = None, start
        ends.append(end)
    return np.concatenate(outputs), np.stack(ends)


def valid(y):
    return jnp.concatenate([y[i, :length] for i, length in enumerate(LENGTHS)])


def flags(steps):
    return jnp.asarray([[k in where for k in range(L)] for where in steps])


def case(mixer, seed=0, double=False, **options):
    rng, options = np.random.default_rng(seed), mixer.Options(state_size=6, **options)
    params = mixer.init(jax.random.key(1), H, options)
    dtype = np.float64 if double else np.float32
    params = {name: np.asarray(x, dtype) for name, x in params.items()}
    arrays = params, rng.normal(size=(3, L, H)).astype(dtype), rng.uniform(0.3, 3, (3, L)).astype(dtype)
    params, x, rate = arrays if double else jax.tree.map(jnp.asarray, arrays)  # else jax would narrow them
    return params, options, x, rate


@MIXERS
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("double", [False, True])
def test_rates_resets_and_missing_samples(mixer, bidirectional, double):
    """Outputs, and the derivative along a direction against a difference of fourth order."""
    params, options, x, rate = case(mixer, double=double, bidirectional=bidirectional)
    lengths, mask, reset = np.array(LENGTHS, np.int8), flags(MISSING), flags(RESETS)
    after = np.arange(L) >= np.array(LENGTHS)[:, None]
    w = np.random.default_rng(5).normal(size=(sum(LENGTHS), H)).astype(x.dtype)

    def value(params, x, rate, w, lengths):
        x = jnp.where((mask | after)[..., None], jnp.nan, x)
        rate = jnp.where(after, jnp.nan, rate)
        y = valid(mixer.apply(params, x, options, lengths=lengths, mask=mask, reset=reset, rate=rate)[0])
        return jnp.sum(y * w), y

    with jax.enable_x64(double):
        gradients, y = jax.jit(jax.grad(value, argnums=(0, 1, 2), has_aux=True))(params, x, rate, w, lengths)
    assert y.dtype == x.dtype
    tolerance = 1e-10 if double else 1e-5
    assert relative_error(y, expected(mixer, params, options, x, rate)[0]) < tolerance

    rng, args = np.random.default_rng(6), jax.tree.map(np.float64, (params, x, rate))
    towards = jax.tree.map(lambda v: rng.normal(size=v.shape), args)

    def exact(t):
        moved = jax.tree.map(lambda v, d: v + t * d, args, towards)
        return (w * expected(mixer, moved[0], options, *moved[1:])[0]).sum()

    h = 3e-5
    slope = (8 * (exact(h) - exact(-h)) - (exact(2 * h) - exact(-2 * h))) / (12 * h)
    found = sum(np.sum(np.float64(g) * d) for g, d in zip(*map(jax.tree.leaves, (gradients, towards)), strict=True))
    assert abs(found - slope) < (1e-8 if double else 1e-4) * abs(slope)
    assert not np.asarray(gradients[1])[np.asarray(mask) | after].any() and not np.asarray(gradients[2])[after].any()


@MIXERS
@pytest.mark.parametrize("bidirectional", [False, True])
def test_one_rate_for_a_sequence(mixer, bidirectional):
    params, options, x, _ = case(mixer, bidirectional=bidirectional)
    rate = jnp.float32([0.5, 1, 2.5])
    y, _ = jax.jit(mixer.apply, static_argnums=2)(params, x, options, lengths=jnp.asarray(LENGTHS), rate=rate)
    for i, length in enumerate(LENGTHS):
        # A constant rate also holds at the end, where no state comes in.
        alone = loop(mixer, params, options, np.float64(x[i, :length]), np.full(length, rate[i]))[0]
        if bidirectional and mixer is s5:  # gamma of the last sample is of the sequence's rate
            full = mixer.apply(params, x[i : i + 1, :length], options, rate=jnp.float32(rate[i]))[0][0]
            assert relative_error(y[i, :length], full) < 1e-5
        else:
            assert relative_error(y[i, :length], alone) < 1e-5


@MIXERS
def test_states_handed_over(mixer):
    """With resets, missing samples and lengths of which one is 0."""
    params, options, x, rate = case(mixer)
    apply = jax.jit(functools.partial(mixer.apply, options=options))
    rng = np.random.default_rng(3)
    start = (rng.normal(size=(3, mixer.init_state(params, options, 3).shape[1], 2)) @ [1, 1j]).astype(np.complex64)
    how = {"lengths": jnp.asarray(LENGTHS), "mask": flags(MISSING), "reset": flags(RESETS)}
    y, end = apply(params, x, state=start, rate=rate, **how)
    exact, ends = expected(mixer, params, options, x, rate, starts=start)
    assert relative_error(valid(y), exact) < 1e-5 and relative_error(end, ends) < 1e-5
    _, same = apply(params, x, state=start, rate=rate, **{**how, "lengths": jnp.asarray([0, 1, 0])})
    np.testing.assert_array_equal(same[::2], start[::2])

    state, rolled = jnp.asarray(start), []
    cell = mixer.discretize(params, options, rate=jnp.float32([0.5, 1, 2]))
    step = jax.jit(functools.partial(mixer.step, options=options))
    for k in range(L):
        u = jnp.where(how["mask"][:, k, None], jnp.nan, x[:, k])
        y_k, state = step(cell, state, u, mask=how["mask"][:, k], reset=how["reset"][:, k])
        rolled.append(y_k)
    how.pop("lengths")
    y, end = apply(params, x, state=start, rate=jnp.float32([0.5, 1, 2]), **how)
    assert relative_error(jnp.stack(rolled, 1), y) < 1e-5 and relative_error(state, end) < 1e-5


@MIXERS
@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_kernel_is_the_response_to_an_impulse(mixer, bidirectional):
    params, options, _, _ = case(mixer, bidirectional=bidirectional)
    K = mixer.kernel(params, L, options, rate=1.5)
    assert K.shape == (1 + bidirectional, H, H, L)
    discrete, C = system(mixer, params, options)
    a, B = discrete(1.5)
    for direction in range(1 + bidirectional):
        exact = np.einsum("op,pl,pi->oil", C[direction], a[:, None] ** np.arange(L), B).real
        assert relative_error(K[direction], exact) < 1e-5


@MIXERS
def test_forward_mode_with_the_plain_scan(mixer):
    params, options, x, _ = case(mixer, bidirectional=True, scan_method="plain")
    f = jax.jit(lambda params, x: mixer.apply(params, x, options)[0])
    towards = jax.tree.map(lambda v: np.random.default_rng(1).normal(size=v.shape).astype(np.float32), (params, x))
    y, y_dot = jax.jvp(functools.partial(f, params), (x,), (towards[1],))
    assert relative_error(y_dot, f(params, towards[1])) < 1e-5  # linear in x
    y_lin, linear = jax.linearize(f, params, x)
    w = jax.random.normal(jax.random.key(0), x.shape)
    transposed = jax.vjp(f, params, x)[1](w)
    pairing = sum(jnp.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, (transposed, towards)), strict=True))
    assert relative_error(y_lin, y) < 1e-6
    assert float(jnp.vdot(linear(*towards), w)) == pytest.approx(float(pairing), rel=1e-4)


@MIXERS
def test_hessian_vector_products_under_checkpoint_and_vmap(mixer):
    results = []
    for method in ("plain", "sequential"):
        params, options, x, _ = case(mixer, scan_method=method)

        def loss(params, x=x, options=options):
            return jnp.sum(jnp.sin(mixer.apply(params, x, options)[0]))

        def hvp(params, loss=loss):
            return jax.jvp(jax.grad(jax.checkpoint(loss)), (params,), (params,))[1]

        seeds = jax.tree.map(lambda v: np.stack([v, 0.9 * v]), params)
        results.append(jax.jit(jax.vmap(hvp))(seeds))
    for name, value in results[0].items():
        assert relative_error(results[1][name], value) < 1e-4, name


@MIXERS
def test_the_tuned_methods_say_what_to_take_for_forward_mode(mixer):
    params, options, x, rate = case(mixer)
    for how in ({}, {"rate": rate}):
        f = lambda x, how=how: mixer.apply(params, x, options, **how)[0]  # noqa: E731
        for g in (f, jax.jit(f)):
            with pytest.raises(TypeError, match='scan_method="plain"'):
                jax.jvp(g, (x,), (x,))
    # ... and none of it stands in the way of reverse mode
    jax.jit(jax.grad(lambda x: jnp.sum(jax.checkpoint(f)(x))))(x)


@MIXERS
def test_a_batch_of_any_size_is_exported(mixer):
    params, options, x, rate = case(mixer, bidirectional=True)
    reset = flags(RESETS)
    (B,) = jax.export.symbolic_shape("B")

    def value(x, rate, reset, lengths):
        y, _ = mixer.apply(params, x, options, lengths=lengths)
        z, _ = mixer.apply(params, x, options, rate=rate, reset=reset)
        return jnp.sum(jnp.sin(y) * z)

    f = jax.jit(jax.value_and_grad(value, argnums=(0, 1)))
    shapes = [jax.ShapeDtypeStruct((B, *v.shape[1:]), v.dtype) for v in (x, rate, reset, np.array(LENGTHS, np.int32))]
    exported = jax.export.export(f)(*shapes)
    args = (jnp.asarray(x), jnp.asarray(rate), reset, jnp.asarray(LENGTHS, jnp.int32))
    for got, want in zip(*map(jax.tree.leaves, (exported.call(*args), f(*args))), strict=True):
        assert relative_error(got, want) < 1e-5
