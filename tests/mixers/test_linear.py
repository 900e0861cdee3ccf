"""S4D and S4 against dense float64 systems: every argument of `apply`, every way to compute it."""

import functools
import itertools

import dense
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numerics import relative_error

from s5jax.mixers import s4, s4d

pytestmark = pytest.mark.slow  # test_contract holds every mixer to the same every day

H = 2
CASES = {  # the slow ones share most of their code with the others
    "s4d": (s4d, {"state_size": 4}),
    "s4d-scan": (s4d, {"state_size": 4, "mode": "scan", "backward_skips_current": False, "discretization": "bilinear"}),
    "s4": (s4, {"state_size": 4, "rank": 2}),
    "s4-overlapping": (s4, {"state_size": 4, "rank": 1, "backward_skips_current": False}),
}
cases = pytest.mark.parametrize(
    "name", ["s4d", "s4", *(pytest.param(name, marks=pytest.mark.slow) for name in ("s4d-scan", "s4-overlapping"))]
)


def make(name, dtype=np.float32, **options):
    """Parameters away from their start, where zeros and ones hide mistakes."""
    mixer, defaults = CASES[name]
    options = mixer.Options(dt_min=0.05, dt_max=0.3, **{**defaults, **options})
    rng, params = np.random.default_rng(0), mixer.init(jax.random.key(0), H, options)
    return (
        mixer,
        {n: jnp.asarray(np.asarray(v) + 0.1 * rng.normal(size=v.shape), dtype) for n, v in params.items()},
        options,
    )


def draw(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def pairs(z):
    return np.stack([np.real(z), np.imag(z)], -1)


def complex_of(p):
    return jax.lax.complex(p[..., 0], p[..., 1])


W = draw(60, H, seed=2)


def dense_runs(mixer, params, options, args, lengths):
    """Outputs and last states of each sequence's valid part."""
    system = dense.system(mixer, params, options)
    for i, n in enumerate(lengths):
        rate = args.get("rate", 1.0)
        rate = rate[i] if np.ndim(rate) else rate
        each = {name: args[name][i, :n] for name in ("reset", "mask") if name in args}
        start = args["state"][i] if "state" in args else None
        yield system.run(args["x"][i, :n], rate[:n] if np.ndim(rate) else rate, start, **each)


def dense_loss(*args):
    total = 0
    for y, last in dense_runs(*args):
        total = total + (W[: len(y)] * y).sum() + ((last * [1, 2]).sum() if "state" in args[3] else 0)
    return total


@functools.cache
def differentiated(mixer, options):
    """Gradients by parameters and arrays, outputs and last states, of `apply` under jit."""

    def loss(arrays, fixed):
        x, rate, state = (arrays.get(name) for name in ("x", "rate", "state"))
        state = None if state is None else complex_of(state)
        y, last = mixer.apply(arrays["params"], x, options, rate=rate, state=state, **fixed)
        valid = np.arange(x.shape[1])[None] < fixed["lengths"][:, None]
        total = jnp.sum(jnp.where(valid[..., None], y * W[None, : y.shape[1]].astype(y.dtype), 0))
        total = total if last is None else total + jnp.sum(last.real + 2 * last.imag)
        return total, (y, last)

    return jax.jit(jax.grad(loss, has_aux=True))


def check(mixer, params, options, lengths, tolerance=1e-5, slope=1e-4, **args):
    """Outputs, states and gradients are the dense ones, whatever stands in padding and at missing samples."""
    lengths = np.asarray(lengths)
    after = np.arange(args["x"].shape[1])[None] >= lengths[:, None]
    dirty = dict(args)
    absent = after | args["mask"] if "mask" in args else after
    dirty["x"] = np.where(absent[..., None], np.float32(np.nan), args["x"])
    if np.ndim(args.get("rate", 1.0)) == 2:
        dirty["rate"] = np.where(after, np.float32(np.nan), args["rate"])
    arrays = {"params": params, **{n: jnp.asarray(v) for n, v in dirty.items() if n in ("x", "rate", "state")}}
    fixed = {"lengths": jnp.asarray(lengths), **{n: jnp.asarray(v) for n, v in args.items() if n in ("reset", "mask")}}
    gradients, (y, last) = differentiated(mixer, options)(arrays, fixed)
    assert y.dtype == params["D"].dtype
    for i, (expected, state) in enumerate(dense_runs(mixer, params, options, args, lengths)):
        assert relative_error(y[i, : lengths[i]], expected) < tolerance
        if last is not None:
            assert relative_error(last[i], state @ [1, 1j]) < tolerance
    assert not np.asarray(gradients["x"])[absent].any()
    for name, value in {**params, **{n: v for n, v in args.items() if n in ("x", "rate", "state")}}.items():
        gradient = gradients["params"][name] if name in params else gradients[name]

        def moved(v, name=name):
            p, a = ({**params, name: v}, args) if name in params else (params, {**args, name: v})
            return dense_loss(mixer, p, options, a, lengths)

        assert relative_error(gradient, dense.derivative(moved, value)) < slope, name


def irregular(B, L):
    rate = np.random.default_rng(5).uniform(0.2, 3, (B, L)).astype(np.float32)
    rate[0, 1] = 0  # two samples at the same time
    return rate


@cases
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("rates", ["none", "one", "sequence", "step"])
def test_rates_and_padding_of_nan(name, bidirectional, rates):
    mixer, params, options = make(name, bidirectional=bidirectional)
    L, rate = 7, {"one": np.float32(0.7), "sequence": np.float32([0.5, 1.6]), "step": irregular(2, 7)}.get(rates)
    check(mixer, params, options, [L, 4], x=draw(2, L, H), **({} if rate is None else {"rate": rate}))


@cases
@pytest.mark.parametrize("rates", ["one", "sequence", "step"])
def test_a_state_goes_in_and_comes_out(name, rates):
    mixer, params, options = make(name)
    L, rate = 6, {"one": np.float32(1.3), "sequence": np.float32([0.5, 1.6, 1]), "step": irregular(3, 6)}[rates]
    state = draw(3, H, 2, 2, seed=4)
    check(mixer, params, options, [L, 4, 0], x=draw(3, L, H), state=state, rate=rate)


@cases
@pytest.mark.parametrize("bidirectional", [False, True])
def test_missing_samples_resets_and_gaps_together(name, bidirectional):
    mixer, params, options = make(name, bidirectional=bidirectional)
    L, rng = 8, np.random.default_rng(3)
    reset = np.zeros((2, L), bool)
    reset[0, [0, 1, 4]] = reset[1, [3, 5, 7]] = True  # some of the second one's are in its padding
    args = {"x": draw(2, L, H), "reset": reset, "mask": rng.random((2, L)) < 0.4, "rate": irregular(2, L)}
    args = args if bidirectional else {**args, "state": draw(2, H, 2, 2, seed=4)}
    check(mixer, params, options, [L, 5], **args)


@cases
@pytest.mark.parametrize("bidirectional", [False, True])
def test_missing_samples_are_zero_inputs_of_the_convolution(name, bidirectional):
    mixer, params, options = make(name, bidirectional=bidirectional)
    mask = np.random.default_rng(3).random((2, 7)) < 0.4
    check(mixer, params, options, [7, 4], x=draw(2, 7, H), mask=mask)


@cases
@pytest.mark.parametrize("bidirectional", [False, True])
def test_three_sequences_in_a_row_equal_each_alone(name, bidirectional):
    mixer, params, options = make(name, bidirectional=bidirectional)
    sizes = (1, 2, 50)
    x, starts = draw(1, sum(sizes), H), np.cumsum((0, *sizes))
    reset = np.isin(np.arange(sum(sizes)), starts)[None]

    def weighted(y, start):
        return jnp.sum(y * W[None, start : start + y.shape[1]]), y

    @jax.jit
    def together(params, x):
        return jax.grad(lambda *a: weighted(mixer.apply(*a, options, reset=jnp.asarray(reset))[0], 0), (0, 1), True)(
            params, x
        )

    alone = jax.jit(
        jax.grad(lambda p, x, start: weighted(mixer.apply(p, x, options)[0], start), (0, 1), True), static_argnums=2
    )
    (params_slope, x_slope), y = together(params, x)
    parts = [alone(params, x[:, a:b], int(a)) for a, b in itertools.pairwise(starts)]
    assert relative_error(y, np.concatenate([y for _, y in parts], 1)) < 1e-5
    assert relative_error(x_slope, np.concatenate([slope[1] for slope, _ in parts], 1)) < 1e-5
    for parameter in params:
        assert relative_error(params_slope[parameter], sum(slope[0][parameter] for slope, _ in parts)) < 1e-4, parameter


@cases
def test_steps_are_the_dense_recurrence(name):
    mixer, params, options = make(name)
    L, rate, start = 6, np.float32([0.5, 1.6]), draw(2, H, 2, 2, seed=4)
    x, mask, reset = draw(2, L, H), np.random.default_rng(1).random((2, L)) < 0.3, np.eye(2, L, 2, bool)

    @jax.jit
    def roll(params, x, mask, reset):
        cell = mixer.discretize(params, options, rate=jnp.asarray(rate))

        def read(state, at):
            x_k, mask_k, reset_k = at
            return mixer.step(cell, state, x_k, options, mask=mask_k, reset=reset_k)[::-1]

        last, y = jax.lax.scan(read, complex_of(start), jax.tree.map(lambda a: jnp.moveaxis(a, 1, 0), (x, mask, reset)))
        return jnp.moveaxis(y, 0, 1), last

    y, last = roll(params, np.where(mask[..., None], np.float32(np.nan), x), mask, reset)
    args = {"x": x, "mask": mask, "reset": reset, "rate": rate, "state": start}
    expected, states = zip(*dense_runs(mixer, params, options, args, [L, L]), strict=True)
    assert relative_error(y, np.stack(expected)) < 1e-5 and relative_error(last, np.stack(states) @ [1, 1j]) < 1e-5
    zero = mixer.init_state(params, options, 3)
    assert zero.shape == (3, H, 2) and zero.dtype == jnp.complex64 and not zero.any()


@cases
@pytest.mark.parametrize("bidirectional", [False, True])
def test_double_precision(name, bidirectional):
    with jax.enable_x64(True):
        mixer, params, options = make(name, np.float64, bidirectional=bidirectional)
        x, rate = draw(2, 7, H).astype(np.float64), irregular(2, 7).astype(np.float64)
        double = {"tolerance": 1e-10, "slope": 1e-8}
        check(mixer, params, options, [7, 4], x=x, **double)
        states = {} if bidirectional else {"state": draw(2, H, 2, 2, seed=4).astype(np.float64)}
        check(mixer, params, options, [7, 4], x=x, **states, **double)
        reset = np.arange(7)[None] == np.array([[3], [2]])
        check(mixer, params, options, [7, 4], x=x, rate=rate, reset=reset, **states, **double)
        if not bidirectional:
            state = mixer.init_state(params, options, 2)
            cell = mixer.discretize(params, options, rate=jnp.float64(2))
            y, state = mixer.step(cell, state, jnp.asarray(x[:, 0]), options)
            assert y.dtype == jnp.float64 and state.dtype == jnp.complex128
        # Drawn in single precision, whatever the default is.
        assert all(v.dtype == jnp.float32 for v in mixer.init(jax.random.key(0), H, options).values())


@cases
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("extra", ["nothing", "sequence", "step"])
def test_forward_mode_of_the_plain_way(name, bidirectional, extra):
    mixer, params, options = make(name, bidirectional=bidirectional, scan_method="plain")
    x = draw(2, 7, H)
    args = {
        "sequence": {"rate": np.float32([0.5, 2])},
        "step": {"rate": irregular(2, 7), "reset": np.eye(2, 7, 3, bool)},
    }
    args = jax.tree.map(jnp.asarray, args.get(extra, {}))
    rng = np.random.default_rng(7)
    along = jax.tree.map(lambda v: jnp.asarray(rng.normal(size=v.shape), v.dtype), (params, x))

    @jax.jit
    def tangents(params, x, dp, dx):
        apply = lambda p, x: mixer.apply(p, x, options, **args)[0]  # noqa: E731
        y, by_x = jax.jvp(lambda x: apply(params, x), (x,), (dx,))
        return y, by_x, apply(params, dx), jax.jvp(apply, (params, x), (dp, dx))[1]

    y, by_x, of_tangent, both = tangents(params, x, *along)
    assert relative_error(by_x, of_tangent) < 1e-5  # the system is linear in x
    args = jax.tree.map(np.asarray, args)

    def dense(t):
        moved = {n: np.asarray(v) + t * np.asarray(along[0][n]) for n, v in params.items()}
        at = {"x": x + t * np.asarray(along[1]), **args}
        return np.stack([y for y, _ in dense_runs(mixer, moved, options, at, [7, 7])])

    assert relative_error(y, dense(0.0)) < 1e-5
    assert relative_error(both, dense(1e-30j).imag / 1e-30) < 1e-4


@cases
def test_seeds_are_an_axis(name):
    mixer, params, options = make(name, bidirectional=True)
    stacked = jax.tree.map(lambda v: jnp.stack([v, 1.1 * v]), params)
    x, rate = jnp.asarray(draw(2, 7, H)), jnp.asarray(irregular(2, 7))

    def slopes(params):
        def loss(params, **args):
            return jnp.sum(jnp.square(mixer.apply(params, x, options, **args)[0]))

        return [jax.value_and_grad(loss)(params), jax.value_and_grad(functools.partial(loss, rate=rate))(params)]

    together = jax.jit(jax.vmap(slopes))(stacked)
    one = jax.jit(slopes)
    for i in range(2):
        alone = one(jax.tree.map(lambda v, i=i: v[i], stacked))
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-4), together, alone)


@cases
def test_two_directions_have_no_recurrent_mode(name):
    mixer, params, options = make(name, bidirectional=True)
    with pytest.raises(ValueError, match="cannot start from a state"):
        mixer.apply(params, jnp.zeros((1, 4, H)), options, state=jnp.zeros((1, H, 2), jnp.complex64))
    for function in (functools.partial(mixer.init_state, batch=1), mixer.discretize):
        with pytest.raises(ValueError, match="a mixer with two directions has no recurrent mode"):
            function(params, options)
    assert not mixer.CAUSAL(options)


@cases
def test_a_sequence_without_steps_is_refused(name):
    mixer, params, options = make(name)
    with pytest.raises(ValueError, match="a sequence must have at least one step"):
        mixer.apply(params, jnp.zeros((2, 0, H)), options)


@cases
def test_time_steps_and_the_rest_of_what_tools_read(name):
    mixer, params, options = make(name)
    np.testing.assert_allclose(mixer.time_step(params, options), np.exp(params["log_step"]), rtol=1e-6)
    assert (mixer.eigenvalues(params, options).real < 0).all()
    s = np.array([0.3 + 2j, 5j], np.complex64)
    G = jax.jit(functools.partial(mixer.transfer_function, options=options))(params, s)
    for i, at in enumerate(s):
        assert relative_error(G[i], dense.system(mixer, params, options).transfer(complex(at))) < 1e-5


@cases
def test_inputs_of_half_precision(name):
    mixer, params, options = make(name)
    x = jnp.asarray(draw(2, 9, H), jnp.bfloat16)

    def loss(x):
        y = mixer.apply(params, x, options)[0]
        return jnp.sum(jnp.sin(y)), y

    both = jax.jit(jax.grad(loss, has_aux=True))
    slope, y = both(x)
    expected, exact = both(x.astype(jnp.float32))
    assert relative_error(y, exact) < 1e-5 and y.dtype == jnp.float32
    assert slope.dtype == jnp.bfloat16 and relative_error(slope.astype(jnp.float32), expected) < 0.01
