"""Liquid-S4 against the published code's recorded numbers, and what its kernels mean."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everyday import variants
from numerics import load_case, relative_error

from s5jax.mixers import liquid, s4, s4d
from s5jax.ssm import input_products

CASES = ["liquid_pb2", "liquid_kb2", "liquid_pb2_block", "liquid_pb2_shift", "liquid_pb3_bidirectional"]


def options_of(meta):
    return liquid.Options(
        base="s4d",
        state_size=meta["d_state"],
        liquid_kernel={"kb": "published_kb", "polyb": "published_pb"}[meta["liquid_kernel"]],
        degree=meta["liquid_degree"],
        products="combinations" if meta["allcombs"] else "consecutive",
        bidirectional=meta["bidirectional"],
    )


def ours(recorded):
    """Parameters that are trained. The recorded C is multiplied by B once more, as is ours."""
    kernel = {name.rpartition(".")[2]: value for name, value in recorded.items() if "kernel" in name}
    names = ("C",) if len(kernel["C"]) == 1 else ("C1", "C2")
    return {
        "A_real": kernel["inv_A_real"],
        "A_imag": -kernel["A_imag"],
        "B": kernel["B"],
        "D": recorded["D"][0],
        "log_step": kernel["log_dt"][:, None],
        **dict(zip(names, kernel["C"], strict=True)),
    }


def frozen(recorded):
    A, B, C = (np.complex128(recorded[name]) for name in ("w", "B", "C"))
    step = np.exp(np.float64(recorded["log_dt"]))[:, None]
    B_bar = step * B / (1 - step * A / 2)
    return {"frozen_sum": 2 * B_bar.real.sum(-1), "frozen_gain": 2 * (C * B_bar).real.sum(-1)}


@variants([("liquid_pb3_bidirectional", True), ("liquid_kb2", True)], case=CASES, double=[False, True])
def test_recorded_layers(case, double):
    """The block has exact GELU, a map to 2 H and its gate behind the mixer."""
    meta, data = load_case(case)
    options, recorded = options_of(meta), data["param"]

    def weighted_sum(arrays, constants, w):
        y, _ = liquid.apply({**arrays["seq"], **constants}, arrays["u"], options)
        if "out" in arrays:
            y = jax.nn.gelu(y, approximate=False) @ arrays["out"]["weight"].T + arrays["out"]["bias"][None, None]
            value, gate = jnp.split(y, 2, axis=-1)
            y = value * jax.nn.sigmoid(gate)
        return jnp.sum(y * w), y

    def all_of(parameters, u):
        arrays = {"seq": ours(parameters), "u": np.swapaxes(u, 1, 2)}
        if meta.get("postact") == "glu":
            arrays["out"] = {name: parameters[f"output_linear.0.{name}"] for name in ("weight", "bias")}
        return arrays

    with jax.enable_x64(double):
        dtype = np.float64 if double else np.float32
        given = all_of(recorded, data["u"]), frozen(data["frozen"]), np.swapaxes(data["w"], 1, 2)
        given = jax.tree.map(lambda v: jnp.asarray(v, dtype), given)
        grads, y = jax.jit(jax.grad(weighted_sum, has_aux=True))(*given)
    assert y.dtype == dtype
    assert relative_error(y, np.swapaxes(data["y"], 1, 2)) < (1e-9 if double else 1e-5)
    errors = jax.tree.map(relative_error, grads, all_of(data["grad"], data["grad_u"]))
    assert max(jax.tree.leaves(errors)) < (1e-9 if double else 1e-4), errors


def test_frozen_parameters_are_those_of_the_initial_system_and_are_not_trained():
    options = liquid.Options(base="s4d", liquid_kernel="published_pb", bidirectional=True, n_ssm=2, dt_max=1.0)
    params = jax.jit(lambda key: liquid.init(key, 4, options))(jax.random.key(0))
    recorded = {name: np.asarray(value, np.float64) for name, value in params.items()}
    A = np.tile(-np.exp(recorded["A_real"]) - 1j * recorded["A_imag"], (2, 1))
    B = np.tile(recorded["B"] @ [1, 1j], (2, 1))
    C = np.stack([recorded[name] @ [1, 1j] for name in ("C1", "C2")])
    expected = frozen({"w": A, "B": B, "C": C, "log_dt": recorded["log_step"][:, 0]})
    for name, value in expected.items():
        assert relative_error(params[name], value) < 1e-5

    def loss(params):
        return jnp.sum(liquid.apply(params, jnp.ones((1, 9, 4)), options)[0] ** 2)

    gradient = jax.jit(jax.grad(loss))(params)
    assert all(not gradient[name].any() for name in expected) and all(gradient[name].any() for name in ("C1", "C2"))


@variants(["s4d"], base=["s4", "s4d"])
def test_without_products_it_is_the_base(base):
    """An impulse has no products of successive samples."""
    module = {"s4": s4, "s4d": s4d}[base]
    x = jnp.zeros((1, 20, 3)).at[:, 2].set(1.0)
    inner = {"discretization": "bilinear", "init": "legs"} if base == "s4d" else {}
    inner = module.Options(state_size=8, **inner)
    for kernel in ("pb", "kb"):
        options = liquid.Options(base=base, state_size=8, liquid_kernel=kernel, degree=4)

        @jax.jit
        def both(key, x, options=options):
            params = liquid.init(key, 3, options)
            assert set(params) == set(module.init(key, 3, inner))
            return liquid.apply(params, x, options)[0], module.apply(params, x, inner)[0]

        assert relative_error(*both(jax.random.key(0), x)) < 1e-6


@pytest.mark.parametrize(("L", "p"), [(1, 2), (2, 3), (3, 2), (5, 2), (20, 2), (21, 3)])
def test_products_of_combinations(L, p):
    u = np.random.default_rng(0).normal(size=(1, L, 1)).astype(np.float32)
    pool = next((n for n in range(2, L) if len(list(itertools.combinations(range(n), p))) >= L), L)
    expected = [np.prod(chosen) for chosen in itertools.combinations(u[0, L - pool :, 0], p)][-L:]
    expected += [0.0] * (L - len(expected))
    np.testing.assert_allclose(input_products.combinations(jnp.asarray(u), p)[0, :, 0], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state_size": 7}, "state_size must be even"),
        ({"degree": 1}, "degree must lie in 2..8, got 1"),
        ({"liquid_kernel": "published_kb", "bidirectional": True}, "published_kb reads in one direction"),
        ({"dt_min": 0.0}, "dt_min and dt_max must satisfy"),
        ({"init": "legt"}, "init legt needs a low-rank part of rank 2"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message) as error:
        liquid.Options(**options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("options", [{"bidirectional": True}, {"liquid_kernel": "published_pb"}])
def test_a_reset_is_refused_where_later_inputs_count(options):
    options = liquid.Options(state_size=4, **options)
    params = liquid.init(jax.random.key(0), 2, options)
    with pytest.raises(ValueError, match="takes no reset"):
        liquid.apply(params, jnp.ones((1, 3, 2)), options, reset=jnp.zeros((1, 3), bool))
