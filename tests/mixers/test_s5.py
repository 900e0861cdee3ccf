import dataclasses
import functools
import subprocess
import sys
import typing
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everyday import variants
from hypothesis import given, settings
from hypothesis import strategies as st
from numerics import load_case, relative_error

from s5jax.mixers import s5
from s5jax.ssm import diagonal_system, scan

METHODS = typing.get_args(scan.Method)
BLOCKS = (1, 16, 100, 2**19)
apply = jax.jit(s5.apply, static_argnames="options")


NOT_READ_AT_THE_START = {"discretization": "zoh", "clip_eigs": False, "scan_method": "auto"}


def random_mixer(H=3, **options):
    """Parameters as NumPy arrays, and options."""
    options = s5.Options(**{"state_size": 8, "blocks": 2, **options})
    return dict(initial(H, dataclasses.replace(options, **NOT_READ_AT_THE_START))), options


@functools.cache
def initial(H, options):
    return jax.tree.map(np.asarray, jax.jit(lambda key: s5.init(key, H, options))(jax.random.key(0)))


def draw(*shape, seed):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def dense_system(params, options, direction=0):
    """The mixer's continuous system as full float64 matrices, conjugate modes written out."""
    p = {name: np.asarray(value, np.float64) for name, value in params.items()}
    Lambda = np.minimum(p["Lambda_re"], -1e-4 if options.clip_eigs else np.inf) + 1j * p["Lambda_im"]
    B = p["B"] @ [1, 1j]
    P = len(Lambda)
    C = p["C1" if direction == 0 else "C2"] if "C1" in p else p["C"][:, direction * P : (direction + 1) * P]
    C = C @ [1, 1j]
    Delta = np.exp(p["log_step"][:, 0])
    if options.conj_sym:
        Lambda, B, C = np.r_[Lambda, Lambda.conj()], np.r_[B, B.conj()], np.c_[C, C.conj()]
        Delta = np.r_[Delta, Delta]
    return Lambda, B, C, np.diag(p["D"]), Delta


def slow_apply(params, u, options, rate=1.0, start=None):
    """One sequence (L, H) by a float64 loop over dense matrices."""
    u = np.asarray(u, np.float64)
    outputs = u @ dense_system(params, options)[3]
    for direction in range(2 if options.bidirectional else 1):
        Lambda, B, C, _, Delta = dense_system(params, options, direction)
        z = Lambda * Delta * rate
        if options.discretization == "zoh":
            a, gamma = np.exp(z), (np.exp(z) - 1) / Lambda
        else:
            a, gamma = (1 + z / 2) / (1 - z / 2), Delta * rate / (1 - z / 2)
        x = np.zeros(len(Lambda), complex) if start is None else start
        for k in range(len(u))[:: -1 if direction else 1]:
            x = a * x + gamma * (B @ u[k])
            outputs[k] += (C @ x).real
    return outputs


@variants(
    [(1, "associative"), (3, "plain"), (4, "sequential"), (5, "chunked")],
    case=range(6),
    method=METHODS,
)
def test_recorded_outputs_and_gradients(case, method):
    meta, data = load_case(f"s5_ssm_{case}")
    keys = ("discretization", "bidirectional", "conj_sym", "clip_eigs")
    options = s5.Options(state_size=meta["P"], blocks=meta["J"], scan_method=method, **{k: meta[k] for k in keys})

    def weighted_sum(params, u):
        y, _ = s5.apply(params, u[None], options, rate=meta["step_rescale"])
        return jnp.sum(y[0] * data["w"]), y[0]

    params, u = jax.tree.map(jnp.asarray, (data["param"], data["u"]))
    (grad_params, grad_u), y = jax.jit(jax.grad(weighted_sum, argnums=(0, 1), has_aux=True))(params, u)
    assert relative_error(y, data["y"]) < 1e-4
    assert relative_error(grad_u, data["grad_u"]) < 1e-4
    for name, expected in data["grad"].items():
        assert relative_error(grad_params[name], expected) < 1e-4, name


@variants(
    [(True, "trunc_standard_normal", True), (True, "lecun_normal", False), (False, "complex_normal", True)],
    conj_sym=[True, False],
    C_init=["trunc_standard_normal", "lecun_normal", "complex_normal"],
    bidirectional=[True, False],
)
def test_initial_shapes_names_and_scales(conj_sym, C_init, bidirectional):
    H, n, J = 24, 64, 4
    options = s5.Options(
        state_size=n, blocks=J, conj_sym=conj_sym, C_init=C_init, bidirectional=bidirectional, dt_min=0.01, dt_max=0.2
    )
    params = s5.init(jax.random.key(1), H, options)
    P = n // 2 if conj_sym else n
    expected = {"Lambda_re": (P,), "Lambda_im": (P,), "B": (P, H, 2), "D": (H,), "log_step": (P, 1)}
    if C_init == "complex_normal":
        expected["C"] = (H, 2 * P if bidirectional else P, 2)
    else:
        expected |= {"C1": (H, P, 2), "C2": (H, P, 2)} if bidirectional else {"C": (H, P, 2)}
    assert {name: value.shape for name, value in params.items()} == expected
    assert all(value.dtype == jnp.float32 for value in params.values())
    assert set(s5.GROUPS["dynamics"].split("|")) <= set(params)
    # Half the modes of a block come from its eigenvalues, sorted; all blocks are alike.
    np.testing.assert_allclose(params["Lambda_re"], -0.5, atol=1e-6)
    np.testing.assert_array_equal(params["Lambda_im"][: P // J], params["Lambda_im"][-(P // J) :])
    assert not conj_sym or (params["Lambda_im"] < 0).all()
    steps = np.exp(params["log_step"])
    assert steps.min() >= 0.01 * (1 - 1e-5) and steps.max() <= 0.2 * (1 + 1e-5) and steps.std() > 0.01
    # A unitary change of basis keeps the mean square over all modes.
    std = {"trunc_standard_normal": n**-0.5, "lecun_normal": (n * H) ** -0.5, "complex_normal": 0.5**0.5}[C_init]
    for name in expected.keys() & {"C", "C1", "C2"}:
        assert np.sqrt(np.mean(np.square(params[name]))) == pytest.approx(std, rel=0.08)
    assert np.sqrt(np.mean(np.square(params["B"]))) == pytest.approx((2 * n) ** -0.5, rel=0.08)
    if bidirectional and C_init != "complex_normal":
        assert not np.allclose(params["C1"], params["C2"])


@variants(
    [(1, "zoh", True), (2, "bilinear", False), (33, "bilinear", True)],
    L=[1, 2, 33],
    discretization=["zoh", "bilinear"],
    bidirectional=[True, False],
)
def test_apply_is_the_dense_recurrence(L, discretization, bidirectional):
    params, options = random_mixer(discretization=discretization, bidirectional=bidirectional)
    u = np.random.default_rng(0).normal(size=(2, L, 3)).astype(np.float32)
    for rescale in (1.0, 2.5):
        y, _ = apply(params, u, options, rate=rescale)
        for i in range(2):
            assert relative_error(y[i], slow_apply(params, u[i], options, rescale)) < 1e-5


def test_conjugate_halves_equal_the_full_system():
    params, options = random_mixer()
    P = params["Lambda_re"].shape[0]
    flip = np.array([1, -1], np.float32)
    full = {
        "Lambda_re": np.tile(params["Lambda_re"], 2),
        "Lambda_im": np.concatenate([params["Lambda_im"], -params["Lambda_im"]]),
        "B": np.concatenate([params["B"], params["B"] * flip]),
        "C": np.concatenate([params["C"], params["C"] * flip], axis=1),
        "D": params["D"],
        "log_step": np.tile(params["log_step"], (2, 1)),
    }
    assert full["B"].shape[0] == 2 * P
    full_options = dataclasses.replace(options, conj_sym=False)

    @jax.jit
    def both(full, params, u, s):
        pairs = (full, full_options), (params, options)
        return [(s5.apply(p, u, o)[0], s5.transfer_function(p, s, o)) for p, o in pairs]

    whole, half = both(full, params, draw(4, 50, 3, seed=2), np.array([0.1 + 3j, -2j], np.complex64))
    assert relative_error(whole[0], half[0]) < 1e-5
    assert relative_error(whole[1], half[1]) < 1e-5


def test_initial_eigenvalues_are_those_of_the_normal_part():
    params, _ = random_mixer(H=40, state_size=6, blocks=1, conj_sym=False)
    Lambda = np.asarray(params["Lambda_re"]) + 1j * np.asarray(params["Lambda_im"])
    scale = np.sqrt(2 * np.arange(6) + 1)
    S = -np.tril(np.outer(scale, scale), -1) - np.diag(np.arange(6) + 1) + np.outer(scale, scale) / 2
    np.testing.assert_allclose(np.sort(np.linalg.eigvals(S).imag), np.sort(Lambda.imag), atol=1e-5)


def test_B_of_a_new_layer_is_real_in_the_original_basis():
    """B^* Lambda^k B = B_real^T S^k B_real has no imaginary part if B = V^* B_real, whatever the phases in V; a B drawn
    in the eigenbasis would give it one."""
    params, _ = random_mixer(H=5, state_size=6, blocks=1, conj_sym=False)
    B = np.asarray(params["B"], np.float64) @ [1, 1j]
    Lambda = np.asarray(params["Lambda_re"], np.float64) + 1j * np.asarray(params["Lambda_im"], np.float64)
    for k in range(4):
        moment = B.conj().T @ np.diag(Lambda**k) @ B
        assert np.abs(moment.imag).max() < 1e-5 * np.abs(moment).max()


@variants(["plain"], method=METHODS)
def test_step_rolled_out_and_halves_handed_over_equal_apply(method):
    params, options = random_mixer(scan_method=method)

    @jax.jit
    def every_way(params, u):
        start, cell = s5.init_state(params, options, 2), s5.discretize(params, options)

        def advance(state, u_k):
            y_k, state = s5.step(cell, state, u_k, options)
            return state, y_k

        state, rolled = jax.lax.scan(advance, start, jnp.moveaxis(u, 1, 0))
        first, middle = s5.apply(params, u[:, :13], options, state=start)
        second, end = s5.apply(params, u[:, 13:], options, state=middle)
        return {
            "from a state": s5.apply(params, u, options, state=start),
            "by itself": s5.apply(params, u, options)[0],
            "steps": (jnp.moveaxis(rolled, 0, 1), state),
            "halves": (jnp.concatenate([first, second], 1), end),
        }

    ways = every_way(params, draw(2, 37, 3, seed=3))
    y, last = ways["from a state"]
    assert relative_error(ways["by itself"], y) < 1e-6
    for way in ("steps", "halves"):
        assert relative_error(ways[way][0], y) < 1e-5
        assert relative_error(ways[way][1], last) < 1e-5


@variants([True], bidirectional=[True, False])
def test_padding_changes_nothing(bidirectional):
    params, options = random_mixer(bidirectional=bidirectional)
    u, lengths = draw(3, 20, 3, seed=4), np.array([20, 7, 1])
    valid = np.arange(20) < lengths[:, None]
    garbage = np.where(valid[..., None], u, np.float32(np.nan))

    def valid_sum(params, u):
        y, _ = s5.apply(params, u, options, lengths=jnp.asarray(lengths))
        return jnp.sum(jnp.where(valid[..., None], y, 0) ** 2), y

    gradient = jax.jit(jax.value_and_grad(valid_sum, argnums=(0, 1), has_aux=True))
    ((clean_sum, _), clean), ((dirty_sum, y), dirty) = gradient(params, u), gradient(params, garbage)
    jax.tree.map(np.testing.assert_array_equal, (clean_sum, clean), (dirty_sum, dirty))
    for i, n in enumerate(lengths):
        assert relative_error(y[i, :n], slow_apply(params, u[i, :n], options)) < 1e-5


def test_two_directions_have_no_state():
    params, options = random_mixer(bidirectional=True)
    params = jax.tree.map(jnp.asarray, params)
    state = s5.init_state(params, random_mixer()[1], 1)
    with pytest.raises(ValueError, match="cannot start from a state"):
        jax.eval_shape(lambda u: s5.apply(params, u, options, state=state), jnp.zeros((1, 4, 3)))
    with pytest.raises(ValueError, match="no recurrent mode"):
        s5.init_state(params, options, 1)
    with pytest.raises(ValueError, match="no recurrent mode"):
        s5.discretize(params, options)


def test_the_normal_part_needs_no_optimiser():
    code = (
        "import sys; from s5jax.mixers import s5; import jax; options = s5.Options(state_size=4); "
        "jax.eval_shape(lambda key: s5.init(key, 2, options), jax.random.key(0))"
    )
    code += "; assert not {'s5jax.ssm.ptd', 's5jax.ssm.perturbation', 'scipy.optimize'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@variants(
    [(True, "trunc_standard_normal", False), (True, "complex_normal", True), (False, "complex_normal", False)],
    bidirectional=[True, False],
    C_init=["trunc_standard_normal", "complex_normal"],
    clip_eigs=[True, False],
)
def test_transfer_function_is_a_dense_solve(bidirectional, C_init, clip_eigs):
    params, options = random_mixer(bidirectional=bidirectional, C_init=C_init, clip_eigs=clip_eigs)
    params["Lambda_re"] = np.r_[np.float32(0.5), params["Lambda_re"][1:]]
    frequencies = np.array([[0.3 + 2j, 5j], [1.0, -0.2 - 7j]])
    transfer_function = jax.jit(s5.transfer_function, static_argnames="options")
    G = transfer_function(params, frequencies.astype(np.complex64), options)
    assert G.shape == (2, 2, 3, 3)
    for index, s in np.ndenumerate(frequencies):
        expected = 0
        for direction in range(2 if bidirectional else 1):
            Lambda, B, C, D, _ = dense_system(params, options, direction)
            A = np.diag(Lambda)
            expected = expected + C @ np.linalg.solve((-s if direction else s) * np.eye(len(A)) - A, B)
        assert relative_error(G[index], expected + D) < 1e-5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state_size": 9, "blocks": 2}, "state_size 9 is not divisible by blocks 2"),
        ({"state_size": 6, "blocks": 2}, "even size"),
        ({"state_size": 0}, r"in 1\.\.16384"),
        ({"blocks": 0}, r"in 1\.\.16384"),
        ({"dt_min": 0.2, "dt_max": 0.1}, "0 < dt_min <= dt_max"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        s5.Options(**options)


@variants([("chunked", 16)], method=["sequential", "chunked", "associative", "plain"], block=BLOCKS)
@settings(max_examples=3, deadline=None, derandomize=True)
@given(
    L=st.integers(1, 70),
    H=st.integers(1, 5),
    P=st.integers(1, 6),
    B=st.integers(1, 4),
    bidirectional=st.booleans(),
    discretization=st.sampled_from(["zoh", "bilinear"]),
    seed=st.integers(0, 2**16),
)
def test_any_shape_and_method_and_gradient(L, H, P, B, bidirectional, block, method, discretization, seed):
    """Values against dense float64 loops; the gradient along a random direction against their central difference."""
    how = {"bidirectional": bidirectional, "scan_method": method, "discretization": discretization}
    options, rng = s5.Options(state_size=2 * P, **how), np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda key: s5.init(key, H, options), jax.random.key(0))
    params = {name: rng.normal(size=x.shape).astype(np.float32) for name, x in shapes.items()}
    params["Lambda_re"] = -np.exp(params["Lambda_re"])
    params["log_step"] = params["log_step"] - 3
    u, w = (rng.normal(size=(B, L, H)).astype(np.float32) for _ in range(2))
    towards = {name: rng.normal(size=x.shape) * (0.1 if "Lambda" in name else 1) for name, x in params.items()}
    with mock.patch.dict(diagonal_system.BLOCKS, cpu=(block, block)):
        value = lambda p, u: (jnp.sum(w * (y := s5.apply(p, u, options)[0])), y)  # noqa: E731
        (gradients, du), y = jax.jit(jax.grad(value, argnums=(0, 1), has_aux=True))(params, u)

    def exact(t, u):
        moved = {name: np.asarray(x, np.float64) + t * towards[name] for name, x in params.items()}
        return np.stack([slow_apply(moved, one, options) for one in u])

    assert relative_error(y, exact(0, u)) < 1e-5
    slope = (w * (exact(1e-5, u) - exact(-1e-5, u))).sum() / 2e-5
    found = sum(np.sum(np.float64(gradients[name]) * towards[name]) for name in params)
    scale = sum(np.linalg.norm(gradients[name]) * np.linalg.norm(towards[name]) for name in params)
    assert abs(found - slope) < 2e-4 * scale
    shift = rng.normal(size=u.shape)  # the mixer is linear in u
    error = np.sum(np.float64(du) * shift) - (w * exact(0, shift)).sum()
    assert abs(error) < 1e-5 * L * np.linalg.norm(du) * np.linalg.norm(shift)


@pytest.mark.slow
@pytest.mark.parametrize("bidirectional", [True, False])
def test_inputs_of_double_precision(bidirectional, monkeypatch):
    monkeypatch.setitem(diagonal_system.BLOCKS, "cpu", (0, 64))
    options = s5.Options(state_size=4, bidirectional=bidirectional)
    params = initial(3, options)
    u = np.random.default_rng(0).normal(size=(2, 40, 3))
    gradient = jax.jit(jax.grad(lambda params, u: jnp.sum(jnp.sin(s5.apply(params, u, options)[0])), (0, 1)))
    expected = gradient(params, jnp.asarray(u, jnp.float32))
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        actual = gradient(params, jnp.asarray(u))
    assert actual[1].dtype == np.float64 and actual[0]["B"].dtype == np.float32
    assert relative_error(actual[1], expected[1]) < 1e-5
    for name in params:
        assert relative_error(actual[0][name], expected[0][name]) < 1e-4, name
