"""The selective scan against the published code's recorded numbers and a loop in float64, and its memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everyday import variants
from numerics import load_case, relative_error

from s5jax.ssm.selective_chunks import cos_sin
from s5jax.ssm.selective_scan import selective_scan

CASES = ["mamba_scan_selective", "mamba_scan_constant", "mamba_scan_groups", "mamba_scan_complex"]
METHODS = ["sequential", "associative", "plain"]


def complex_of(value):
    return jax.lax.complex(value[..., 0], value[..., 1])


@variants(
    [(case, method, False) for case in CASES for method in METHODS[:2]],
    case=CASES,
    method=METHODS,
    double=[False, True],
)
def test_recorded_outputs_and_gradients(case, method, double):
    """Published arrays have the features before the steps; z is a gate on the outputs."""
    meta, data = load_case(case)

    def as_ours(M, is_complex):
        M = complex_of(M) if is_complex else M
        return M if M.ndim == 2 else jnp.moveaxis(M if M.ndim == 4 else M[:, None], -1, 1)

    def scan(arrays):
        A = complex_of(arrays["A"]) if meta["complex"] else arrays["A"]
        B, C = (as_ours(arrays[name], meta["complex"]) for name in "BC")
        u, delta = (jnp.swapaxes(arrays[name], 1, 2) for name in ("u", "delta"))
        given = {"delta_bias": arrays.get("delta_bias"), "softplus": meta["delta_softplus"], "method": method}
        y, last = selective_scan(u, delta, A, B, C, arrays.get("D"), **given)
        y = jnp.swapaxes(y, 1, 2)
        last = jnp.stack([last.real, last.imag], -1) if meta["complex"] else last
        return y * jax.nn.silu(arrays["z"]) if "z" in arrays else y, last

    def weighted_sum(arrays, w):
        y, last = scan(arrays)
        return jnp.sum(y * w), (y, last)

    names = [name for name in ("u", "delta", "A", "B", "C", "D", "z", "delta_bias") if name in data]
    with jax.enable_x64(double):
        dtype = np.float64 if double else np.float32
        arrays, w = jax.tree.map(lambda v: jnp.asarray(v, dtype), ({n: data[n] for n in names}, data["w"]))
        gradients, (y, last) = jax.jit(jax.grad(weighted_sum, has_aux=True))(arrays, w)
    assert y.dtype == dtype
    assert relative_error(y, data["y"]) < (1e-10 if double else 1e-5)
    assert relative_error(last, data["last_state"]) < (1e-10 if double else 1e-5)
    for name in names:
        assert relative_error(gradients[name], data[f"grad_{name}"]) < (1e-9 if double else 1e-4), name


# --- a loop in float64, and its gradient ---


def softplus(x):
    return np.logaddexp(x, 0)


def loop(a, w):
    """Outputs, and the gradient of their sum with weights w; batch 1, one group, A real, softplus."""
    x, B, C, A, D = a["x"][0], a["B"][0, :, 0], a["C"][0, :, 0], a["A"], a["D"]
    raw, g = a["delta"][0] + a["delta_bias"], w[0]
    dt, L = softplus(raw), len(x)
    every = max(1, int(L**0.5))
    h, y, kept = np.zeros(A.shape), np.zeros_like(x), []
    for k in range(L):
        if k % every == 0:
            kept.append(h)
        h = np.exp(dt[k][:, None] * A) * h + (dt[k] * x[k])[:, None] * B[k]
        y[k] = h @ C[k] + D * x[k]
    of = {name: np.zeros(a[name].shape) for name in ("x", "delta", "B", "C", "A")}
    l = np.zeros(A.shape)
    for first in reversed(range(0, L, every)):
        states = [kept[first // every]]
        for k in range(first, min(first + every, L)):
            states.append(np.exp(dt[k][:, None] * A) * states[-1] + (dt[k] * x[k])[:, None] * B[k])
        for k in reversed(range(first, min(first + every, L))):
            l = l + g[k][:, None] * C[k]
            q = np.exp(dt[k][:, None] * A) * states[k - first] * l
            of["C"][0, k, 0] = g[k] @ states[k - first + 1]
            of["B"][0, k, 0] = (dt[k] * x[k]) @ l
            of["x"][0, k] = D * g[k] + dt[k] * (l @ B[k])
            of["delta"][0, k] = ((q * A).sum(1) + x[k] * (l @ B[k])) / (1 + np.exp(-raw[k]))
            of["A"] += q * dt[k][:, None]
            l = np.exp(dt[k][:, None] * A) * l
    return y[None], of | {"D": (g * x).sum(0), "delta_bias": of["delta"][0].sum(0)}


def draw(L, D, N):
    rng = np.random.default_rng(0)
    arrays = {"x": rng.normal(size=(1, L, D)), "delta": 0.5 * rng.normal(size=(1, L, D)), "D": rng.normal(size=D)}
    arrays |= {"B": rng.normal(size=(1, L, 1, N)), "C": rng.normal(size=(1, L, 1, N))}
    arrays["A"] = -np.tile(np.arange(1.0, N + 1), (D, 1))
    arrays["delta_bias"] = np.log(np.expm1(np.exp(rng.uniform(np.log(0.001), np.log(0.1), D))))
    arrays = {name: value.astype(np.float32) for name, value in arrays.items()}
    return arrays, rng.normal(size=(1, L, D)).astype(np.float32)


def both(method, arrays, w):
    def outputs(arrays):
        return selective_scan(**arrays, softplus=True, method=method)[0]

    y, back = jax.vjp(outputs, arrays)
    return y, back(w)[0]


@pytest.mark.parametrize("method", ["sequential", "associative"])
@pytest.mark.parametrize("size", [(1000, 8, 4), pytest.param((16384, 256, 16), marks=pytest.mark.slow)])
def test_values_and_gradients_of_long_sequences(size, method):
    arrays, w = draw(*size)
    y, gradients = jax.jit(functools.partial(both, method))(arrays, w)
    expected, of = loop({name: value.astype(np.float64) for name, value in arrays.items()}, w.astype(np.float64))
    assert relative_error(y, expected) < 1e-5
    for name in arrays:
        assert relative_error(gradients[name], of[name]) < 1e-5, name


@pytest.mark.parametrize("method", ["sequential", "associative"])
@pytest.mark.parametrize("L", [16384, pytest.param(16381, marks=pytest.mark.slow)])
def test_forward_and_backward_take_an_eighth_of_the_states(L, method):
    D, N = 256, 16
    arrays, _ = draw(2, D, N)
    long = {name: (1, L, *value.shape[2:]) if value.ndim > 2 else value.shape for name, value in arrays.items()}
    shapes = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in long.items()}
    compiled = jax.jit(functools.partial(both, method)).lower(shapes, shapes["x"]).compile()
    copies = (
        3 * 4 * L * D if jax.__version_info__ < (0, 12) else 0
    )  # of y and two gradients, from the loops to the results
    assert compiled.memory_analysis().temp_size_in_bytes - copies <= 4 * L * D * N / 8


def test_cosines_and_sines():
    x = np.random.default_rng(0).uniform(-6000, 6000, 10000).astype(np.float32)
    x[:5] = 0, np.pi / 4, np.pi / 2, np.pi, -3 * np.pi / 4
    for actual, expected in zip(jax.jit(cos_sin)(x), (np.cos(np.float64(x)), np.sin(np.float64(x))), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=3e-7)


# --- arguments ---


@pytest.mark.parametrize("method", METHODS)
def test_any_length_of_chunks(method):
    """Lengths around squares, and a state in pieces."""
    arrays, _ = draw(50, 3, 2)
    options = {"softplus": True, "method": method}
    f = jax.jit(functools.partial(selective_scan, **options))
    expected, _ = loop({name: value.astype(np.float64) for name, value in arrays.items()}, np.zeros((1, 50, 3)))
    for L in (1, 2, 3, 8, 9, 10, 24, 50):
        cut = {name: value[:, :L] if value.ndim > 2 else value for name, value in arrays.items()}
        y, state = f(**cut)
        assert relative_error(y, expected[:, :L]) < 1e-5, L
        if L < 50:
            rest = {name: value[:, L:] if value.ndim > 2 else value for name, value in arrays.items()}
            assert relative_error(f(**rest, state=state)[0], expected[:, L:]) < 1e-5, L


def test_constant_part_of_B_beside_that_of_each_step():
    """A B of each step that is the same at all steps is a constant B; with complex A, in groups."""
    rng = np.random.default_rng(1)
    L, D, N, G = 11, 4, 3, 2
    x, delta = rng.normal(size=(2, 2, L, D))
    A = -rng.uniform(0.5, 2, (D, N)) + 1j * rng.normal(size=(D, N))
    C, bias = rng.normal(size=(2, D, N)) + 1j * rng.normal(size=(2, D, N))
    B = rng.normal(size=(2, L, G, N)) + 1j * rng.normal(size=(2, L, G, N))
    with jax.enable_x64(True):
        x, delta, A, B, C, bias = map(jnp.asarray, (x, delta, A, B, C, bias))
        total, _ = selective_scan(x, delta, A, B, C, B_bias=bias)
        parts = [selective_scan(x, delta, A, M, C)[0] for M in (B, bias)]
        assert relative_error(total, parts[0] + parts[1]) < 1e-13


def test_forward_mode():
    arrays = jax.tree.map(jnp.asarray, draw(7, 2, 2)[0])

    def outputs(x, method):
        return selective_scan(**{**arrays, "x": x}, method=method)[0]

    x = arrays["x"]
    y, tangent = jax.jvp(lambda x: outputs(x, "plain"), (x,), (x,))
    assert relative_error(tangent, y) < 1e-6  # linear in x
    with pytest.raises(TypeError, match='use scan_method="plain"'):
        jax.jvp(lambda x: outputs(x, "auto"), (x,), (x,))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"method": "kernel"}, "scan method must be one of auto, sequential, associative, plain; got 'kernel'"),
        ({"B": np.ones((1, 5, 2, 2), np.float32)}, "groups of B and C must divide 3 features, got 2"),
        ({name: np.ones((1, 0, 3), np.float32) for name in ("x", "delta")}, "a sequence must have at least one step"),
    ],
)
def test_mistakes(changed, message):
    given = draw(5, 3, 2)[0] | {"B": np.ones((3, 2), np.float32), "C": np.ones((3, 2), np.float32)} | changed
    with pytest.raises(ValueError, match=message):
        selective_scan(**{name: value if name == "method" else jnp.asarray(value) for name, value in given.items()})
