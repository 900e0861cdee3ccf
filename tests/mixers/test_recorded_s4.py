"""S4, S4D, its DSS and StableSSM against what the published code computed: initialisations, kernels, whole blocks."""

import contextlib
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everyday import variants
from numerics import load_case, relative_error

from s5jax.mixers import s4, s4d
from s5jax.ssm import parameters

KERNELS = ["s4d_kernel_lin_zoh", "s4d_kernel_legs_zoh", "s4d_kernel_legs_relu", "s4d_kernel_inv_bilinear", "dss_kernel"]
OURS = {"A_real": "A_real", "A_imag": "A_imag", "B": "B", "P": "P", "C": "C", "inv_dt": "log_step"}


def ours(recorded, D=0.0):
    """Parameters of a layer from those recorded: one channel of B, a C for each direction."""
    directions, H = recorded["C"].shape[:2]
    params = {OURS[name]: jnp.asarray(value) for name, value in recorded.items() if name != "C"}
    names = ("C",) if directions == 1 else ("C1", "C2")
    readouts = {name: jnp.asarray(C) for name, C in zip(names, recorded["C"], strict=True)}
    return {**params, **readouts, "B": params["B"][0], "D": jnp.broadcast_to(jnp.asarray(D, jnp.float32), (H,))}


@pytest.mark.parametrize("kind", ["lin", "inv", "inv2", "quad", "real", "legs"])
def test_initial_A_and_B(kind):
    meta, data = load_case("s4d_init")
    options = s4d.Options(state_size=meta["N"], init=kind, real_transform="softplus")
    params = s4d.init(jax.random.key(0), 2, options)
    assert relative_error(s4d.eigenvalues(params, options)[1], data[kind]["A"]) < 1e-6
    B, expected = np.asarray(parameters.unpair(params["B"])[1]), data[kind]["B"]
    # An eigenvector's sign is free; its phase is that of the published code, or bounding Im(B) would not be the same.
    assert relative_error(B * np.sign((B * expected.conj()).real), expected) < 1e-5


@pytest.mark.parametrize(("kind", "rank"), [("legs", 1), ("legt", 2), ("fout", 1)])
def test_initial_low_rank_systems(kind, rank):
    """Up to the phase of each eigenvector, which P and B share: their products have none."""
    _, data = load_case(f"s4_kernel_{kind}")
    options = s4.Options(state_size=16, init=kind, rank=rank, B_clip=2.0)
    params = s4.init(jax.random.key(0), 2, options)

    def unpaired(name):
        return np.asarray(params[name], np.float64) @ [1, 1j]

    A, P, B = s4.eigenvalues(params, options)[0], unpaired("P")[:, 0], unpaired("B")[0]
    expected = {name: value.astype(np.complex128) for name, value in data["value"].items()}
    rotation = np.sum(expected["P"][:, 0] * np.conj(P), axis=0)
    rotation /= np.abs(rotation)
    # Real parts of 0 are stored as 1e-4, there and here; the published code does so with an imaginary part, too.
    assert relative_error(A, expected["A"][0]) < 1e-5
    assert relative_error(P * rotation, expected["P"][:, 0]) < 1e-5
    assert relative_error(B * rotation, expected["B"][0, 0]) < 1e-5


@variants(["s4d_kernel_legs_relu", "s4d_kernel_inv_bilinear"], case=KERNELS)
def test_diagonal_kernels_and_their_gradients(case):
    meta, data = load_case(case)
    options = s4d.Options(
        state_size=meta["N"],
        discretization=meta["disc"],
        real_transform=meta.get("real_transform", "exp"),
        dss_length=meta["L"] if meta["disc"] == "dss" else 0,
    )

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradient(recorded, rate):
        K = s4d.kernel(ours(recorded), meta["L"], options, rate=rate)
        return jnp.sum(K * data["w"]), K

    grads, K = gradient(data["param"], 1.0)
    assert relative_error(K, data["K"]) < 1e-4
    for name, expected in data["grad"].items():
        assert relative_error(grads[name], expected) < 1e-4, name
    if "K_rate" in data:
        assert relative_error(gradient(data["param"], 2.0)[1], data["K_rate"]) < 1e-4


# The low-rank cases were recorded in single precision, by a formula that loses digits. What is right is a dense
# computation in double precision, to which we are held at 1e-4; the record is asked for to 1e-3, but for the gradients
# in which it is itself further than that from the dense computation.
WRONG_IN_THE_RECORD = {("s4_kernel_fout", "A_imag"), ("s4_kernel_legt", "A_imag"), ("s4_kernel_legt", "inv_dt")}


def dense_system(p):
    """A_bar, B_bar of the whole system of each feature, in double precision, from what was recorded."""
    P, B = (whole(p[name] @ jnp.array([1, 1j])) for name in ("P", "B"))
    A = jax.vmap(jnp.diag)(whole(-jnp.exp(p["A_real"]) - 1j * p["A_imag"])) - jnp.einsum("rhn,rhm->hnm", P, P.conj())
    half, identity = jnp.exp(p["inv_dt"])[..., None] / 2, jnp.eye(A.shape[-1])
    solve = functools.partial(jnp.linalg.solve, identity - half * A)
    return solve(identity + half * A), solve(2 * half * B[0][..., None])[..., 0]


def whole(z):
    return jnp.concatenate([z, z.conj()], axis=-1)


def true_C(p, length):
    """C of each direction, as pairs, from the recorded C (I - A_bar^length)."""
    A_bar, _ = dense_system(p)
    remainder = jnp.eye(A_bar.shape[-1]) - jnp.linalg.matrix_power(A_bar, length)
    C = whole(p["C"] @ jnp.array([1, 1j]))
    C = jnp.linalg.solve(jnp.swapaxes(remainder, 1, 2)[None], C[..., None])[..., : C.shape[-1] // 2, 0]
    return jnp.stack([C.real, C.imag], -1)


def dense_kernel(p, C, length):
    """K_l = Re C A_bar^l B_bar, of one direction."""
    A_bar, B_bar = dense_system(p)
    C = whole(C[0] @ jnp.array([1, 1j]))
    _, states = jax.lax.scan(lambda x, _: (jnp.einsum("hnm,hm->hn", A_bar, x), x), B_bar, length=length)
    return jnp.einsum("hn,lhn->hl", C, states).real


@contextlib.contextmanager
def double_precision():
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.slow  # every day `test_whole_blocks`, and in test_s4 the gradients
@pytest.mark.parametrize("case", ["s4_kernel_legs", "s4_kernel_legt", "s4_kernel_fout"])
def test_low_rank_kernels_and_their_gradients(case):
    meta, data = load_case(case)
    L, options = meta["L"], s4.Options(state_size=meta["N"], rank=len(data["param"]["P"]))

    @jax.jit
    def weighted_sum(recorded):
        K = s4.kernel(ours(recorded), L, options)
        return jnp.sum(K * data["w"]), K

    C = np.stack([data["C_before"].real, data["C_before"].imag], -1).astype(np.float32)
    _, K = weighted_sum(jax.tree.map(jnp.asarray, {**data["param"], "C": C}))
    with double_precision():
        p = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), data["param"])
        assert relative_error(K[0], dense_kernel(p, jnp.asarray(C, jnp.float64), L)) < 1e-5
        # The recorded gradients are with respect to, or at a constant, C (I - A_bar^L).
        C, pull_C = jax.vjp(jax.jit(lambda p: true_C(p, L)), p)
        expected = jax.jit(jax.grad(lambda p: jnp.sum(dense_kernel(p, true_C(p, L), L) * data["w"][0])))(p)
    assert relative_error(K, data["K"]) < 1e-3

    stored = {**data["param"], "C": np.asarray(C, np.float32)}
    grads, _ = jax.grad(weighted_sum, has_aux=True)(jax.tree.map(jnp.asarray, stored))
    with double_precision():
        through_C = pull_C(jnp.asarray(grads["C"], jnp.float64))[0]
    for name, recorded in data["grad"].items():
        gradient = np.asarray(through_C[name]) + (0 if name == "C" else np.float64(grads[name]))
        assert relative_error(gradient, expected[name]) < 1e-4, name
        record_is_wrong = relative_error(recorded, expected[name]) > 1e-3
        assert record_is_wrong == ((case, name) in WRONG_IN_THE_RECORD)
        assert record_is_wrong or relative_error(gradient, recorded) < 1e-3, name


@variants([("s4d", "causal"), ("s4", "bidirectional")], kind=["s4d", "s4"], direction=["causal", "bidirectional"])
def test_whole_blocks(kind, direction):
    """The layer, then exact GELU, a linear map to 2 H and its gate; for causal ones by `step` as well."""
    meta, data = load_case(f"{kind}_block_{direction}")
    flat = data["param"]
    recorded = {name.removeprefix("layer.kernel."): flat[name] for name in flat if "kernel" in name}
    if kind == "s4":
        with double_precision():
            wide = {name: np.float64(value) for name, value in recorded.items()}
            C = jax.jit(true_C, static_argnums=1)(wide, meta["L"])
        recorded["C"] = np.asarray(C, np.float32)
    mixer = s4 if kind == "s4" else s4d
    options = dataclasses.replace(mixer.Options(), state_size=meta["N"], bidirectional=meta["bidirectional"])
    params = ours(recorded, flat["layer.D"][0])
    W, b = flat["output_linear.0.weight"], flat["output_linear.0.bias"]

    def rest(y):
        z = jax.nn.gelu(y, approximate=False) @ W.T + b.reshape((1,) * (y.ndim - 1) + (-1,))
        value, gate = jnp.split(z, 2, axis=-1)
        return value * jax.nn.sigmoid(gate)

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradient(x):
        y = rest(mixer.apply(params, x, options)[0])
        return jnp.sum(y * data["w"]), y

    grad, y = gradient(data["x"])
    assert relative_error(y, data["y"]) < 1e-4
    assert relative_error(grad, data["grad_x"]) < 1e-4
    if "y_recurrent" in data:

        @jax.jit
        def recurrent(x):
            cell, start = mixer.discretize(params, options), mixer.init_state(params, options, x.shape[0])
            along = jnp.moveaxis(x, 1, 0)
            _, ys = jax.lax.scan(lambda s, x_k: mixer.step(cell, s, x_k, options)[::-1], start, along)
            return rest(jnp.moveaxis(ys, 0, 1))

        assert relative_error(recurrent(data["x"]), data["y_recurrent"]) < 1e-4


REPARAMETERISATIONS = {"best": "best", "exp": "exp", "softplus": "softplus", "direct": "none"}


@variants([("best", False), ("direct", True)], name=list(REPARAMETERISATIONS), double=[False, True])
def test_stable_reparameterisations(name, double):
    """Whole blocks of StableSSM: A = -f(w) + i A_imag without B, then exact GELU, a linear map to 2 H and its gate."""
    meta, data = load_case(f"stablessm_{name}")
    options = s4d.Options(state_size=meta["d_state"], real_transform=REPARAMETERISATIONS[name], B_trained=False)

    def loss(p, u, w):
        params = {
            "A_real": -p["kernel.log_A_real"] if name == "direct" else p["kernel.log_A_real"],
            "A_imag": -p["kernel.A_imag"],
            "C": p["kernel.C"],
            "D": p["D"],
            "log_step": p["kernel.log_dt"][:, None],
        }
        y = jax.nn.gelu(s4d.apply(params, jnp.swapaxes(u, 1, 2), options)[0], approximate=False)
        z = jnp.einsum("oh,blh->bol", p["output_linear.0.weight"][..., 0], y)
        value, gate = jnp.split(z + p["output_linear.0.bias"][None, :, None], 2, axis=1)
        y = value * jax.nn.sigmoid(gate)
        return jnp.sum(y * w), y

    with jax.enable_x64(double):
        dtype = np.float64 if double else np.float32
        args = jax.tree.map(lambda x: jnp.asarray(x, dtype), (data["param"], data["u"], data["w"]))
        (of_params, of_u), y = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(*args)
    assert relative_error(y, data["y"]) < (1e-9 if double else 1e-5)
    assert relative_error(of_u, data["grad_u"]) < (1e-9 if double else 1e-4)
    for parameter, expected in data["grad"].items():
        assert relative_error(of_params[parameter], expected) < (1e-9 if double else 1e-4), parameter


@pytest.mark.parametrize("name", REPARAMETERISATIONS)
def test_initial_rates_of_stable_reparameterisations(name):
    """The initial values are the published ones, except for "direct", which is published as A = +1/2."""
    meta, _ = load_case(f"stablessm_{name}")
    options = s4d.Options(state_size=8, real_transform=REPARAMETERISATIONS[name], B_trained=False)
    params = s4d.init(jax.random.key(0), 2, options)
    np.testing.assert_allclose(params["A_real"], meta["init_log_A_real"], rtol=1e-5)
    np.testing.assert_allclose(s4d.eigenvalues(params, options).real, -0.5, rtol=1e-5)
