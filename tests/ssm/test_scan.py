import functools
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numerics import relative_error

from s5jax.ssm import scan

METHODS = [method for method in typing.get_args(scan.Method) if method != "auto"]  # which is one of the others
LENGTHS = [1, 2, 3, 63, 64, 65, 1000]


def states(a, b, start, reverse, method):
    """`scan.states` of arrays that are not packed: a (N or 1, L or 1, P), b (N, L, P), start (N, P)."""
    return scan.unpack(scan.states(*map(scan.pack, (a, b, start)), reverse=reverse, method=method))


def loop(a, b, start, reverse):
    """The recurrence in complex128, one step after the other."""
    states = np.zeros(b.shape, np.complex128)
    x = start.astype(np.complex128)
    a = np.broadcast_to(a, b.shape)
    for k in range(b.shape[-2])[:: -1 if reverse else 1]:
        x = a[..., k, :] * x + b[..., k, :]
        states[..., k, :] = x
    return states


def loop_gradients(a, b, start, reverse, w):
    """Derivatives of Re sum(w * states) by a float64 adjoint sweep written out for the loop.

    Returned in jax's convention for complex arguments: d/d(re) - i d/d(im).
    """
    order = list(range(b.shape[-2]))[:: -1 if reverse else 1]
    states = loop(a, b, start, reverse)
    full_a = np.broadcast_to(a, b.shape)
    da, db = np.zeros(b.shape, complex), np.zeros(b.shape, complex)
    adjoint = np.zeros(start.shape, complex)
    for position in reversed(range(len(order))):
        k = order[position]
        previous = states[..., order[position - 1], :] if position else start
        adjoint = adjoint + w[..., k, :]
        db[..., k, :] = adjoint
        da[..., k, :] = adjoint * previous
        adjoint = adjoint * full_a[..., k, :]
    for axis in range(da.ndim):  # sum where a was broadcast
        if a.shape[axis] == 1:
            da = da.sum(axis, keepdims=True)
    return da, db, adjoint


def system(L, varying, B=2, P=5):
    """Multipliers with |a| = 0, 1 and between; complex phases."""
    rng = np.random.default_rng(0)
    shape = {"step": (B, L, P), "sequence": (B, 1, P), "not": (1, 1, P)}[varying]
    modulus = np.broadcast_to(np.array([0.0, 0.3, 0.9, 0.999, 1.0]), shape)
    a = modulus * np.exp(1j * rng.uniform(-np.pi, np.pi, shape))
    b, w = (rng.normal(size=(B, L, P, 2)) @ [1, 1j] for _ in range(2))
    start = rng.normal(size=(B, P, 2)) @ [1, 1j]
    return [x.astype(np.complex64) for x in (a, b, start, w)]


KINDS = [(L, varying) for L in LENGTHS for varying in ("not", "step")] + [(1, "sequence"), (65, "sequence")]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("L", "varying"), KINDS)
def test_values_and_gradients_against_a_float64_loop(L, varying, reverse, method):
    a, b, start, w = system(L, varying)

    def weighted(a, b, start):
        x = states(a, b, start, reverse, method)
        return jnp.sum(w * x).real, x

    gradients, actual = jax.jit(jax.grad(weighted, argnums=(0, 1, 2), has_aux=True))(a, b, start)
    # Rounding grows with the length where |a| = 1: squaring doubles a relative error, so that a^L is off by L eps.
    tolerance = (16 + L) * np.finfo(np.float32).eps
    assert relative_error(actual, loop(a, b, start, reverse)) < tolerance
    for gradient, expected in zip(gradients, loop_gradients(a, b, start, reverse, w), strict=True):
        assert relative_error(gradient, expected) < 2 * tolerance


def test_the_adjoint_sweep_of_this_file_is_the_derivative():
    """Central differences on the float64 loop, so that the comparison above rests on no formula."""
    a, b, start, w = system(4, "step")
    args = [x.astype(np.complex128) for x in (a, b, start)]

    def value(args):
        return (w * loop(*args, True)).sum().real

    for which, gradient in enumerate(loop_gradients(*args, True, w)):
        for index in np.ndindex(args[which].shape):
            for unit, part in ((1, gradient[index].real), (1j, -gradient[index].imag)):
                up, down = ([x.copy() for x in args] for _ in range(2))
                up[which][index] += 1e-6 * unit
                down[which][index] -= 1e-6 * unit
                assert (value(up) - value(down)) / 2e-6 == pytest.approx(part, abs=1e-7)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("reverse", [False, True])
def test_real_systems(method, reverse):
    rng = np.random.default_rng(1)
    b, start = (rng.normal(size=shape).astype(np.float32) for shape in ((3, 9, 4), (3, 4)))
    for shape in [(1, 1, 4), (3, 1, 4), (3, 9, 4)]:
        a = rng.uniform(0, 1, shape).astype(np.float32)
        x = jax.jit(functools.partial(states, reverse=reverse, method=method))(a, b, start)
        assert x.dtype == jnp.float32 and relative_error(x, loop(a, b, start, reverse)) < 1e-5
