"""What the kernel has besides the other methods, which test_scan.py compares with a float64 loop: pieces, and the fused
readout of both directions. Interpreted, on a CPU."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everyday import variants
from numerics import relative_error
from test_scan import loop, loop_gradients, system

from s5jax.ssm import diagonal_system, scan, scan_kernel
from s5jax.ssm.diagonal_scan import diagonal_scan


@pytest.fixture
def cut(monkeypatch):
    """Pieces of five steps and more."""
    monkeypatch.setattr(scan_kernel, "SHORTEST", 5)


def outputs(a, b, Cs):
    """Re(C x) of the states forwards and, if there are two readouts, backwards, by `jax.lax.scan` in complex128."""
    y = 0
    for C, reverse in zip(Cs, (False, True), strict=False):
        start = jnp.zeros_like(b[:, 0])
        _, x = jax.lax.scan(lambda x, b_k: (a[None] * x + b_k,) * 2, start, jnp.moveaxis(b, 1, 0), reverse=reverse)
        y = y + jnp.einsum("hp,lnp->nlh", C, x).real
    return y


@variants(
    [((2, 41, 6, 3), 2), ((1, 3, 1, 1), 1), ((3, 10, 40, 2), 2)],
    shape=[(2, 41, 6, 3), (1, 3, 1, 1), (3, 10, 40, 2), (2, 1, 8, 2), (1, 64, 32, 5)],
    directions=[1, 2],
)
def test_the_fused_readout_and_its_gradients(cut, shape, directions):
    (N, L, P, H), rng = shape, np.random.default_rng(0)
    a = (rng.uniform(0.5, 1, P) * np.exp(1j * rng.uniform(-np.pi, np.pi, P))).astype(np.complex64)
    b = rng.normal(size=(N, L, 2, P)).astype(np.float32)
    Cs = [(rng.normal(size=(H, P)) + 1j * rng.normal(size=(H, P))).astype(np.complex64) for _ in range(directions)]
    g = rng.normal(size=(N, L, H)).astype(np.float32)

    @jax.jit
    def actual(a, b, Cs):
        y, pull = jax.vjp(lambda *given: diagonal_system.response(*given, method="kernel"), a, b, Cs)
        return y, pull(jnp.asarray(g))

    with jax.enable_x64(True):
        exact = jax.tree.map(lambda z: jnp.asarray(z, np.result_type(z, np.float64)), (a, b, Cs, g))
        y, pull = jax.vjp(lambda a, b, Cs: outputs(a, jax.lax.complex(b[:, :, 0], b[:, :, 1]), Cs), *exact[:3])
        expected = jax.tree.map(np.asarray, (y, pull(exact[3])))
    jax.tree.map(lambda x, y: np.testing.assert_array_less(relative_error(x, y), 1e-5), actual(a, b, Cs), expected)


@variants([(23, True, True), (10, False, False)], L=[5, 9, 10, 11, 23], varying=[False, True], reverse=[False, True])
def test_pieces_that_are_not_equally_long(cut, L, varying, reverse):
    a, b, start, w, w_end, mask = system(L, varying, masked=False)

    def weighted(a, b, start):
        states, end = diagonal_scan(a, b, initial_state=start, reverse=reverse, method="kernel")
        return jnp.sum(w * states).real + jnp.sum(w_end * end).real, (states, end)

    gradients, found = jax.jit(jax.grad(weighted, argnums=(0, 1, 2), has_aux=True))(a, b, start)
    for actual, expected in zip(found, loop(a, b, start, mask, reverse), strict=True):
        assert relative_error(actual, expected) < 1e-5
    for actual, expected in zip(gradients, loop_gradients(a, b, start, mask, reverse, w, w_end), strict=True):
        assert relative_error(actual, expected) < 1e-5


def test_pieces_fill_a_gpu_and_are_not_too_short():
    assert scan_kernel._pieces(1024, 50 * 2 * 6) == 3  # LRA Image: 600 programs without pieces
    assert scan_kernel._pieces(2048, 50 * 2) == 20  # ListOps
    assert scan_kernel._pieces(40, 1) == scan_kernel._pieces(1, 1) == scan_kernel._pieces(10_000, 5_000) == 1


@pytest.fixture
def on_a_gpu(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    scan_kernel.compiles.cache_clear()
    yield
    scan_kernel.compiles.cache_clear()


def test_auto_is_the_kernel_where_it_compiles_and_otherwise_associative(on_a_gpu, monkeypatch, capsys):
    interpreted = functools.partial(scan_kernel.pl.pallas_call, interpret=True)
    monkeypatch.setattr(scan_kernel, "_call", interpreted)
    assert scan.choose("auto", 2, 9) == "kernel"

    def refused(*_, **__):
        raise NotImplementedError("no such GPU")

    scan_kernel.compiles.cache_clear()
    monkeypatch.setattr(scan_kernel, "_call", refused)
    assert scan.choose("auto", 2, 9) == scan.choose("auto", 3, 9) == "associative"
    assert capsys.readouterr().out.count("\n") == 1  # said once
    assert scan.choose("kernel", 2, 9) == "kernel"  # what is asked for is not replaced


def drawn(rng, *shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


@pytest.mark.slow
@pytest.mark.parametrize("outer", ["jvp", "grad"])
@pytest.mark.parametrize("directions", [1, 2])
def test_derivatives_of_gradients_are_those_of_the_sequential_method(cut, outer, directions):
    """Derivatives of the fused readout, and of a scan with a multiplier for each step."""
    rng = np.random.default_rng(0)
    draw = functools.partial(drawn, rng)
    b, a, gaps, start = draw(2, 11, 2, 4), 0.3 * draw(2, 4), 0.3 * draw(2, 11, 2, 4), draw(2, 2, 4)
    C, towards = draw(directions, 2, 3, 4), draw(1, 1, 1, 4)

    def value(method, scale):
        Cs = [jax.lax.complex(*c) for c in C]
        y = diagonal_system.response(jax.lax.complex(*(a * scale[0, 0])), b * scale, Cs, method=method)
        x = scan.states(gaps * scale, b * scale, start * scale[0], reverse=directions == 2, method=method)
        return jnp.sum(y**3) + jnp.sum(x**3)

    def second(method):
        gradient = jax.grad(lambda scale: value(method, scale))
        if outer == "jvp":
            return jax.jvp(gradient, (jnp.ones((1, 1, 1, 4)),), (towards,))[1]
        return jax.grad(lambda scale: jnp.sum(gradient(scale) * towards))(jnp.ones((1, 1, 1, 4)))

    assert relative_error(jax.jit(lambda: second("kernel"))(), jax.jit(lambda: second("sequential"))()) < 1e-5
