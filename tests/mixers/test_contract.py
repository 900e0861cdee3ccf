"""The contract of the mixers: what holds for every one of them.

A new mixer `s5jax/mixers/<name>.py` needs a case in CASES, and a reference in float64 NumPy: a linear one in `dense`,
another one in `attention_reference` or beside it (see `reference`).

Tolerances are relative, in the norm of a whole array: 1e-5 for outputs and 1e-4 for gradients in float32, 1e-10 and
1e-8 in float64.
"""

import contextlib
import dataclasses
import functools
import inspect
import pathlib
import re

import attention_reference
import dense
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import strategies
from numerics import relative_error

from s5jax import mixers


@dataclasses.dataclass(frozen=True)
class Case:
    mixer: str
    options: dict = dataclasses.field(default_factory=dict)
    main: bool = False  # takes part in every test of the everyday suite; other cases in a few of them
    values: float = 1e-5
    """Tolerance of outputs in float32. 1e-4 for HiPPO's low-rank part and for DSS, whose modes cancel in their sum:
    the terms are a hundred times the outputs."""


CASES = {
    "s5": Case("s5", main=True),
    "s5_two": Case("s5", {"bidirectional": True}, main=True),
    "s5_two_in_one_C": Case("s5", {"bidirectional": True, "C_init": "complex_normal"}),
    "s5_bilinear": Case("s5", {"discretization": "bilinear"}),
    "s5_whole": Case("s5", {"conj_sym": False, "clip_eigs": True}),
    "s5_plain": Case("s5", {"scan_method": "plain"}),
    "s5_ptd": Case("s5", {"init": "ptd-conjugate"}),
    "s4d": Case("s4d", main=True),
    "s4d_two": Case("s4d", {"bidirectional": True}, main=True),
    "s4d_two_scan": Case("s4d", {"bidirectional": True, "mode": "scan", "backward_skips_current": False}),
    "s4d_scan": Case("s4d", {"mode": "scan"}),
    "s4d_legs": Case("s4d", {"init": "legs"}),
    "s4d_ptd": Case("s4d", {"init": "ptd-conjugate"}),
    "s4d_inv_bilinear": Case("s4d", {"init": "inv", "discretization": "bilinear"}),
    "s4d_real_bilinear": Case("s4d", {"init": "real", "discretization": "bilinear", "B_init": "random"}),
    "s4d_dss": Case("s4d", {"discretization": "dss", "dss_length": 20, "dt_per_state": True}, values=1e-4),
    "s4": Case("s4", {"rank": 2}, main=True, values=1e-4),
    "s4_two": Case("s4", {"rank": 2, "bidirectional": True}, main=True, values=1e-4),
    "s4_two_current": Case("s4", {"bidirectional": True, "backward_skips_current": False}, values=1e-4),
    "s4_legt": Case("s4", {"init": "legt", "rank": 2}, values=1e-4),
    "s4_fout": Case("s4", {"init": "fout", "rank": 2}, values=1e-4),
    "s4_legs_fout": Case("s4", {"init": "legs_fout", "rank": 2}, values=1e-4),
    "lru": Case("lru", main=True),
    "lru_two": Case("lru", {"bidirectional": True}, main=True),
    "attention": Case("attention", {"heads": 1}, main=True),
    "attention_two": Case("attention", {"heads": 2, "causal": False, "positions": "none"}, main=True),
    "attention_window": Case("attention", {"heads": 1, "window": 5}),
    "attention_learned": Case("attention", {"heads": 2, "positions": "learned", "bias": False}),
}

H, L, SHORT_L = 2, 65, 17
LONG = 63 * L


# --- cases ---


def cases(keep=lambda case: True, rare=lambda case: not case.main):
    """Cases by a condition, slow where they are rare. One process runs all tests of a case: what one test has compiled
    the others use."""
    marked = []
    for name, case in CASES.items():
        if keep(case):
            marks = [pytest.mark.xdist_group(name)] + ([pytest.mark.slow] if rare(case) else [])
            marked.append(pytest.param(name, marks=marks))
    return pytest.mark.parametrize("name", marked)


def is_two(case):
    return case.options.get("bidirectional", False) or case.options.get("causal") is False


def is_linear(case):
    return case.mixer in dense.SYSTEMS


every_case = cases()
causal_cases = cases(lambda case: not is_two(case))
linear_cases = cases(is_linear)
both_precisions = pytest.mark.parametrize("precision", ["float32", "float64"])
FLOAT32, FLOAT64 = "float32", "float64"


def mixer_of(name):
    return mixers.find(CASES[name].mixer)


@functools.cache
def options_of(name, **changed):
    mixer, given = mixer_of(name), CASES[name].options
    small = {field.name: 8 for field in dataclasses.fields(mixer.Options) if field.name == "state_size"}
    return mixer.Options(**{**small, **given, **changed})


def make(name, seed=0, precision=FLOAT32, **changed):
    """A mixer, parameters for H features, none just at its start, where zeros and ones hide mistakes; options."""
    mixer, options = mixer_of(name), options_of(name, **changed)
    rng, params = np.random.default_rng(seed), initial(name, seed, options)
    return mixer, {n: np.asarray(v + 0.1 * rng.normal(size=v.shape), precision) for n, v in params.items()}, options


def made(name, seed=0, **changed):
    """`make` with arrays of jax, for what is called outside `jax.jit`."""
    mixer, params, options = make(name, seed, **changed)
    return mixer, jax.tree.map(jnp.asarray, params), options


@functools.cache
def initial(name, seed, options):
    return {n: np.asarray(v, np.float32) for n, v in mixer_of(name).init(jax.random.key(seed), H, options, length=L).items()}


def able(name, ability):
    return mixers.ability(mixer_of(name), ability, options_of(name))


def reference(name, params, options):
    """A system with `run_batch`, see `dense.System`."""
    mixer = CASES[name].mixer
    if mixer == "attention":
        return attention_reference.system(params, options)
    return dense.system(mixer, params, options)


@contextlib.contextmanager
def computing_in(precision):
    with jax.enable_x64(precision == FLOAT64):
        yield


def tolerances(name, precision):
    return (1e-10, 1e-8) if precision == FLOAT64 else (CASES[name].values, 1e-4)


# --- arguments ---


def draw(*shape, seed=1, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def weights(shape, seed=2):
    """No two alike, and the same for every precision."""
    return draw(*shape, seed=seed)


@functools.cache
def state_shape(name, options):
    """(..., N, 2) of a linear mixer's state as pairs, without the batch."""
    params = initial(name, 0, options)
    return (*jax.eval_shape(lambda p: mixer_of(name).init_state(p, options, 1), params).shape[1:], 2)


def padding(lengths, length):
    return np.arange(length) >= np.asarray(lengths)[:, None]


def everything(name, length=SHORT_L, precision=FLOAT32, only=("lengths", "mask", "reset", "rate", "state")):
    """Three sequences and all arguments that a mixer takes: `x`, `rate` and `state` (pairs), that have derivatives, and
    the others. Padding and missing samples are NaN, and padding is full of resets and missing samples."""
    rng, n = np.random.default_rng(7), [length, length * 2 // 3, 0]
    arguments = {"lengths": np.array(n, np.uint8 if length < 256 else np.int32)} if "lengths" in only else {}
    after = padding(n, length) if "lengths" in only else np.zeros((3, length), bool)
    x, hidden = draw(3, length, H, dtype=precision), after
    if "mask" in only and able(name, "MASK"):
        arguments["mask"] = (rng.random((3, length)) < 0.25) | after
        hidden = hidden | arguments["mask"]
    if "reset" in only and able(name, "RESET"):
        reset = rng.random((3, length)) < 0.1
        reset[:, 4:6] = True  # the sequence that starts at 4 has one step
        reset[1, 0] = True  # the state that is handed in has no say
        arguments["reset"] = reset | after
    if "rate" in only and able(name, "RATE") != "none":
        shape = (3, length) if able(name, "RATE") == "step" else (3,)
        rate = rng.uniform(0.2, 3, shape).astype(precision)
        if rate.ndim == 2:
            rate[0, 3] = 0  # two samples at the same time
            rate[after] = np.nan
        arguments["rate"] = rate
    if "state" in only and able(name, "CAUSAL") and is_linear(CASES[name]):
        arguments["state"] = draw(3, *state_shape(name, options_of(name)), seed=4, dtype=precision)
    return {"x": np.where(hidden[..., None], np.nan, x).astype(precision), **arguments}


def filled(arguments, value):
    """NaN replaced: what stands in padding and at missing samples must not matter."""
    return {n: np.nan_to_num(v, nan=value) if v.dtype.kind == "f" else v for n, v in arguments.items()}


DIFFERENTIABLE = ("x", "rate", "state")


# --- what is computed, compiled once for all that ask ---


def as_state(pairs):
    return None if pairs is None else jax.lax.complex(pairs[..., 0], pairs[..., 1])


def as_pairs(state):
    return None if state is None else jnp.stack([state.real, state.imag], -1)


def applied(mixer, params, options, x, state=None, **arguments):
    y, state = mixer.apply(params, x, options, state=as_state(state), **arguments)
    return y, as_pairs(state)


def rolled_out(mixer, params, options, x, start, *, rate=None, mask=None, reset=None):
    """One `step` after the other, from a state (of any kind): y (B, L, H) and the last state."""
    each = jnp.ndim(rate) == 2 if rate is not None else False

    def cell_of(rate):
        return mixer.discretize(params, options) if rate is None else mixer.discretize(params, options, rate=rate)

    cell = None if each else cell_of(rate)

    def advance(state, inputs):
        x_k, rate_k, mask_k, reset_k = inputs
        cell_k = cell_of(rate_k) if each else cell
        y, state = mixer.step(cell_k, state, x_k, options, mask=mask_k, reset=reset_k)
        return state, y

    steps = jax.tree.map(lambda v: jnp.moveaxis(v, 1, 0), (x, rate if each else None, mask, reset))
    state, y = jax.lax.scan(advance, start, steps)
    return jnp.moveaxis(y, 0, 1), state


def stepped(mixer, params, options, x, state=None, **arguments):
    if state is None:
        start, linear = mixer.init_state(params, options, x.shape[0], max_length=x.shape[1]), False
    else:
        start, linear = as_state(state), True
    y, state = rolled_out(mixer, params, options, x, start, **arguments)
    return y, as_pairs(state) if linear else None


WAYS = {"apply": applied, "step": stepped}


@functools.cache
def computed(mixer, options, way="apply"):
    """f(params, arguments) -> (y, state as pairs or None)."""
    return jax.jit(lambda params, arguments: WAYS[way](mixer, params, options, **arguments))


@functools.cache
def differentiated(mixer, options, way="apply", over=None):
    """f(params, arguments) -> gradients of a loss of all valid outputs and the last state, and these. `over`: axes of
    `jax.vmap` for the two."""

    def loss(inputs, fixed):
        x = inputs["arguments"]["x"]
        y, state = WAYS[way](mixer, inputs["params"], options, **inputs["arguments"], **fixed)
        valid = jnp.ones(y.shape[:2], bool)
        if "lengths" in fixed:
            steps = jnp.arange(y.shape[1], dtype=jnp.int32)
            valid = steps[None] < fixed["lengths"].astype(jnp.int32)[:, None]
        total = jnp.sum(jnp.where(valid[..., None], y * weights(y.shape).astype(x.dtype), 0))
        if state is not None:
            total = total + jnp.sum(state * weights(state.shape, 3).astype(x.dtype))
        return total, (y, state)

    def gradient(params, arguments):
        inputs = {n: v for n, v in arguments.items() if n in DIFFERENTIABLE}
        fixed = {n: v for n, v in arguments.items() if n not in DIFFERENTIABLE}
        gradients, outputs = jax.grad(loss, has_aux=True)({"params": params, "arguments": inputs}, fixed)
        return gradients["params"], gradients["arguments"], outputs

    return jax.jit(gradient if over is None else jax.vmap(gradient, in_axes=over))


def loss_of(outputs, states, arguments):
    """The loss of `differentiated`, from what a reference gives."""
    B, length = arguments["x"].shape[:2]
    W = weights((B, length, H))
    total = sum((y * W[i, : len(y)]).sum() for i, y in enumerate(outputs))
    if arguments.get("state") is not None:
        total = total + (np.stack(states) * weights(arguments["state"].shape, 3)).sum()
    return total


def assert_outputs(expected, y, state=None, *, within):
    outputs, states = expected
    for i, y_i in enumerate(outputs):
        if len(y_i):
            assert relative_error(y[i][: len(y_i)], y_i) < within, i
    if state is not None:
        for i, state_i in enumerate(states):
            assert relative_error(state[i], state_i) < within, i


def assert_close(actual, expected, *, within):
    """Array by array. One that is zero but for rounding, as the gradient of a bias of keys, is held to all of them."""
    size = np.sqrt(sum(np.linalg.norm(value) ** 2 for value in expected.values()))
    for name, value in expected.items():
        if np.linalg.norm(value) > 1e-6 * size:
            assert relative_error(actual[name], value) < within, name
        else:
            assert np.linalg.norm(actual[name]) <= within * size, name


def assert_same(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def visible(arguments):
    """Where an input has a say, (B, L)."""
    hidden = np.zeros(arguments["x"].shape[:2], bool)
    if "lengths" in arguments:
        hidden |= padding(arguments["lengths"], hidden.shape[1])
    if "mask" in arguments:
        hidden |= arguments["mask"]
    return ~hidden


def check_outputs_and_gradients(name, arguments, precision, way="apply", some_x=slice(None)):
    """Against the reference, derivatives element by element (of x for the steps `some_x`), with NaN wherever no value
    may be read; then with other values there, which must change nothing."""
    mixer, params, options = make(name, precision=precision)
    values, gradients = tolerances(name, precision)
    with computing_in(precision):
        f = differentiated(mixer, options, way)
        actual_params, actual, (y, state) = jax.tree.map(np.asarray, f(params, arguments))
        others = jax.tree.map(np.asarray, f(params, filled(arguments, 3.0)))
    assert y.dtype == precision
    valid = ~padding(arguments.get("lengths", [y.shape[1]] * len(y)), y.shape[1])
    assert_same((actual_params, actual, state), (others[0], others[1], others[2][1]))
    np.testing.assert_array_equal(y[valid], others[2][0][valid])

    seen = visible(arguments)
    assert not actual["x"][~seen].any()
    if arguments.get("rate", np.zeros(())).ndim == 2:
        assert not actual["rate"][~valid].any()

    rest = {n: v for n, v in arguments.items() if n not in DIFFERENTIABLE}
    clean = filled({n: v for n, v in arguments.items() if n in DIFFERENTIABLE}, 0.0)
    system = reference(name, params, options)

    def loss(system, inputs):
        return loss_of(*system.run_batch(**inputs, **rest), arguments)

    assert_outputs(system.run_batch(**clean, **rest), y, state, within=values)
    along_params = dense.derivative(lambda p: loss(reference(name, p, options), clean), params)
    assert_close(actual_params, along_params, within=gradients)
    moved = {n: v for n, v in clean.items() if n != "x"}
    x = clean["x"].astype(np.float64)

    def loss_of_some(x_some):
        whole = x.astype(x_some.dtype)
        whole[:, some_x] = x_some
        return loss(system, {**clean, "x": whole})

    expected = dense.derivative(lambda inputs: loss(system, {**clean, **inputs}), moved)
    assert_close(actual, expected, within=gradients)
    assert_close({"x": actual["x"][:, some_x]}, {"x": dense.derivative(loss_of_some, x[:, some_x])}, within=gradients)


# --- the table ---


def test_every_mixer_has_a_case():
    folder = pathlib.Path(mixers.__file__).parent
    names = {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")}
    missing = names - {case.mixer for case in CASES.values()}
    assert not missing, f"mixers without a case in CASES of {__file__}: {', '.join(sorted(missing))}"


@cases(rare=lambda case: False)
def test_what_a_mixer_declares(name):
    mixer, options = mixer_of(name), options_of(name)
    assert mixer.__doc__
    assert isinstance(able(name, "CAUSAL"), bool) and able(name, "CAUSAL") != is_two(CASES[name])
    assert able(name, "RATE") in ("none", "scalar", "step")
    assert able(name, "PADDING") in ("exact", "zeros")
    assert all(isinstance(able(name, n), bool) for n in ("MASK", "RESET", "OWN_RESIDUAL"))
    params = initial(name, 0, options)
    for group, pattern in able(name, "GROUPS").items():
        assert any(re.fullmatch(pattern, leaf) for leaf in params), group
    assert hash(options) == hash(dataclasses.replace(options))
    assert all(field.kw_only for field in dataclasses.fields(options))


# --- values ---


@linear_cases
@hypothesis.settings(max_examples=8, derandomize=True, deadline=None, database=None)
@hypothesis.given(
    size=strategies.sampled_from([(8, 1), (2, 131), (16, 50)]),  # each is a compilation
    Delta=strategies.floats(1e-4, 0.3),
    seed=strategies.integers(0, 2**16),
)
def test_the_impulse_response_is_that_of_the_dense_system(name, size, Delta, seed):
    mixer, params, options = make(name, seed, state_size=size[0])
    if "log_step" in params:
        params["log_step"] = np.full_like(params["log_step"], np.log(Delta))
    length, (within, _) = size[1], tolerances(name, FLOAT32)
    impulses = np.zeros((H, length, H), np.float32)
    impulses[:, 0] = np.eye(H)
    system = reference(name, params, options)
    y, _ = computed(mixer, options)(params, {"x": impulses})
    assert_outputs(system.run_batch(impulses), y, within=within)
    if CASES[name].mixer != "s5" and hasattr(mixer, "kernel"):
        for actual, expected in zip(kernels(mixer, options, length)(params), system.kernel(length), strict=True):
            assert relative_error(actual, expected) < within


@functools.cache
def kernels(mixer, options, length):
    return jax.jit(lambda params, rate=None: mixer.kernel(params, length, options, rate=rate))


@cases(lambda case: case.mixer in ("s4d", "s4"))
@both_precisions
def test_the_kernel_is_that_of_the_dense_system_at_any_rate(name, precision):
    mixer, params, options = make(name, precision=precision)
    system = reference(name, params, options)
    with computing_in(precision):
        K = np.asarray(kernels(mixer, options, 50)(params, np.asarray(1.7, precision)))
    assert K.dtype == precision
    assert relative_error(K, system.kernel(50, np.asarray(1.7, precision)[()])) < tolerances(name, precision)[0]


@functools.cache
def every_way(mixer, options):
    """(y, last state or None) by `apply` from zero and from a state, and by `step`: compiled once for all questions."""

    def ways(params, x, start, rate, lengths):
        timed = {} if rate is None else {"rate": rate}
        from_zero = applied(mixer, params, options, x, lengths=lengths, **timed)
        if start is None:
            return [from_zero]
        with_states = applied(mixer, params, options, x, start, lengths=lengths, **timed)
        return [from_zero, with_states, stepped(mixer, params, options, x, start, **timed)]

    return jax.jit(ways)


FULL, SHORT = np.array([L, L]), np.array([L, 22])


def question(name):
    """x, a start or None, and a rate of 1 or None."""
    start = None
    if able(name, "CAUSAL") and is_linear(CASES[name]):
        start = draw(2, *state_shape(name, options_of(name)), seed=4)
    return draw(2, L, H), start, None if able(name, "RATE") == "none" else np.float32(1)


def padded(x, lengths, filler=np.nan):
    return np.where(padding(lengths, x.shape[1])[..., None], np.float32(filler), x)


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
@every_case
def test_apply_and_step_are_the_reference_at_any_rate(name, factor):
    mixer, params, options = make(name)
    x, start, rate = question(name)
    if rate is None and factor != 1:
        pytest.skip("takes no rate")
    rate = rate if rate is None else np.float32(factor)
    system, (within, _) = reference(name, params, options), tolerances(name, FLOAT32)
    (y, state), *from_start = every_way(mixer, options)(params, x, start, rate, FULL)
    assert state is None  # which nobody asked for
    assert_outputs(system.run_batch(x, rate=rate), y, within=within)
    for y, state in from_start:
        assert_outputs(system.run_batch(x, rate=rate, state=start), y, state, within=within)


@every_case
def test_padding_of_nan_changes_no_output_and_no_state(name):
    mixer, params, options = make(name)
    x, start, rate = question(name)
    system, (within, _) = reference(name, params, options), tolerances(name, FLOAT32)
    (y, _), *from_start = every_way(mixer, options)(params, padded(x, SHORT), start, rate, SHORT)
    assert_outputs(system.run_batch(x, lengths=SHORT), y, within=within)
    for y, state in from_start[:1]:
        assert_outputs(system.run_batch(x, lengths=SHORT, state=start), y, state, within=within)


@causal_cases
def test_halves_handed_over_equal_the_whole_with_padding_between(name):
    mixer, params, options = made(name)
    x, start, rate = question(name)
    first, rest = np.array([40, 1]), np.array([25, 21])
    halves = np.full((2, *x.shape), np.nan, np.float32)
    for i in range(2):
        halves[0, i, : first[i]] = x[i, : first[i]]
        halves[1, i, : rest[i]] = x[i, first[i] : first[i] + rest[i]]
    if start is not None:
        way = every_way(mixer, options)
        _, (y_1, middle), _ = way(params, halves[0], start, rate, first)
        _, (y_2, end), _ = way(params, halves[1], np.asarray(middle), rate, rest)
    else:
        begin = mixer.init_state(params, options, 2, max_length=L)
        part = pieces(mixer, options)
        y_1, middle = part(params, halves[0], begin, first)
        y_2, end = part(params, halves[1], middle, rest)
        end = None
    y = [np.r_[y_1[i, : first[i]], y_2[i, : rest[i]]] for i in range(2)]
    expected = reference(name, params, options).run_batch(x, lengths=first + rest, state=start)
    assert_outputs(expected, y, end, within=tolerances(name, FLOAT32)[0])


@functools.cache
def pieces(mixer, options):
    """`apply` from a state of any kind."""
    return jax.jit(lambda params, x, state, lengths: mixer.apply(params, x, options, state=state, lengths=lengths))


@causal_cases
def test_samples_taken_in_steps_go_on_where_apply_ended(name):
    """A prompt of several lengths by `apply`, then samples one by one, then a piece by `apply` again."""
    mixer, params, options = make(name)
    x, lengths = draw(2, 12, H), np.array([5, 3])

    @jax.jit
    def both(params, x):
        begin = mixer.init_state(params, options, 2, max_length=12)
        y_1, state = mixer.apply(params, x[:, :5], options, state=begin, lengths=jnp.asarray(lengths))
        follow = jnp.stack([x[i, n : n + 4] for i, n in enumerate(lengths)])
        y_2, state = rolled_out(mixer, params, options, follow, state)
        last = jnp.stack([x[i, n + 4 : n + 7] for i, n in enumerate(lengths)])
        y_3, _ = mixer.apply(params, last, options, state=state)
        return y_1, y_2, y_3

    y_1, y_2, y_3 = both(params, x)
    y = [np.concatenate([y_1[i, :n], y_2[i], y_3[i]]) for i, n in enumerate(lengths)]
    expected = reference(name, params, options).run_batch(x, lengths=lengths + 7)
    assert_outputs(expected, y, within=tolerances(name, FLOAT32)[0])


@cases(lambda case: not is_two(case))
def test_a_sequence_of_no_length_keeps_the_state_that_came_in(name):
    mixer, params, options = made(name)
    begin = mixer.init_state(params, options, 2, max_length=8)
    part = pieces(mixer, options)
    _, begin = part(params, draw(2, 3, H), begin, np.array([3, 1]))
    _, state = part(params, np.full((2, 3, H), np.nan, np.float32), begin, np.array([0, 0]))
    if is_linear(CASES[name]):
        assert_same(state, begin)
    follow = draw(2, 3, H, seed=5), np.array([3, 3])
    assert_same(*(part(params, follow[0], s, follow[1])[0] for s in (state, begin)))


# --- gradients ---


@pytest.mark.parametrize("way", ["apply", "step"])
@every_case
def test_gradients_are_those_of_the_reference_and_padding_has_none(name, way):
    """The way that training takes: no state."""
    if way == "step" and is_two(CASES[name]):
        pytest.skip("has no recurrent mode")
    arguments = {"x": draw(2, L, H)}
    if way == "apply":
        arguments = {"x": padded(arguments["x"], SHORT), "lengths": SHORT}
    check_outputs_and_gradients(name, arguments, FLOAT32, way, some_x=slice(1))


@both_precisions
@pytest.mark.parametrize("way", ["apply", "step"])
@cases(lambda case: not is_two(case) and is_linear(case))
@pytest.mark.slow
def test_gradients_from_a_state_at_a_rate(name, way, precision):
    start = draw(2, *state_shape(name, options_of(name)), seed=4, dtype=precision)
    rate = np.array([0.5, 1.6], precision)
    arguments = {"x": draw(2, L, H, dtype=precision), "state": start, "rate": rate}
    if way == "apply":
        arguments = {**arguments, "x": padded(arguments["x"], SHORT).astype(precision), "lengths": SHORT}
    check_outputs_and_gradients(name, arguments, precision, way, some_x=slice(1))


ALL = ("lengths", "mask", "reset", "rate", "state")


@both_precisions
@every_case
def test_all_arguments_at_once(name, precision):
    check_outputs_and_gradients(name, everything(name, precision=precision), precision)


@causal_cases
def test_all_arguments_of_steps_at_once(name):
    arguments = everything(name, precision=FLOAT64, only=("mask", "reset", "rate", "state"))
    if "mask" in arguments and not is_linear(CASES[name]):
        arguments["mask"][:, 0] = False  # attention to nothing is tested in test_attention
    check_outputs_and_gradients(name, arguments, FLOAT64, "step")


@both_precisions
@pytest.mark.parametrize("argument", [*ALL, "mask reset", "rate reset", "rate lengths", "state mask"])
@every_case
@pytest.mark.slow
def test_an_argument_alone(name, argument, precision):
    arguments = everything(name, precision=precision, only=argument.split())
    if not set(argument.split()) <= set(arguments):
        pytest.skip("not understood")
    check_outputs_and_gradients(name, arguments, precision)


@linear_cases
def test_all_arguments_over_many_steps(name, length=300):
    """Values, and derivatives in one direction: blocks of steps, and what crosses from one to the next."""
    mixer, params, options = make(name, precision=FLOAT64)
    arguments = everything(name, length, FLOAT64)
    with computing_in(FLOAT64):
        actual_params, actual, (y, state) = differentiated(mixer, options)(params, arguments)
    clean = filled(arguments, 0.0)
    assert_outputs(reference(name, params, options).run_batch(**clean), y, state, within=1e-10)
    inputs = {**{f"params.{n}": v for n, v in params.items()}, **{n: clean[n] for n in DIFFERENTIABLE if n in clean}}
    gradients = {**{f"params.{n}": v for n, v in actual_params.items()}, **actual}
    for moved, value in inputs.items():
        along = draw(*value.shape, seed=5, dtype=np.float64)

        def loss(moving, moved=moved):
            p = {n: moving[moved] if moved == f"params.{n}" else v for n, v in params.items()}
            others = {n: moving[n] if n == moved else v for n, v in clean.items()}
            return loss_of(*reference(name, p, options).run_batch(**others), clean)

        gradient = np.asarray(gradients[moved])
        error = np.vdot(gradient, along) - dense.derivative_along(loss, {moved: value}, {moved: along})
        assert abs(error) < 1e-8 * np.linalg.norm(gradient) * np.linalg.norm(along), moved


@cases(lambda case: case.main and is_linear(case) and not is_two(case))
def test_long_sequences(name):
    mixer, params, options = make(name)
    x, rate, within = draw(2, LONG, H), np.float32(1), tolerances(name, FLOAT32)[0]
    expected = reference(name, params, options).run_batch(x)
    state, rolled = np.zeros((2, *state_shape(name, options)), np.float32), []
    for part in np.split(x, LONG // L, axis=1):  # of the length compiled for other tests
        *_, (y, state) = every_way(mixer, options)(params, part, np.asarray(state), rate, FULL)
        rolled.append(y)
    assert_outputs(expected, np.concatenate(rolled, 1), state, within=within)

    actual, _, (y, _) = differentiated(mixer, options)(params, {"x": x})
    assert_outputs(expected, y, within=within)
    for parameter, value in params.items():
        along = draw(*value.shape, seed=5)  # in one direction, since each takes a pass over the sequences

        def loss(moved):
            return loss_of(*reference(name, {**params, **moved}, options).run_batch(x), {"x": x})

        gradient = np.asarray(actual[parameter])
        error = np.vdot(gradient, along) - dense.derivative_along(loss, {parameter: value}, {parameter: along})
        assert abs(error) < 1e-4 * np.linalg.norm(gradient) * np.linalg.norm(along), parameter


@linear_cases
def test_forward_mode_works_with_the_plain_method(name):
    mixer, params, _ = make(name, precision=FLOAT64)
    options, arguments = options_of(name, scan_method="plain"), filled(everything(name, precision=FLOAT64), 0.0)
    with computing_in(FLOAT64):
        along = {n: draw(*v.shape, seed=5, dtype=np.float64) for n, v in params.items()}

        def loss(params):
            y, _ = applied(mixer, params, options, **arguments)
            valid = ~padding(arguments["lengths"], SHORT_L)[..., None]
            return jnp.sum(jnp.where(valid, y**2, 0))

        forward = jax.jit(lambda p, t: jax.jvp(loss, (p,), (t,))[1])(params, along)
        gradient = jax.jit(jax.grad(loss))(params)
    backward = sum(np.vdot(gradient[n], along[n]) for n in along)
    assert abs(forward - backward) < 1e-10 * abs(backward)


# --- sequences in a row ---


@every_case
@pytest.mark.parametrize("precision", [FLOAT32, pytest.param(FLOAT64, marks=pytest.mark.slow)])
def test_sequences_in_a_row_equal_each_alone(name, precision, row=(1, 2, 500)):
    if not able(name, "RESET"):
        pytest.skip("takes no reset")
    mixer, params, options = make(name, precision=precision)
    rows = [row, row[::-1]]
    total, longest = sum(row), max(row)
    together = {"x": draw(2, total, H, dtype=precision), "reset": np.zeros((2, total), bool)}
    if able(name, "RATE") == "step":
        together["rate"] = np.random.default_rng(0).uniform(0.2, 3, (2, total)).astype(precision)
    if able(name, "MASK"):
        together["mask"] = np.random.default_rng(1).random((2, total)) < 0.2
        together["mask"][:, [0, total - 1]] = False
    lengths = np.array([n for lengths in rows for n in lengths])
    pieces = [(b, slice(sum(r[:i]), sum(r[: i + 1]))) for b, r in enumerate(rows) for i in range(len(r))]
    for b, piece in pieces:
        together["reset"][b, piece.start] = True
    together["reset"][1, 0] = False  # the first sequence starts anyhow

    def apart(value):
        parts = np.zeros((len(pieces), longest, *value.shape[2:]), value.dtype)
        for i, (b, piece) in enumerate(pieces):
            parts[i, : lengths[i]] = value[b, piece]
        return parts

    W = weights((2, total, H)).astype(precision)
    alone = {n: apart(v) for n, v in together.items() if n != "reset"}
    W_alone = apart(W)

    def value_and_gradients(params, arguments, W):
        fixed = {n: v for n, v in arguments.items() if n not in DIFFERENTIABLE}

        def loss(params, inputs):
            y, _ = applied(mixer, params, options, **inputs, **fixed)
            return jnp.sum(jnp.where(W != 0, y * W, 0)), y

        inputs = {n: v for n, v in arguments.items() if n in DIFFERENTIABLE}
        gradients, y = jax.grad(loss, (0, 1), has_aux=True)(params, inputs)
        return {"params": gradients[0], "y": y, **gradients[1]}

    f, (values, gradients) = jax.jit(value_and_gradients), tolerances(name, precision)
    with computing_in(precision):
        actual = jax.tree.map(np.asarray, f(params, together, W))
        expected = jax.tree.map(np.asarray, f(params, {**alone, "lengths": lengths}, W_alone))
    assert_close(actual["params"], expected["params"], within=gradients)
    for what in [n for n in actual if n != "params"]:
        separate = apart(actual[what])
        for i, n in enumerate(lengths):
            error = relative_error(separate[i, :n], expected[what][i, :n])
            assert error < (values if what == "y" else gradients), (what, i)


# --- transformations ---


@every_case
def test_three_seeds_equal_each_alone(name):
    mixer, options = mixer_of(name), options_of(name)
    each = [make(name, seed)[1] for seed in range(3)]
    arguments = everything(name)
    xs = np.stack([np.where(np.isnan(arguments["x"]), np.nan, draw(3, SHORT_L, H, seed=10 + i)) for i in range(3)])
    stacked = {n: np.stack([params[n] for params in each]) for n in each[0]}
    over = (0, {n: 0 if n == "x" else None for n in arguments})
    together = _vmapped(mixer, options, tuple(over[1].items()))(stacked, {**arguments, "x": xs})
    values, gradients = tolerances(name, FLOAT32)
    for i, params in enumerate(each):
        alone = differentiated(mixer, options)(params, {**arguments, "x": xs[i]})
        actual = jax.tree.map(lambda v, i=i: np.asarray(v[i]), together)
        assert_close(actual[0], alone[0], within=gradients)
        assert_close(actual[1], alone[1], within=gradients)
        valid = ~padding(arguments["lengths"], SHORT_L)
        assert relative_error(actual[2][0][valid], np.asarray(alone[2][0])[valid]) < values
        if alone[2][1] is not None:
            assert relative_error(actual[2][1], alone[2][1]) < values


@functools.cache
def _vmapped(mixer, options, axes):
    return differentiated.__wrapped__(mixer, options, over=(0, dict(axes)))


@every_case
@pytest.mark.parametrize("only", [(), pytest.param(ALL, id="all")])
def test_a_symbolic_batch_exports(name, only):
    mixer, params, options = make(name)
    arguments = everything(name, only=only)
    check_export(lambda p, a: applied(mixer, p, options, **a), params, arguments)


@every_case
@pytest.mark.slow
def test_gradients_export_with_a_symbolic_batch(name):
    mixer, params, options = make(name)

    def gradient(params, arguments):
        fixed = {n: v for n, v in arguments.items() if n != "x"}

        def loss(params, x):
            y, _ = applied(mixer, params, options, x, **fixed)
            valid = jnp.arange(SHORT_L)[None] < fixed["lengths"].astype(jnp.int32)[:, None]
            return jnp.sum(jnp.where(valid[..., None], y, 0) ** 2)

        return jax.grad(loss, (0, 1))(params, arguments["x"])

    check_export(gradient, params, everything(name))


@causal_cases
def test_steps_export_with_a_symbolic_batch(name):
    mixer, params, options = make(name)

    start = mixer.init_state(jax.tree.map(jnp.asarray, params), options, 3, max_length=SHORT_L)

    def steps(params, arguments):
        return rolled_out(mixer, params, options, **arguments)

    check_export(steps, params, {"x": draw(3, SHORT_L, H), "start": start})


def check_export(f, params, arguments):
    (batch,) = jax.export.symbolic_shape("batch")

    def described(value):
        return jax.ShapeDtypeStruct((batch, *value.shape[1:]), value.dtype)

    shapes = jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape, v.dtype), params)
    exported = jax.export.export(jax.jit(f))(shapes, jax.tree.map(described, arguments))
    for size in (1, 3):
        some = jax.tree.map(lambda v, size=size: v[:size], arguments)
        actual, expected = (jax.tree.leaves(g(params, some)) for g in (exported.call, jax.jit(f)))
        for a, e in zip(actual, expected, strict=True):
            valid = np.isfinite(e)
            assert relative_error(np.asarray(a)[valid], np.asarray(e)[valid]) < 1e-5


# --- what is refused ---


@every_case
def test_arguments_that_a_mixer_cannot_use_are_refused(name):
    mixer, options = mixer_of(name), options_of(name)
    flags, rate = np.zeros((2, 4), bool), np.ones((2, 4), np.float32)
    for ability, argument in {"MASK": "mask", "RESET": "reset"}.items():
        refusal = pytest.raises(ValueError, match=argument) if not able(name, ability) else contextlib.nullcontext()
        with refusal:
            mixers.check(mixer, options, **{argument: flags})
    for known, value in {"none": rate[0, 0], "scalar": rate}.items():
        refused = able(name, "RATE") == "none" or (known == "scalar" and able(name, "RATE") == "scalar")
        with pytest.raises(ValueError, match="rate") if refused else contextlib.nullcontext():
            mixers.check(mixer, options, rate=value)
    with contextlib.nullcontext() if able(name, "CAUSAL") else pytest.raises(ValueError, match="both directions"):
        mixers.check(mixer, options, state=object())


@cases(is_two)
def test_two_directions_have_no_state(name):
    mixer, params, options = made(name)
    one = {"causal": True} if "causal" in CASES[name].options else {"bidirectional": False}
    _, forward, causal = made(name, **one)
    state = mixer.init_state(forward, causal, 2, max_length=4)
    with pytest.raises(ValueError, match="directions") as error:
        mixer.apply(params, jnp.asarray(draw(2, 4, H)), options, state=state)
    assert "\n" not in str(error.value)
    for function in (mixer.init_state, mixer.discretize):
        arguments = (params, options, 2) if function is mixer.init_state else (params, options)
        with pytest.raises(ValueError, match="a mixer with two directions has no recurrent mode"):
            function(*arguments)


@cases(lambda case: case.main and not is_two(case))
def test_a_sequence_without_steps_is_refused(name):
    mixer, params, options = made(name)
    with pytest.raises(ValueError, match="a sequence has at least one step"):
        mixer.apply(params, jnp.zeros((2, 0, H)), options)


# --- numbers and memory ---


@cases(lambda case: case.main and not is_two(case), rare=lambda case: case.mixer == "s4d")
def test_inputs_of_half_precision(name):
    mixer, params, options = made(name)
    x = jnp.asarray(draw(1, 9, H), jnp.bfloat16)

    def loss(params, x):
        y, _ = mixer.apply(params, x, options)
        return jnp.sum(jnp.sin(y)), y

    both = jax.jit(jax.grad(loss, (0, 1), has_aux=True))
    expected, exact = both(params, x.astype(jnp.float32))
    with jax.numpy_dtype_promotion("standard"):
        gradients, y = both(params, x)
    assert relative_error(y, exact) < 1e-5 and y.dtype == jnp.float32
    assert gradients[1].dtype == jnp.bfloat16 and relative_error(gradients[1].astype(jnp.float32), expected[1]) < 0.01
    for parameter in params:
        assert relative_error(gradients[0][parameter], expected[0][parameter]) < 1e-4, parameter


@cases(rare=lambda case: False)
def test_initial_parameters_and_states(name):
    mixer, options = mixer_of(name), options_of(name)
    params = jax.tree.map(jnp.asarray, initial(name, 0, options))
    fresh = jax.eval_shape(lambda key: mixer.init(key, H, options), jax.random.key(0))
    assert all(value.dtype == jnp.float32 for value in fresh.values())
    if hasattr(mixer, "eigenvalues"):
        assert (mixer.eigenvalues(params, options).real < 0).all()
    if hasattr(mixer, "time_step"):
        assert (mixer.time_step(params, options) > 0).all()
        assert mixer.time_step(params, options).shape == params["log_step"].shape
    if not is_two(CASES[name]):
        state = mixer.init_state(params, options, 3, max_length=5)
        if is_linear(CASES[name]):
            assert not state.any() and state.shape[0] == 3 and state.dtype == jnp.complex64
            with computing_in(FLOAT64):
                wide = {n: jnp.asarray(v, FLOAT64) for n, v in params.items()}
                assert mixer.init_state(wide, options, 3).dtype == jnp.complex128


@cases(lambda case: case.mixer in ("s4d", "s4"))
def test_the_eigenvalues_are_those_of_the_dense_system(name):
    mixer, params, options = made(name)
    A = reference(name, params, options).A
    if CASES[name].mixer == "s4d":
        eigenvalues = np.ravel(mixer.eigenvalues(params, options))
        expected = np.linalg.eigvals(A)
        for value in eigenvalues:
            assert np.abs(expected - value).min() < 1e-4 * max(1, abs(value))


@linear_cases
def test_transfer_function_is_a_dense_solve(name):
    mixer, params, options = make(name)
    if not hasattr(mixer, "transfer_function"):
        pytest.skip("has none")
    frequencies = np.array([[0.3 + 2j, 5j], [0.4, -0.2 - 7j]], np.complex64)
    G = jax.jit(lambda params, s: mixer.transfer_function(params, s, options))(params, frequencies)
    assert G.shape == (2, 2, H, H)
    system = reference(name, params, options)
    for index, s in np.ndenumerate(frequencies):
        assert relative_error(G[index], system.transfer(complex(s))) < 1e-5


def temporaries(f, *args) -> int:
    """Bytes that the compiled function holds besides arguments and results."""
    return jax.jit(f).lower(*args).compile().memory_analysis().temp_size_in_bytes


def test_irregular_sampling_takes_the_memory_of_states():
    s5, P, features = mixers.find("s5"), 32, 128
    options = s5.Options(state_size=2 * P, scan_method="sequential")
    params = s5.init(jax.random.key(0), features, options)

    def loss(params, x, rate):
        return jnp.sum(s5.apply(params, x, options, rate=rate)[0] ** 2)

    size = temporaries(jax.grad(loss), params, jnp.zeros((1, 512, features)), jnp.ones((1, 512)))
    assert size < 512 * P * features * 8 / 4  # a matrix for each step, complex


def test_a_kernel_takes_no_memory_for_every_power():
    s4d, features, N, length = mixers.find("s4d"), 256, 64, 16384
    options = s4d.Options(state_size=N)  # half of the N are stored
    params = jax.eval_shape(lambda key: s4d.init(key, features, options), jax.random.key(0))

    def kernel(params):
        return s4d.kernel(params, length, options)

    def gradient(params):
        return jax.grad(lambda params: jnp.sum(kernel(params) ** 2))(params)

    for f in (kernel, gradient):
        memory = jax.jit(f).lower(params).compile().memory_analysis()
        size = memory.temp_size_in_bytes + memory.output_size_in_bytes + memory.argument_size_in_bytes
        assert size < 8 * features * N * length / 8


# --- the references themselves ---


def test_the_exponential_that_stands_for_exact_solutions_is_scipys():
    _, params, options = make("s4d")
    system = reference("s4d", params, options)
    A, B = system.Delta[:, None] * system.A, system.Delta[:, None] * system.B
    M = np.r_[np.c_[A, B], np.zeros((H, len(A) + H))]
    for factor in (0, 1e-3, 1, 40):
        assert relative_error(dense.exponential(factor * M), scipy.linalg.expm(factor * M)) < 1e-12


def test_a_dense_system_in_two_directions_is_one_run_over_the_sequence_turned_round():
    """Backwards the gaps are shifted: that before a sample, in the order of reading, is the one that is crossed."""
    _, params, options = make("s5_two")
    system = reference("s5_two", params, options)
    x, rate = draw(9, H), np.linspace(0.3, 2, 9)
    forward = dataclasses.replace(system, C=system.C[:1]).run(x, rate)[0]
    turned = dataclasses.replace(system, C=system.C[1:], D=0 * system.D)
    backward = turned.run(x[::-1], np.r_[1.0, rate[:0:-1]])[0][::-1]
    assert relative_error(system.run(x, rate)[0], forward + backward) < 1e-13
