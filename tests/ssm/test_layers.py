"""What holds for every layer. A new layer is a line in LAYERS and a system in `dense`."""

import functools

import dense
import hypothesis
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
import scipy.linalg
from hypothesis import strategies
from numerics import relative_error

from s5jax.ssm import s4, s4d, s5

# What only an initialisation reads costs no compilation.
LAYERS = {
    "s5": (s5, {}),
    "s5_ptd": (s5, {"init": "ptd-conjugate"}),
    "s4d_lin": (s4d, {}),
    "s4d_legs": (s4d, {"init": "legs"}),
    "s4d_ptd": (s4d, {"init": "ptd-conjugate"}),
    "s4d_scan": (s4d, {"mode": "scan", "backward_skips_current": False}),
    "s4d_inv_bilinear": (s4d, {"init": "inv", "discretization": "bilinear"}),
    "s4d_real_bilinear": (s4d, {"init": "real", "discretization": "bilinear", "B_init": "random"}),
    "s4d_dss": (s4d, {"discretization": "dss", "dss_length": 20, "dt_per_state": True}),
    "s4_legs": (s4, {"rank": 2}),
    "s4_legt": (s4, {"init": "legt", "rank": 2}),
    "s4_fout": (s4, {"init": "fout", "rank": 2}),
    "s4_legs_fout": (s4, {"init": "legs_fout", "rank": 2}),
}


def layers(*names, slow=()):
    """All tests of a layer run in one process: what one has compiled the others use."""
    group, rare = pytest.mark.xdist_group, pytest.mark.slow
    return pytest.mark.parametrize(
        "name", [pytest.param(n, marks=[group(n), rare] if n in slow else group(n)) for n in names]
    )


VARIANTS = set(LAYERS) - {"s5", "s4d_lin", "s4_legs"}
every_layer = layers(*LAYERS, slow={"s5_ptd", "s4d_ptd"})  # the code of others, from another start
every_layer_in_time = layers(*LAYERS, slow=VARIANTS)

H, L = 2, 65
LONG = 63 * L
FULL, SHORT = np.array([L, L]), np.array([L, 22])
# 1700 units in the last place: what powers up to the thousands, and sums in which modes cancel, may cost.
TOLERANCE = 1e-4


def make(name, seed=0, **options):
    """Parameters for H features, none just at its start, where zeros and ones hide mistakes."""
    layer, defaults = LAYERS[name]
    options = layer.Options(**{"state_size": 8, **defaults, **options})
    rng, params = np.random.default_rng(seed), layer.init(jax.random.key(seed), H, options)
    return layer, {n: jnp.asarray(v + 0.1 * rng.normal(size=v.shape), v.dtype) for n, v in params.items()}, options


def draw(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


W, W_STATE = draw(LONG, H, seed=2), draw(256, seed=3)


def rolled_out(layer, params, u, options, start, step_rescale=1.0):
    """(..., L, H), one `step` after the other."""

    def advance(state, u_k):
        return layer.step(params, state, u_k, options, step_rescale=step_rescale)

    state, y = jax.lax.scan(advance, start, jnp.moveaxis(u, -2, 0))
    return jnp.moveaxis(y, 0, -2), state


def complex_start(pairs):
    return jax.lax.complex(pairs[..., 0], pairs[..., 1])


def pairs(x):
    return np.stack([x.real, x.imag], -1)


@functools.cache
def outputs(layer, options):
    return jax.jit(lambda params, u: layer.apply(params, u, options))


@functools.cache
def every_way(layer, options):
    """(y, last state or None) by `apply` from zero, by `apply` from a state, and by `step`: compiled once for all
    questions."""

    def ways(params, u, start, step_rescale, lengths):
        start = complex_start(start)
        apply = functools.partial(layer.apply, params, u, options, step_rescale=step_rescale, lengths=lengths)
        with_states = apply(initial_state=start, return_state=True)
        return (apply(), None), with_states, rolled_out(layer, params, u, options, start, step_rescale)

    return jax.jit(ways)


@functools.cache
def gradients(layer, options, by, states):
    """Of a loss that sees every valid output, and with `states` the last one, no two of them alike; and these."""

    def loss(args, lengths):
        params, u, step_rescale = args["params"], args["u"], args["step_rescale"]
        start = complex_start(args["start"]) if states else None
        if by == "step":
            y, x = rolled_out(layer, params, u, options, start, step_rescale)
        else:
            apply = functools.partial(layer.apply, params, u, options, step_rescale=step_rescale, lengths=lengths)
            y, x = apply(initial_state=start, return_state=True) if states else (apply(), None)
        valid = np.arange(y.shape[1])[None, :, None] < lengths[:, None, None]
        seen = jnp.sum(jnp.where(valid, y * W[None, : y.shape[1]], 0))
        return seen + weighted_state(x.real, x.imag) if states else seen, (y, x)

    def gradient(params, u, start, step_rescale, lengths):
        args = {"params": params, "u": u, "step_rescale": step_rescale, "start": start}
        return jax.grad(loss, has_aux=True)(args, lengths)

    return jax.jit(gradient)


def weighted_state(real, imag):
    return (W_STATE[: real.size].reshape(real.shape) * (real + 2 * imag)).sum()


def loss_of(outputs, last, states=True):
    of_states = weighted_state(*np.moveaxis(np.stack(last), -1, 0)) if states else 0
    return sum((y * W[: len(y)]).sum() for y in outputs) + of_states


def run_all(layer, params, u, options, lengths=None, rescale=1.0, start=None):
    """The dense system on each sequence's valid part: lists of outputs and of last states."""
    system = dense.system(layer, params, options)
    each = range(len(u))
    n = [u.shape[1] for _ in each] if lengths is None else lengths
    rescale = np.broadcast_to(rescale, (len(u), *np.shape(rescale)[1:]))
    rescale = [r[: n[i]] if np.ndim(r) else r for i, r in enumerate(rescale)]
    return zip(*(system.run(u[i, : n[i]], rescale[i], None if start is None else start[i]) for i in each), strict=True)


def assert_runs_close(y, expected, expected_states, states=None):
    for i, run in enumerate(expected):
        assert relative_error(y[i][: len(run)], run) < TOLERANCE
    if states is not None:
        assert relative_error(states, np.stack(expected_states) @ [1, 1j]) < TOLERANCE


def assert_close(actual, expected):
    for name, value in expected.items():
        assert relative_error(actual[name], value) < TOLERANCE, name


def padded(u, lengths, filler=np.nan):
    return np.where(np.arange(u.shape[1])[:, None] < lengths[:, None, None], u, np.float32(filler))


# --- values ---


@every_layer_in_time
@hypothesis.settings(max_examples=8, derandomize=True, deadline=None, database=None)
@hypothesis.given(
    size=strategies.sampled_from([(8, 1), (2, 131), (16, 50)]),  # each is a compilation
    Delta=strategies.floats(1e-4, 0.3),
    seed=strategies.integers(0, 2**16),
)
def test_the_impulse_response_is_that_of_the_dense_system(name, size, Delta, seed):
    layer, params, options = make(name, seed, state_size=size[0])
    params["log_step"] = jnp.full_like(params["log_step"], np.log(Delta))
    impulses = np.zeros((H, size[1], H), np.float32)
    impulses[:, 0] = np.eye(H)
    assert_runs_close(outputs(layer, options)(params, impulses), *run_all(layer, params, impulses, options))


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
@every_layer_in_time
def test_apply_and_step_are_the_dense_recurrence_at_any_step_size(name, factor):
    layer, params, options = make(name)
    u, start = draw(2, L, H), draw(2, *layer.initial_state(params).shape, 2, seed=4)
    (y, _), *from_start = every_way(layer, options)(params, u, start, np.float32(factor), FULL)
    assert_runs_close(y, *run_all(layer, params, u, options, rescale=factor))
    for y, state in from_start:
        assert_runs_close(y, *run_all(layer, params, u, options, rescale=factor, start=start), state)


@every_layer_in_time
def test_padding_of_nan_changes_no_output_and_no_state(name):
    layer, params, options = make(name)
    u, start = draw(2, L, H), draw(2, *layer.initial_state(params).shape, 2, seed=4)
    (y, _), (y_from_start, state), _ = every_way(layer, options)(params, padded(u, SHORT), start, np.float32(1), SHORT)
    assert_runs_close(y, *run_all(layer, params, u, options, SHORT))
    assert_runs_close(y_from_start, *run_all(layer, params, u, options, SHORT, start=start), state)


@every_layer_in_time
def test_halves_handed_over_equal_the_whole_with_padding_between(name):
    layer, params, options = make(name)
    u, start = draw(2, L, H), draw(2, *layer.initial_state(params).shape, 2, seed=4)
    first, rest = np.array([40, 1]), np.array([25, 21])
    halves = np.full((2, *u.shape), np.nan, np.float32)
    for i in range(2):
        halves[0, i, : first[i]] = u[i, : first[i]]
        halves[1, i, : rest[i]] = u[i, first[i] : first[i] + rest[i]]
    _, (y_1, middle), _ = every_way(layer, options)(params, halves[0], start, np.float32(1), first)
    _, (y_2, end), _ = every_way(layer, options)(params, halves[1], pairs(middle), np.float32(1), rest)
    y = [np.r_[y_1[i, : first[i]], y_2[i, : rest[i]]] for i in range(2)]
    assert_runs_close(y, *run_all(layer, params, u, options, first + rest, start=start), end)


@layers("s5", "s4d_lin", "s4_legs")
def test_one_start_serves_a_batch_and_one_sequence_needs_none(name):
    layer, params, options = make(name)
    u, start = draw(2, 1, H), draw(*layer.initial_state(params).shape, 2, seed=4)

    @jax.jit
    def both(params, u, start):
        start = complex_start(start)
        batch = layer.apply(params, u, options, initial_state=start)
        return batch, layer.apply(params, u[1], options, initial_state=start, return_state=True)

    y, (y_1, end) = both(params, u, start)
    outputs, states = run_all(layer, params, u, options, start=[start, start])
    assert_runs_close(y, outputs, states)
    assert_runs_close(y_1[None], outputs[1:], states[1:], end[None])


# --- gradients ---

# Of other discretisations the gradients are held to what was recorded, in test_recorded_s4.
DIFFERENTIATED = [name for name in LAYERS if "bilinear" not in name and "dss" not in name]


@pytest.mark.parametrize("by", ["apply", "step"])
@layers(*DIFFERENTIATED, slow=VARIANTS)
def test_gradients_are_those_of_the_dense_system_and_padding_has_none(name, by):
    layer, params, options = make(name)
    u, start = draw(2, L, H), draw(2, *layer.initial_state(params).shape, 2, seed=4)
    lengths = SHORT if by == "apply" else FULL
    # S4 with states goes step by step, and takes one factor for all.
    states = by == "step" or layer is not s4
    factors = np.float32([0.5, 1.6] if by == "step" and layer is not s4 else 1.3)
    differentiated = gradients(layer, options, by, states)
    actual, (y, x) = differentiated(params, padded(u, lengths), start, factors, lengths)
    clean = differentiated(params, padded(u, lengths, 0), start, factors, lengths)
    jax.tree.map(np.testing.assert_array_equal, (actual, y, x), (clean[0], *clean[1]))
    assert not actual["u"][1, lengths[1] :].any()

    def run(args):
        u_all = np.concatenate([args["u_1"], u[:, 1:]], 1)
        rescale, begin = args["step_rescale"], args["start"] if states else None
        return run_all(layer, args["params"], u_all, options, lengths, rescale, begin)

    args = {"params": params, "u_1": u[:, :1], "start": start, "step_rescale": factors}
    outputs, last = run(args)
    assert_runs_close(y, outputs, last, x if states else None)
    expected = dense.derivative(lambda args: loss_of(*run(args), states), args)
    assert_close(actual["params"], expected["params"])
    assert_close({**actual, "u_1": actual["u"][:, :1]}, {n: v for n, v in expected.items() if n != "params"})


@layers("s4d_lin", "s4d_scan")
def test_gradients_in_two_directions(name):
    layer, params, options = make(name, bidirectional=True)
    u, lengths, factor = draw(2, 9, H), np.array([9, 4]), np.float32(0.7)
    differentiated = gradients(layer, options, "apply", False)
    actual, (y, _) = differentiated(params, padded(u, lengths), None, factor, lengths)
    clean, _ = differentiated(params, padded(u, lengths, 0), None, factor, lengths)
    jax.tree.map(np.testing.assert_array_equal, actual, clean)

    def run(params):
        return run_all(layer, params, u, options, lengths, factor)

    assert_runs_close(y, *run(params))
    assert_close(actual["params"], dense.derivative(lambda p: loss_of(*run(p), False), params))


# --- long sequences ---


@layers("s5", "s4d_lin", "s4_legs")
def test_long_sequences(name):
    layer, params, options = make(name)
    u = draw(2, LONG, H)
    expected = list(run_all(layer, params, u, options))
    state, rolled = np.zeros((2, *layer.initial_state(params).shape, 2), np.float32), []
    for part in np.split(u, LONG // L, axis=1):  # of the length compiled for other tests
        *_, (y, x) = every_way(layer, options)(params, part, state, np.float32(1), FULL)
        state = pairs(x)
        rolled.append(y)
    assert_runs_close(np.concatenate(rolled, 1), *expected, x)
    if layer is not s4:  # whose gradients are compared at 1000 steps, in test_scan and test_convolution
        assert_runs_close(outputs(layer, options)(params, u), *expected)
        return

    lengths = np.array([LONG, LONG])
    actual, (y, _) = gradients(layer, options, "apply", False)(params, u, None, np.float32(1), lengths)
    assert_runs_close(y, *expected)
    for parameter, value in params.items():
        along = draw(*value.shape, seed=5)  # in one direction, since each takes a pass over the sequences

        def loss(t, parameter=parameter, value=np.asarray(value), along=along):
            return loss_of(*run_all(layer, {**params, parameter: value + t * along}, u, options), False)

        gradient = actual["params"][parameter]
        error = np.vdot(gradient, along) - dense.derivative(loss, 0.0)
        assert abs(error) < TOLERANCE * np.linalg.norm(gradient) * np.linalg.norm(along), parameter


# --- irregular sampling ---


@layers("s5", "s4d_lin")
def test_a_step_size_for_each_step_is_the_exact_solution_between_samples(name):
    layer, params, options = make(name)
    u, start = draw(2, 17, H), draw(2, *layer.initial_state(params).shape, 2, seed=4)
    factors = np.random.default_rng(0).uniform(0, 3, (2, 17)).astype(np.float32)
    factors[0, 3] = 0  # two samples at the same time
    lengths = np.array([17, 6])
    actual, (y, state) = gradients(layer, options, "apply", True)(params, padded(u, lengths), start, factors, lengths)

    def run(args):
        return run_all(layer, args["params"], u, options, lengths, args["step_rescale"], args["start"])

    args = {"params": params, "start": start, "step_rescale": factors}
    assert_runs_close(y, *run(args), state)
    expected = dense.derivative(lambda args: loss_of(*run(args)), args)
    assert not expected["step_rescale"][1, 6:].any()
    assert_close(actual["params"], expected.pop("params"))
    assert_close(actual, expected)


@layers("s5", "s4d_lin")
def test_a_step_size_for_each_step_serves_a_batch_in_two_directions(name):
    layer, params, options = make(name, bidirectional=True)
    u, lengths, factors = draw(2, 9, H), np.array([9, 4]), np.linspace(0.2, 3, 9, dtype=np.float32)
    apply = jax.jit(functools.partial(layer.apply, options=options))
    y = apply(params, padded(u, lengths), step_rescale=factors, lengths=lengths)
    assert_runs_close(y, *run_all(layer, params, u, options, lengths, factors[None].repeat(2, 0)))


@pytest.mark.parametrize("bidirectional", [False, True])
@layers("s5", "s4d_lin")
def test_step_sizes_of_padding_have_no_part(name, bidirectional):
    layer, params, options = make(name, bidirectional=bidirectional)
    u, lengths, factors = draw(2, 9, H), np.array([9, 4]), np.linspace(0.2, 3, 9, dtype=np.float32)[None].repeat(2, 0)

    @jax.jit
    def differentiated(params, factors):
        def loss(params, factors):
            y = layer.apply(params, jnp.asarray(u), options, step_rescale=factors, lengths=jnp.asarray(lengths))
            return jnp.sum(jnp.where(np.arange(9)[:, None] < lengths[:, None, None], y, 0) ** 2)

        return jax.value_and_grad(loss, argnums=(0, 1))(params, factors)

    clean, dirty = (differentiated(params, np.where(np.arange(9) < lengths[:, None], factors, x)) for x in (1, np.nan))
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)
    assert np.isfinite(clean[0])


@layers("s5", "s4d_lin", "s4_legs", slow={"s4d_lin"})
def test_inputs_of_half_precision(name):
    layer, params, options = make(name)
    u = jnp.asarray(draw(9, H), jnp.bfloat16)

    def loss(params, u):
        y = layer.apply(params, u, options)
        return jnp.sum(jnp.sin(y)), y

    both = jax.jit(jax.grad(loss, (0, 1), has_aux=True))
    expected, exact = both(params, u.astype(jnp.float32))
    with jax.numpy_dtype_promotion("standard"):
        gradients, y = both(params, u)
    assert relative_error(y, exact) < 1e-5 and y.dtype == jnp.float32
    assert gradients[1].dtype == jnp.bfloat16 and relative_error(gradients[1].astype(jnp.float32), expected[1]) < 0.01
    for parameter in params:
        assert relative_error(gradients[0][parameter], expected[0][parameter]) < 1e-4, parameter


@layers("s5", "s4d_lin", "s4_legs")
def test_a_sequence_without_steps_is_refused(name):
    layer, params, options = make(name)
    with pytest.raises(ValueError, match="a sequence has at least one step"):
        layer.apply(params, jnp.zeros((2, 0, H)), options)


def test_the_exponential_that_stands_for_exact_solutions_is_scipys():
    layer, params, options = make("s4d_lin")
    system = dense.system(layer, params, options)
    A, B = system.Delta[:, None] * system.A, system.Delta[:, None] * system.B
    M = np.r_[np.c_[A, B], np.zeros((H, len(A) + H))]
    for factor in (0, 1e-3, 1, 40):
        assert relative_error(dense.exponential(factor * M), scipy.linalg.expm(factor * M)) < 1e-12


def test_s4_takes_one_step_size():
    layer, params, options = make("s4_legs")
    # The annotations refuse it before, where they are checked.
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(ValueError, match="one step_rescale for all steps"):
            layer.apply(params, jnp.zeros((4, H)), options, step_rescale=jnp.ones(4))
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


# --- memory ---


def temporaries(f, *args) -> int:
    """Bytes that the compiled function holds besides arguments and results."""
    return jax.jit(f).lower(*args).compile().memory_analysis().temp_size_in_bytes


def test_irregular_sampling_takes_the_memory_of_states():
    P, features = 32, 128
    options = s5.Options(state_size=2 * P, scan_method="sequential")
    params = s5.init(jax.random.key(0), features, options)

    def loss(params, u, factors):
        return jnp.sum(s5.apply(params, u, options, step_rescale=factors) ** 2)

    size = temporaries(jax.grad(loss), params, jnp.zeros((512, features)), jnp.ones(512))
    assert size < 512 * P * features * 8 / 4  # a matrix for each step, complex


def test_a_kernel_takes_no_memory_for_every_power():
    features, N, length = 256, 64, 16384
    options = s4d.Options(state_size=N)  # half of the N are stored
    params = jax.eval_shape(functools.partial(s4d.init, d_model=features, options=options), jax.random.key(0))

    def kernel(params):
        return s4d.kernel(params, length, options)

    def gradient(params):
        return jax.grad(lambda params: jnp.sum(kernel(params) ** 2))(params)

    for f in (kernel, gradient):
        memory = jax.jit(f).lower(params).compile().memory_analysis()
        size = memory.temp_size_in_bytes + memory.output_size_in_bytes + memory.argument_size_in_bytes
        assert size < 8 * features * N * length / 8


# --- what else a layer offers ---


@every_layer_in_time
@pytest.mark.parametrize("bidirectional", [False, True])
def test_transfer_function_is_a_dense_solve(name, bidirectional):
    layer, params, options = make(name, bidirectional=bidirectional)
    frequencies = np.array([[0.3 + 2j, 5j], [0.4, -0.2 - 7j]], np.complex64)
    G = jax.jit(functools.partial(layer.transfer_function, options=options))(params, frequencies)
    assert G.shape == (2, 2, H, H)
    system = dense.system(layer, params, options)
    for index, s in np.ndenumerate(frequencies):
        assert relative_error(G[index], system.transfer(complex(s))) < 1e-5


@every_layer
def test_initial_parameters(name):
    layer, defaults = LAYERS[name]
    options = layer.Options(state_size=8, **defaults)
    params = layer.init(jax.random.key(0), H, options)
    assert all(value.dtype == jnp.float32 for value in params.values())
    assert set(layer.SSM_PARAMS) <= set(params)
    assert (layer.Lambda(params, options).real < 0).all()
    assert not layer.initial_state(params, (3, 2)).any() and layer.initial_state(params, (3, 2)).shape[:2] == (3, 2)


@layers("s5", "s4d_lin", "s4_legs")
def test_two_directions_have_no_state(name):
    layer, params, options = make(name, bidirectional=True)
    state = layer.initial_state(params)
    with pytest.raises(ValueError, match="two directions"):
        layer.apply(params, jnp.zeros((4, H)), options, initial_state=state)
    with pytest.raises(ValueError, match="two directions"):
        layer.apply(params, jnp.zeros((4, H)), options, return_state=True)
    with pytest.raises(ValueError, match="two directions"):
        layer.step(params, state, jnp.zeros(H), options)
