"""The contract of the mixers: what holds for every one of them.

A new mixer `s5jax/mixers/<name>.py` needs a file `contract/<name>.py` with its cases and a reference in float64 NumPy.

Tolerances are relative, in the norm of a whole array: 1e-5 for outputs and 1e-4 for gradients in float32, 1e-10 and
1e-8 in float64.
"""

import contextlib
import dataclasses
import functools
import pathlib
import re
import types

import dense
import hypothesis
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
import scipy.linalg
from contract import CASES, FILES
from everyday import variants
from hypothesis import strategies
from numerics import relative_error

from s5jax import mixers

H, L = 2, 65
LONG = 63 * L
ROW = 503
"""Steps of the batch of six sequences with all arguments, for which one program is compiled and asked many things."""


# --- cases ---


MAIN = tuple(name for name, case in CASES.items() if case.main)
ONE_DIRECTION = ("s5", "s4d", "s4", "lru", "attention")


def cases(keep=lambda case: True, everyday=MAIN, takes=""):
    """Cases by a condition, and by arguments or functions that the mixer takes or has; slow except for those named."""
    marked = []
    for name, case in CASES.items():
        if keep(case) and can(name, takes):
            marked.append(pytest.param(name, marks=() if name in everyday else pytest.mark.slow))
    return pytest.mark.parametrize("name", marked)


def can(name, words):
    """Whether a mixer takes all these arguments, has these options and functions, by what it declares."""
    declared = {
        **dict.fromkeys(("rate", "one_rate", "a_rate_each"), lambda: able(name, "RATE") != "none"),
        "mask": lambda: able(name, "MASK"),
        "reset": lambda: able(name, "RESET"),
        "state": lambda: able(name, "CAUSAL") and is_linear(CASES[name]),
        "lengths": lambda: True,
        "transfer_function": lambda: hasattr(mixer_of(name), "transfer_function"),
    }
    return all(declared[word]() for word in words.split())


def plain(name):
    """The options with which a mixer has derivatives in forward mode, if it needs any."""
    fields = {field.name for field in dataclasses.fields(mixer_of(name).Options)}
    return dict.fromkeys(fields & {"scan_method", "conv_method"}, "plain")


def is_two(case):
    options = case.options
    declared = options.get("bidirectional", False) or options.get("causal") is False
    return declared or case.causal is not None or case.looks_ahead


def is_linear(case):
    return case.linear


every_case = cases()
COSTLY = ("s5", "s5_two", "s4d", "s4d_two", "s4", "lru", "attention", "attention_two")
costly = cases(everyday=COSTLY)
causal_cases = cases(lambda case: not is_two(case))
linear_cases = cases(is_linear, everyday=ONE_DIRECTION)
FLOAT32, FLOAT64 = "float32", "float64"
both_precisions = pytest.mark.parametrize("precision", [pytest.param(FLOAT32, marks=pytest.mark.slow), FLOAT64])


def mixer_of(name):
    mixer = mixers.find(CASES[name].mixer)
    return with_buffers(mixer) if hasattr(mixer, "init_buffers") else mixer


@functools.cache
def with_buffers(mixer):
    """A mixer with the buffers of key 1, and without those that it returns."""
    bound = types.ModuleType(mixer.__name__, mixer.__doc__)
    bound.__dict__.update(vars(mixer))

    def given(options):
        return {"buffers": mixer.init_buffers(jax.random.key(1), H, options)}

    bound.apply = lambda params, x, options, **others: mixer.apply(params, x, options, **given(options), **others)[:2]
    bound.discretize = lambda params, options, **others: mixer.discretize(params, options, **given(options), **others)
    return bound


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
    params = initializer(mixer_of(name), options)(jax.random.key(seed))
    return {n: np.asarray(v, np.float32) for n, v in params.items()}


@functools.cache
def initializer(mixer, options):
    return jax.jit(lambda key: mixer.init(key, H, options, length=ROW))


def able(name, ability):
    return mixers.ability(mixer_of(name), ability, options_of(name))


def reference(name, params, options):
    """A system with `run_batch`, see `dense.System`."""
    return FILES[CASES[name].mixer].system(params, options)


@contextlib.contextmanager
def computing_in(precision):
    with jax.enable_x64(precision == FLOAT64):
        yield


def tolerances(name, precision):
    return (1e-10, 1e-8) if precision == FLOAT64 else (CASES[name].values, CASES[name].gradients)


# --- arguments ---


def draw(*shape, seed=1, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


@functools.cache
def state_shape(name, options):
    """(..., N, 2) of a linear mixer's state as pairs, without the batch."""
    params = initial(name, 0, options)
    return (*jax.eval_shape(lambda p: mixer_of(name).init_state(p, options, 1), params).shape[1:], 2)


def padding(lengths, length):
    return np.arange(length) >= np.asarray(lengths)[:, None]


ALL = ("lengths", "mask", "reset", "rate", "state")
DIFFERENTIABLE = ("x", "rate", "state")


def arguments_of(name, lengths, length=ROW, precision=FLOAT32, only=ALL):
    """A batch and those arguments that a mixer takes: `x`, `rate` and `state` (pairs), that have derivatives, and the
    others. Padding and missing samples are NaN, and padding is full of resets and missing samples."""
    rng, B = np.random.default_rng(7), len(lengths)
    after = padding(lengths, length) if "lengths" in only else np.zeros((B, length), bool)
    arguments = {"lengths": np.array(lengths, np.int32)} if "lengths" in only else {}
    x, hidden = draw(B, length, H, dtype=precision), after
    if "mask" in only and able(name, "MASK"):
        arguments["mask"] = (rng.random((B, length)) < 0.25) | after
        hidden = hidden | arguments["mask"]
    if "reset" in only and able(name, "RESET"):
        reset = rng.random((B, length)) < 0.1
        reset[:, 4:6] = True  # the sequence that starts at 4 has one step
        reset[:, 0] = np.arange(B) % 2  # a state that is handed in does not matter there
        arguments["reset"] = reset | after
    if "rate" in only and able(name, "RATE") == "step":
        rate = rng.uniform(0.2, 3, (B, length)).astype(precision)
        rate[0, 3] = 0  # two samples at the same time
        arguments["rate"] = np.where(after, np.nan, rate).astype(precision)
    if ("one_rate" in only or "rate" in only) and "rate" not in arguments and able(name, "RATE") != "none":
        arguments["rate"] = np.asarray(1.3, precision)
    if "a_rate_each" in only and able(name, "RATE") != "none":
        arguments["rate"] = rng.uniform(0.2, 3, B).astype(precision)
    if "state" in only and able(name, "CAUSAL") and is_linear(CASES[name]):
        arguments["state"] = draw(B, *state_shape(name, options_of(name)), seed=4, dtype=precision)
    return {"x": np.where(hidden[..., None], np.nan, x).astype(precision), **arguments}


def filled(arguments, value):
    """NaN replaced: what stands in padding and at missing samples must not matter."""
    return {n: np.asarray(np.nan_to_num(v, nan=value)) if v.dtype.kind == "f" else v for n, v in arguments.items()}


def weights(arguments):
    """The weights of outputs and states in a loss: no two are alike, and they are the same in every precision."""
    W = {"y": draw(*arguments["x"].shape, seed=2).astype(arguments["x"].dtype)}
    if "state" in arguments:
        W["state"] = draw(*arguments["state"].shape, seed=3).astype(arguments["x"].dtype)
    return W


def is_valid(arguments):
    """Steps before each sequence's end, (B, L)."""
    B, length = arguments["x"].shape[:2]
    return ~padding(arguments.get("lengths", [length] * B), length)


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
def differentiated(mixer, options, way="apply", over=None):
    """f(params, arguments, weights) -> gradients of a weighted sum of all valid outputs and the last state, and these.
    `over`: axes of `jax.vmap` for params and arguments."""

    def loss(inputs, fixed, W):
        y, state = WAYS[way](mixer, inputs["params"], options, **inputs["arguments"], **fixed)
        valid = jnp.ones(y.shape[:2], bool)
        if "lengths" in fixed:
            valid = jnp.arange(y.shape[1], dtype=jnp.int32)[None] < fixed["lengths"].astype(jnp.int32)[:, None]
        total = jnp.sum(jnp.where(valid[..., None], y * W["y"], 0))
        return total if state is None else total + jnp.sum(state * W["state"]), (y, state)

    def gradient(params, arguments, W):
        inputs = {n: v for n, v in arguments.items() if n in DIFFERENTIABLE}
        fixed = {n: v for n, v in arguments.items() if n not in DIFFERENTIABLE}
        gradients, outputs = jax.grad(loss, has_aux=True)({"params": params, "arguments": inputs}, fixed, W)
        return gradients["params"], gradients["arguments"], outputs

    return jax.jit(gradient if over is None else jax.vmap(gradient, in_axes=(0, dict(over), None)))


def gradients_of(name, arguments, precision, way="apply", *, seed=0, W=None):
    """Gradients of params, of arguments, and (y, state)."""
    mixer, params, options = make(name, seed, precision)
    with computing_in(precision):
        f = differentiated(mixer, options, way)
        return jax.tree.map(np.asarray, f(params, arguments, weights(arguments) if W is None else W))


def loss_of(expected, arguments):
    """The loss of `differentiated`, from what a reference gives."""
    W, (outputs, states) = weights(arguments), expected
    total = sum((y * W["y"][i, : len(y)]).sum() for i, y in enumerate(outputs))
    return total + (np.stack(states) * W["state"]).sum() if "state" in W else total


def assert_outputs(expected, y, state=None, *, within):
    outputs, states = expected
    for i, y_i in enumerate(outputs):
        if len(y_i):
            assert relative_error(y[i][: len(y_i)], y_i) < within, i
    if state is not None:
        for i, state_i in enumerate(states):
            assert relative_error(state[i], state_i) < within, i


def assert_close(actual, expected, *, within):
    """Array by array. One that is zero but for rounding, as the gradient of a bias of keys, is held to the size of all.

    Not every small one is such: where S4's modes hardly decay, the gradient of A_real is a millionth of the whole."""
    size = np.sqrt(sum(np.linalg.norm(value) ** 2 for value in expected.values()))
    for name, value in expected.items():
        if np.linalg.norm(value) > 0.01 * within * size:
            assert relative_error(actual[name], value) < within, name
        else:
            assert np.linalg.norm(actual[name]) <= within * size, name


def assert_same(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def check_outputs_and_gradients(name, arguments, precision, way="apply", steps=slice(None)):
    """Against the reference, derivatives element by element (those of x for some `steps`), with NaN wherever no value
    may be read; then with other values there, which must change nothing."""
    params, options = make(name, precision=precision)[1:]
    values, gradients = tolerances(name, precision)
    of_params, actual, (y, state) = gradients_of(name, arguments, precision, way)
    others = gradients_of(name, filled(arguments, 3.0), precision, way)
    valid = is_valid(arguments)
    seen = valid & ~arguments.get("mask", ~valid)
    assert y.dtype == precision
    assert_same((of_params, actual, y[valid], state), (*others[:2], others[2][0][valid], others[2][1]))
    assert not actual["x"][~seen].any()
    if np.ndim(arguments.get("rate")) == 2:
        assert not actual["rate"][~valid].any()

    clean = filled(arguments, 0.0)
    system = reference(name, params, options)
    assert_outputs(system.run_batch(**clean), y, state, within=values)

    def loss(p):
        return loss_of(reference(name, p, options).run_batch(**clean), arguments)

    assert_close(of_params, dense.derivative(loss, params), within=gradients)
    asked = np.zeros_like(valid)
    asked[:, steps] = seen[:, steps]
    for moved, where in {"x": asked, "rate": valid, "state": ...}.items():
        if moved not in arguments:
            continue
        where = ... if clean[moved].ndim < 2 else where

        def loss_at(some, moved=moved, where=where):
            whole = clean[moved].astype(some.dtype)
            whole[where] = some
            return loss_of(system.run_batch(**{**clean, moved: whole}), arguments)

        expected = dense.derivative(loss_at, clean[moved][where].astype(np.float64))
        assert_close({moved: actual[moved][where]}, {moved: expected}, within=gradients)


# --- the table ---


def test_every_mixer_has_a_case():
    folder = pathlib.Path(mixers.__file__).parent
    names = {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")}
    missing = names - {case.mixer for case in CASES.values()}
    assert not missing, f"mixers without a case in tests/mixers/contract: {', '.join(sorted(missing))}"


@every_case
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


@pytest.mark.parametrize(
    "size", [(8, 50), *(pytest.param(n, marks=pytest.mark.slow) for n in [(16, 50), (8, 1), (2, 131)])]
)
@cases(is_linear, everyday=("s5", "s4"))
@hypothesis.settings(max_examples=5, derandomize=True, deadline=None, database=None)
@hypothesis.given(Delta=strategies.floats(1e-4, 0.3), seed=strategies.integers(0, 2**16))
def test_the_impulse_response_is_that_of_the_dense_system(name, size, Delta, seed):
    mixer, params, options = make(name, seed, state_size=size[0])
    if "log_step" in params:
        params["log_step"] = np.full_like(params["log_step"], np.log(Delta))
    length, (within, _) = size[1], tolerances(name, FLOAT32)
    impulses = np.zeros((H, length, H), np.float32)
    impulses[:, 0] = np.eye(H)
    system = reference(name, params, options)
    y, K = responses(mixer, options, length)(params, impulses)
    outputs = np.stack(system.run_batch(impulses)[0])
    assert_outputs((outputs[:, 1:], None), y[:, 1:], within=within)
    # At lag 0 the feedthrough may nearly cancel the rest: the error is relative to both.
    through = np.float64(params["D"]) * np.eye(H)
    size = np.linalg.norm(through) + np.linalg.norm(outputs[:, 0] - through)
    assert np.linalg.norm(y[:, 0] - outputs[:, 0]) < within * size
    assert relative_error(K, kernel_of(system, length, K.ndim)) < within


def kernel_of(system, length, ndim, rate=1.0):
    """(directions, H, H, L), or (directions, H, L) where each input has an output of its own."""
    K = system.kernel(length, rate)
    return K if ndim == 4 else np.moveaxis(np.diagonal(K, axis1=1, axis2=2), -1, 1)


@functools.cache
def responses(mixer, options, length):
    """Outputs and kernel."""

    def both(params, x):
        return mixer.apply(params, x, options)[0], mixer.kernel(params, length, options)

    return jax.jit(both)


@linear_cases
@both_precisions
def test_the_kernel_is_that_of_the_dense_system_at_any_rate(name, precision):
    mixer, params, options = make(name, precision=precision)
    system = reference(name, params, options)
    with computing_in(precision):
        K = jax.jit(lambda p, rate: mixer.kernel(p, 50, options, rate=rate))(params, np.asarray(1.7, precision))
        K = np.asarray(K)
    assert K.dtype == precision
    expected = kernel_of(system, 50, K.ndim, np.asarray(1.7, precision)[()])
    assert relative_error(K, expected) < tolerances(name, precision)[0]


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


def question(name, factor=1.0):
    """x, a start or None, and rates or None."""
    start = None
    if able(name, "CAUSAL") and is_linear(CASES[name]):
        start = draw(2, *state_shape(name, options_of(name)), seed=4)
    rate = None if able(name, "RATE") == "none" else np.float32([factor, factor])
    return draw(2, L, H), start, rate


def padded(x, lengths, filler=np.nan):
    return np.where(padding(lengths, x.shape[1])[..., None], np.float32(filler), x)


@every_case
def test_apply_and_step_are_the_reference(name):
    check_apply_and_step(name, 1.0)


@pytest.mark.parametrize("factor", [0.5, 2.0])
@cases(takes="rate")
def test_apply_and_step_are_the_reference_at_another_rate(name, factor):
    check_apply_and_step(name, factor)


def check_apply_and_step(name, factor):
    mixer, params, options = make(name)
    x, start, rate = question(name, factor)
    rate = rate if rate is None else rate * np.float32([1, 1.3])
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
    mixer, params, options = make(name)
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
        begin = mixer.init_state(jax.tree.map(jnp.asarray, params), options, 2, max_length=L)
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
    _, start, rate = question(name)
    prompt, taken, piece = (5, 4, 3) if start is None else (L, L, L)  # of the length compiled for other tests
    lengths = np.array([5, 3])
    x = draw(2, prompt + taken + piece, H)
    first = padded(x[:, :prompt], lengths)
    follow = np.stack([x[i, n : n + taken] for i, n in enumerate(lengths)])
    last = np.stack([x[i, n + taken : n + taken + piece] for i, n in enumerate(lengths)])
    if start is None:
        y_1, y_2, y_3 = in_three_parts(mixer, options)(params, first, lengths, follow, last)
    else:
        way = every_way(mixer, options)
        _, (y_1, state), _ = way(params, first, start, rate, lengths)
        _, _, (y_2, state) = way(params, follow, np.asarray(state), rate, FULL)
        _, (y_3, _), _ = way(params, last, np.asarray(state), rate, FULL)
    y = [np.concatenate([y_1[i, :n], y_2[i], y_3[i]]) for i, n in enumerate(lengths)]
    expected = reference(name, params, options).run_batch(x, lengths=lengths + taken + piece, state=start)
    assert_outputs(expected, y, within=tolerances(name, FLOAT32)[0])


@functools.cache
def in_three_parts(mixer, options):
    """`apply`, `step` and `apply` from a state of any kind."""

    def parts(params, first, lengths, follow, last):
        begin = mixer.init_state(params, options, 2, max_length=12)
        y_1, state = mixer.apply(params, first, options, state=begin, lengths=lengths)
        y_2, state = rolled_out(mixer, params, options, follow, state)
        y_3, _ = mixer.apply(params, last, options, state=state)
        return y_1, y_2, y_3

    return jax.jit(parts)


@causal_cases
def test_a_sequence_of_no_length_keeps_the_state_that_came_in(name):
    mixer, params, options = make(name)
    x, start, rate = question(name)
    nothing, lengths = np.full(x.shape, np.nan, np.float32), np.array([0, 0])
    if start is not None:
        assert_same(every_way(mixer, options)(params, nothing, start, rate, lengths)[1][1], start)
        return
    part = pieces(mixer, options)
    begin = mixer.init_state(jax.tree.map(jnp.asarray, params), options, 2, max_length=L)
    _, begin = part(params, x, begin, np.array([3, 1]))
    _, state = part(params, nothing, begin, lengths)
    assert_same(*(part(params, padded(x, [3, 1]), s, np.array([3, 1]))[0][0, :1] for s in (state, begin)))


# --- gradients ---


@cases(everyday=("s5", "s4d", "s4"))
def test_gradients_are_those_of_the_reference_and_padding_has_none(name):
    """Without a state: the way that training takes."""
    arguments = arguments_of(name, SHORT, L, only=("lengths", "one_rate"))
    check_outputs_and_gradients(name, arguments, FLOAT32, steps=slice(1))


@cases(lambda case: not is_two(case), everyday=())
def test_gradients_of_steps_are_those_of_the_reference(name):
    arguments = arguments_of(name, SHORT, L, only=("one_rate",))
    check_outputs_and_gradients(name, arguments, FLOAT32, "step", steps=slice(1))


@both_precisions
@pytest.mark.parametrize("way", ["apply", "step"])
@cases(lambda case: not is_two(case) and is_linear(case))
@pytest.mark.slow
def test_gradients_from_a_state_at_a_rate_for_each_sequence(name, way, precision):
    only = ("lengths", "a_rate_each", "state")[way == "step" :]
    arguments = arguments_of(name, SHORT, L, precision, only)
    check_outputs_and_gradients(name, arguments, precision, way, steps=slice(1))


@both_precisions
@costly
def test_all_arguments_at_once(name, precision):
    check_outputs_and_gradients(name, arguments_of(name, [17, 8, 0, 1, 2, 0], precision=precision), precision)


@both_precisions
@cases(lambda case: not is_two(case), everyday=("s5", "attention"))
def test_all_arguments_of_steps_at_once(name, precision):
    arguments = arguments_of(name, [12, 12], 12, precision, only=ALL[1:])
    check_outputs_and_gradients(name, arguments, precision, "step")


SOME = ("", *ALL, "one_rate", "a_rate_each", "mask reset", "rate reset", "rate lengths", "state mask")


@both_precisions
@pytest.mark.parametrize(
    ("name", "only"),
    [(name, only) for name in CASES for only in SOME if can(name, only)],
)
@pytest.mark.slow
def test_an_argument_alone(name, only, precision):
    arguments = arguments_of(name, [17, 8, 0], 17, precision, only.split())
    assert len(arguments) == 1 + len(only.split())
    if "lengths" in arguments:
        arguments["lengths"] = arguments["lengths"].astype(np.uint8)
    check_outputs_and_gradients(name, arguments, precision)


@cases(everyday=("s5_two", "s4d", "s4"))
def test_all_arguments_over_many_steps(name):
    """Values, and the derivative in one direction: blocks of steps, and what crosses from one to the next."""
    params, options = make(name, precision=FLOAT64)[1:]
    arguments = arguments_of(name, [ROW, 331, 0, 64, 65, 1], precision=FLOAT64)
    of_params, actual, (y, state) = gradients_of(name, arguments, FLOAT64)
    clean = filled(arguments, 0.0)
    expected = reference(name, params, options).run_batch(**clean)
    assert_outputs(expected, y, state, within=1e-10)
    check_gradients_along(name, params, options, {**of_params, **actual}, clean, within=1e-8)


def check_gradients_along(name, params, options, gradients, arguments, *, within):
    """In one direction of all arrays, in which each has the same share."""
    inputs = {**params, **{n: v for n, v in arguments.items() if n in DIFFERENTIABLE}}
    size = {n: np.linalg.norm(gradients[n]) for n in inputs}
    least = 1e-6 * np.sqrt(sum(norm**2 for norm in size.values()))
    along = {n: draw(*v.shape, seed=5, dtype=np.float64) / max(size[n], least) for n, v in inputs.items()}

    def loss(moved):
        p, moved = {n: moved[n] for n in params}, {n: v for n, v in moved.items() if n not in params}
        return loss_of(reference(name, p, options).run_batch(**{**arguments, **moved}), arguments)

    error = sum(np.vdot(gradients[n], along[n]) for n in inputs) - dense.derivative_along(loss, inputs, along)
    assert abs(error) < within * sum(size[n] * np.linalg.norm(along[n]) for n in inputs)


@cases(lambda case: case.main and is_linear(case) and not is_two(case), everyday=("s5",))
def test_long_sequences(name):
    mixer, params, options = make(name)
    x, rate, within = draw(2, LONG, H), np.float32([1, 1]), tolerances(name, FLOAT32)[0]
    expected = reference(name, params, options).run_batch(x)
    state, rolled = np.zeros((2, *state_shape(name, options)), np.float32), []
    for part in np.split(x, LONG // L, axis=1):  # of the length compiled for other tests
        *_, (y, state) = every_way(mixer, options)(params, part, np.asarray(state), rate, FULL)
        rolled.append(y)
    assert_outputs(expected, np.concatenate(rolled, 1), state, within=within)

    arguments = {"x": x}
    of_params, actual, (y, _) = gradients_of(name, arguments, FLOAT32)
    assert_outputs(expected, y, within=within)
    check_gradients_along(name, params, options, {**of_params, **actual}, arguments, within=1e-4)


@pytest.mark.parametrize(
    "only",
    [pytest.param(("lengths", "one_rate"), id="plain"), pytest.param(ALL, id="all", marks=pytest.mark.slow)],
)
@cases(everyday=("s5",))
def test_forward_mode_works_with_the_plain_method(name, only):
    mixer, params, options = make(name, precision=FLOAT64, **plain(name))
    arguments = filled(arguments_of(name, [17, 8, 1], 17, FLOAT64, only), 0.0)
    inputs = {**params, **{n: v for n, v in arguments.items() if n in DIFFERENTIABLE}}
    along = {n: draw(*v.shape, seed=5, dtype=np.float64) for n, v in inputs.items()}
    W = weights(arguments)

    @jax.jit
    def forward(inputs, along):
        fixed = {n: jnp.asarray(v) for n, v in arguments.items() if n not in DIFFERENTIABLE}

        def loss(inputs):
            of_x = {n: v for n, v in inputs.items() if n in DIFFERENTIABLE}
            y, state = applied(mixer, {n: inputs[n] for n in params}, options, **of_x, **fixed)
            total = jnp.sum(jnp.where(is_valid(arguments)[..., None], y * W["y"], 0))
            return total if state is None else total + jnp.sum(state * W["state"])

        return jax.jvp(loss, (inputs,), (along,))[1]

    def exact(moved):
        p = {n: moved[n] for n in params}
        of_x = {n: v for n, v in moved.items() if n in DIFFERENTIABLE}
        return loss_of(reference(name, p, options).run_batch(**{**arguments, **of_x}), arguments)

    with computing_in(FLOAT64):
        actual = float(forward(inputs, along))
    expected = dense.derivative_along(exact, inputs, along)
    assert abs(actual - expected) < 1e-9 * abs(expected)


# --- sequences in a row ---


@cases(lambda case: not is_two(case), takes="reset")
def test_a_reset_ends_what_a_bad_sample_has_left_in_the_state(name):
    """A stream goes on after NaN: `step` with `reset` from a state of NaN is a step from the initial state."""
    mixer, params, options = made(name)
    cell = mixer.discretize(params, options) if hasattr(mixer, "discretize") else params
    start = mixer.init_state(params, options, 2, max_length=3)
    bad = jax.tree.map(lambda v: v + jnp.nan if jnp.issubdtype(v.dtype, jnp.inexact) else v, start)
    x = jnp.asarray(draw(2, 2, H))
    step = jax.jit(lambda state, x, reset: mixer.step(cell, state, x, options, reset=reset))
    always, never = jnp.ones(2, bool), jnp.zeros(2, bool)
    expected, y = [], []
    for found, state, first in ((expected, start, never), (y, bad, always)):
        for x_k, reset in ((x[0], first), (x[1], never)):
            y_k, state = step(state, x_k, reset)
            found.append(np.asarray(y_k))
    assert_same(y, expected)


@cases(everyday=("s5", "s4d_two", "s4", "attention"), takes="reset")
@both_precisions
def test_sequences_in_a_row_equal_each_alone(name, precision):
    """Sequences of 1, 2 and 500 steps, in outputs and gradients."""
    rows, only = [(1, 2, 500), (500, 2, 1)], ("lengths", "mask", "reset", "rate")
    row = filled(arguments_of(name, [ROW, ROW, 0, 0, 0, 0], precision=precision, only=only), 0.0)
    pieces = [(b, slice(sum(r[:i]), sum(r[: i + 1]))) for b, r in enumerate(rows) for i in range(len(r))]
    lengths = np.array([n for r in rows for n in r], np.int32)
    row["reset"][:2] = False
    for b, piece in pieces:
        row["reset"][b, piece.start] = True
    row["reset"][1, 0] = False  # the first sequence starts anyhow
    if "mask" in row:
        row["mask"][:2, :3] = row["mask"][:2, 500:] = False

    def apart(value):
        parts = np.zeros_like(value)
        for i, (b, piece) in enumerate(pieces):
            parts[i, : lengths[i]] = value[b, piece]
        return parts

    W = weights(row)["y"]
    alone = {n: apart(v) if np.ndim(v) > 1 else v for n, v in row.items()} | {"lengths": lengths}
    alone["reset"][:] = False
    nothing = from_nothing(name, precision)
    actual = gradients_of(name, row | nothing, precision, W={"y": W} | nothing)
    expected = gradients_of(name, alone | nothing, precision, W={"y": apart(W)} | nothing)
    for _, arguments, _ in (actual, expected):
        arguments.pop("state", None)
    values, gradients = tolerances(name, precision)
    assert_close(actual[0], expected[0], within=gradients)
    assert_runs_alike(actual, expected, apart, lengths, values, gradients)
    if precision == FLOAT32:  # without other arguments each
        del alone["reset"]
        for n in set(lengths):
            which = lengths == n
            cut = {m: v[which, :n] if np.ndim(v) > 1 else v for m, v in alone.items() if m != "lengths"}
            short = gradients_of(name, cut, precision, W={"y": apart(W)[which, :n]})
            y = np.zeros_like(expected[2][0])
            y[which, :n] = short[2][0]
            assert_outputs(([apart(actual[2][0])[i, :n] for i in np.flatnonzero(which)], []), y[which], within=values)


def from_nothing(name, precision):
    """A state of zeros, if the mixer has one: with it the program is that of `test_all_arguments_at_once`."""
    if not can(name, "state"):
        return {}
    return {"state": np.zeros((6, *state_shape(name, options_of(name))), precision)}


def assert_runs_alike(actual, expected, apart, lengths, values, gradients):
    pairs = {"y": (actual[2][0], expected[2][0], values)}
    pairs |= {n: (v, expected[1][n], gradients) for n, v in actual[1].items() if v.ndim > 1}
    for what, (together, separate, within) in pairs.items():
        together = apart(together)
        for i, n in enumerate(lengths):
            assert relative_error(together[i, :n], separate[i, :n]) < within, (what, i)


# --- transformations ---


@cases(everyday=("s5",))
def test_three_seeds_equal_each_alone(name):
    mixer, options = mixer_of(name), options_of(name)
    arguments = arguments_of(name, [17, ROW, 0, 1, 2, 0], precision=FLOAT64)
    xs = np.stack([arguments["x"] + i for i in range(3)])
    each = [make(name, seed, FLOAT64)[1] for seed in range(3)]
    stacked = {n: np.stack([params[n] for params in each]) for n in each[0]}
    over = tuple((n, 0 if n == "x" else None) for n in arguments)
    with computing_in(FLOAT64):
        f = differentiated(mixer, options, over=over)
        together = jax.tree.map(np.asarray, f(stacked, {**arguments, "x": xs}, weights(arguments)))
    valid = is_valid(arguments)
    for i in range(3):
        alone = gradients_of(name, {**arguments, "x": xs[i]}, FLOAT64, seed=i)
        actual = jax.tree.map(lambda v, i=i: v[i], together)
        assert_close(actual[0], alone[0], within=1e-8)
        assert_close(actual[1], alone[1], within=1e-8)
        assert relative_error(actual[2][0][valid], alone[2][0][valid]) < 1e-10


@pytest.mark.parametrize("only", [pytest.param((), id="none", marks=pytest.mark.slow), pytest.param(ALL, id="all")])
@cases(everyday=("s5", "attention"))
def test_a_symbolic_batch_exports(name, only):
    mixer, params, options = make(name)
    arguments = arguments_of(name, [17, 8, 0], 17, only=only)
    exported = export(lambda p, a: applied(mixer, p, options, **a), params, arguments)
    for size in (2,):
        some = {n: v[:size] if np.ndim(v) else v for n, v in arguments.items()}
        expected = reference(name, params, options).run_batch(**filled(some, 0.0))
        assert_outputs(expected, *exported.call(params, some), within=tolerances(name, FLOAT32)[0])


@every_case
@pytest.mark.slow
def test_gradients_export_with_a_symbolic_batch(name):
    """In float64: in float32 two orders of summation differ by 1e-5 where a gradient is small, as that of q_bias."""
    mixer, params, options = make(name, precision=FLOAT64)
    f = differentiated(mixer, options)
    for only in ((), ALL):
        arguments = arguments_of(name, [17, 8, 0], 17, FLOAT64, only)
        with computing_in(FLOAT64):
            exported = export(lambda p, a, f=f: f(p, a["arguments"], a["weights"])[:2], params, pack(arguments))
            for size in (1, 3):
                some = jax.tree.map(lambda v, n=size: v[:n] if np.ndim(v) else v, pack(arguments))
                actual = exported.call(params, some)
                expected = f(params, some["arguments"], some["weights"])[:2]
                for a, e in zip(actual, expected, strict=True):
                    assert_close(a, e, within=1e-10)


def pack(arguments):
    return {"arguments": arguments, "weights": weights(arguments)}


@cases(lambda case: not is_two(case), everyday=("attention",))
def test_steps_export_with_a_symbolic_batch(name):
    mixer, params, options = made(name)
    x, start = draw(2, 9, H), mixer.init_state(params, options, 2, max_length=9)
    arguments = {"x": x, "start": start}
    exported = export(lambda p, a: rolled_out(mixer, p, options, **a), params, arguments)
    assert_outputs(
        reference(name, params, options).run_batch(x),
        exported.call(params, arguments)[0],
        within=tolerances(name, FLOAT32)[0],
    )


def export(f, params, arguments):
    """`jax.export` with a symbolic batch size."""
    (batch,) = jax.export.symbolic_shape("batch")

    def described(value):
        return jax.ShapeDtypeStruct((batch, *value.shape[1:]) if value.ndim else (), value.dtype)

    shapes = jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape, v.dtype), params)
    # Annotations of shapes that broadcast do not understand symbolic sizes; users do not have them checked.
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        return jax.export.export(jax.jit(f))(shapes, jax.tree.map(described, arguments))
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


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


@cases(lambda case: is_two(case) and not case.looks_ahead)
def test_two_directions_have_no_state(name):
    mixer, params, options = made(name)
    fields = {field.name for field in dataclasses.fields(options)}
    one = {"causal": True} if "causal" in CASES[name].options else dict.fromkeys({"bidirectional"} & fields, False)
    one |= CASES[name].causal or {}
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
    with pytest.raises(ValueError, match="a sequence must have at least one step"):
        mixer.apply(params, jnp.zeros((2, 0, H)), options)


# --- numbers and memory ---


@cases(lambda case: case.main and not is_two(case), everyday=("s5",))
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


@every_case
def test_initial_parameters_and_states(name):
    mixer, options = mixer_of(name), options_of(name)
    params = initial(name, 0, options)
    fresh = jax.eval_shape(lambda key: mixer.init(key, H, options), jax.random.key(0))
    assert all(value.dtype == jnp.float32 for value in fresh.values())
    of_params = {n: getattr(mixer, n) for n in ("eigenvalues", "time_step") if hasattr(mixer, n)}
    has_state = not is_two(CASES[name])

    def computed(params):
        values = {n: f(params, options) for n, f in of_params.items()}
        return values, mixer.init_state(params, options, 3, max_length=5) if has_state else None

    values, state = jax.tree.map(np.asarray, jax.jit(computed)(params))
    if "eigenvalues" in values:
        assert (values["eigenvalues"].real < 0).all()
    if "time_step" in values:
        assert (values["time_step"] > 0).all()
        assert values["time_step"].shape[-2] == params["log_step"].shape[-2]
    if has_state and is_linear(CASES[name]):
        assert not state.any() and state.shape[0] == 3 and state.dtype == jnp.complex64
        with computing_in(FLOAT64):
            wide = {n: v.astype(FLOAT64) for n, v in params.items()}
            shape = jax.eval_shape(lambda params: mixer.init_state(params, options, 3), wide)
            assert shape.dtype == jnp.complex128


@cases(lambda case: is_linear(case) and case.mixer != "s4")  # whose low-rank part moves the eigenvalues of A
def test_the_eigenvalues_are_those_of_the_dense_system(name):
    mixer, params, options = made(name)
    expected = np.linalg.eigvals(reference(name, params, options).A)
    for value in np.ravel(mixer.eigenvalues(params, options)):
        assert np.abs(expected - value).min() < 1e-5 * abs(value)


@cases(is_linear, everyday=ONE_DIRECTION, takes="transfer_function")
def test_transfer_function_is_a_dense_solve(name):
    mixer, params, options = make(name)
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
    params = jax.eval_shape(lambda key: s5.init(key, features, options), jax.random.key(0))

    def loss(params, x, rate):
        return jnp.sum(s5.apply(params, x, options, rate=rate)[0] ** 2)

    size = temporaries(jax.grad(loss), params, np.zeros((1, 512, features), np.float32), np.ones((1, 512), np.float32))
    assert size < 512 * P * features * 8 / 4  # a matrix for each step, complex


@variants(["gradient"], what=["kernel", "gradient"])
def test_a_kernel_takes_no_memory_for_every_power(what):
    s4d, features, N, length = mixers.find("s4d"), 256, 64, 16384
    options = s4d.Options(state_size=N)  # half of the N are stored
    params = jax.eval_shape(lambda key: s4d.init(key, features, options), jax.random.key(0))

    def kernel(params):
        return s4d.kernel(params, length, options)

    def gradient(params):
        return jax.grad(lambda params: jnp.sum(kernel(params) ** 2))(params)

    f = {"kernel": kernel, "gradient": gradient}[what]
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
