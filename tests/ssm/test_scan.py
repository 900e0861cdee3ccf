import functools
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everyday import variants
from numerics import relative_error

from s5jax.ssm import scan
from s5jax.ssm.diagonal_scan import diagonal_scan

METHODS = [method for method in typing.get_args(scan.Method) if method != "auto"]  # which is one of the others
LENGTHS = [1, 2, 3, 63, 64, 65, 1000]


def loop(a, b, start, mask, reverse):
    """The recurrence in complex128, one step after the other."""
    states = np.zeros(b.shape, np.complex128)
    x = np.broadcast_to(start, b.shape[:-2] + b.shape[-1:]).astype(np.complex128)
    a = np.broadcast_to(a, b.shape)
    for k in range(b.shape[-2])[:: -1 if reverse else 1]:
        x = np.where(mask[..., k, None], a[..., k, :] * x + b[..., k, :], x)
        states[..., k, :] = x
    return states, x


def loop_gradients(a, b, start, mask, reverse, w, w_end):
    """Derivatives of Re sum(w * states) + Re sum(w_end * final) by a float64 adjoint sweep written out for the loop.

    Returned in jax's convention for complex arguments: d/d(re) - i d/d(im).
    """
    order = list(range(b.shape[-2]))[:: -1 if reverse else 1]
    states, _ = loop(a, b, start, mask, reverse)
    full_a = np.broadcast_to(a, b.shape)
    da, db = np.zeros(b.shape, complex), np.zeros(b.shape, complex)
    adjoint = w_end.astype(np.complex128)
    start = np.broadcast_to(start, w_end.shape)
    for position in reversed(range(len(order))):
        k = order[position]
        previous = states[..., order[position - 1], :] if position else start
        adjoint = adjoint + w[..., k, :]
        m = mask[..., k, None]
        db[..., k, :] = np.where(m, adjoint, 0)
        da[..., k, :] = np.where(m, adjoint * previous, 0)
        adjoint = np.where(m, adjoint * full_a[..., k, :], adjoint)
    for axis in range(da.ndim):  # sum where a was broadcast
        padded = (1,) * (da.ndim - a.ndim) + a.shape
        if padded[axis] == 1:
            da = da.sum(axis, keepdims=True)
    return da.reshape(a.shape), db, adjoint


def system(L, varying, masked, seed=0, batch=(2,), P=5):
    """Multipliers with |a| = 0, 1 and between; complex phases."""
    rng = np.random.default_rng(seed)
    shape = (*batch, L, P) if varying else (P,)
    modulus = np.broadcast_to(np.array([0.0, 0.3, 0.9, 0.999, 1.0]), shape)
    a = modulus * np.exp(1j * rng.uniform(-np.pi, np.pi, shape))
    b, w = (rng.normal(size=(*batch, L, P, 2)) @ [1, 1j] for _ in range(2))
    start, w_end = (rng.normal(size=(*batch, P, 2)) @ [1, 1j] for _ in range(2))
    mask = rng.random((*batch, L)) < 0.6 if masked else np.ones((*batch, L), bool)
    return [x.astype(np.complex64) for x in (a, b, start, w, w_end)] + [mask]


# All combinations at two lengths; at the others, where each is a compilation more, the plainest and the fullest.
KINDS = [
    (L, varying, masked)
    for L in LENGTHS
    for varying, masked in ([(a, b) for a in (0, 1) for b in (0, 1)] if L in (1, 65) else [(0, 0), (1, 1)])
]


@variants(
    [
        *(((65, 0, 1), True, method) for method in METHODS),
        *(((65, 1, 0), False, method) for method in METHODS if method != "associative"),
        *(((1000, 1, 1), True, method) for method in ("sequential", "chunked")),
        ((1, 1, 1), False, "associative"),
    ],
    kind=KINDS,
    reverse=[False, True],
    method=METHODS,
)
def test_values_and_gradients_against_a_float64_loop(kind, reverse, method):
    L, varying, masked = kind
    a, b, start, w, w_end, mask = system(L, varying, masked)

    def weighted(a, b, start):
        states, end = diagonal_scan(
            a, b, initial_state=start, mask=jnp.asarray(mask) if masked else None, reverse=reverse, method=method
        )
        return jnp.sum(w * states).real + jnp.sum(w_end * end).real, (states, end)

    gradients, (states, end) = jax.jit(jax.grad(weighted, argnums=(0, 1, 2), has_aux=True))(a, b, start)
    expected_states, expected_end = loop(a, b, start, mask, reverse)
    # Rounding grows with the length where |a| = 1: squaring doubles a relative error, so that a^L is off by L eps.
    tolerance = (16 + L) * np.finfo(np.float32).eps
    assert relative_error(states, expected_states) < tolerance
    assert relative_error(end, expected_end) < tolerance
    expected_gradients = loop_gradients(a, b, start, mask, reverse, w, w_end)
    for actual, expected in zip(gradients, expected_gradients, strict=True):
        assert relative_error(actual, expected) < 2 * tolerance


def test_the_adjoint_sweep_of_this_file_is_the_derivative():
    """Central differences on the float64 loop, so that the comparison above rests on no formula."""
    a, b, start, w, w_end, mask = system(4, varying=True, masked=True, batch=())
    args = [x.astype(np.complex128) for x in (a, b, start)]

    def value(args):
        states, end = loop(*args, mask, True)
        return (w * states).sum().real + (w_end * end).sum().real

    for which, gradient in enumerate(loop_gradients(*args, mask, True, w, w_end)):
        for index in np.ndindex(args[which].shape):
            for unit, part in ((1, gradient[index].real), (1j, -gradient[index].imag)):
                up, down = ([x.copy() for x in args] for _ in range(2))
                up[which][index] += 1e-6 * unit
                down[which][index] -= 1e-6 * unit
                assert (value(up) - value(down)) / 2e-6 == pytest.approx(part, abs=1e-7)


@variants([("associative", False), ("chunked", True)], method=METHODS, reverse=[False, True])
def test_real_systems_and_every_way_to_broadcast(method, reverse):
    rng = np.random.default_rng(1)
    b = rng.normal(size=(2, 3, 9, 4)).astype(np.float32)
    run = jax.jit(functools.partial(diagonal_scan, reverse=reverse, method=method))
    for shape in [(4,), (9, 4), (9, 1), (3, 1, 4), (2, 3, 9, 4), (1, 4)]:
        a = rng.uniform(0, 1, shape).astype(np.float32)
        start = rng.normal(size=4).astype(np.float32)
        states, end = run(a, b, initial_state=start)
        assert states.dtype == jnp.float32
        expected = loop(a, b, start, np.ones(b.shape[:-1], bool), reverse)
        assert relative_error(states, expected[0]) < 1e-5
        assert relative_error(end, expected[1]) < 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_the_default_start_is_zero_and_one_mask_serves_a_batch(method):
    a, b, _, _, _, _ = system(6, varying=False, masked=False)
    mask = np.array([True, True, False, True, False, False])
    states, _ = jax.jit(functools.partial(diagonal_scan, method=method))(a, b, mask=mask)
    expected, _ = loop(a, b, np.zeros(5), np.broadcast_to(mask, (2, 6)), False)
    assert relative_error(states, expected) < 1e-5


def test_bad_arguments():
    a, b = jnp.ones(3), jnp.ones((2, 4, 3))
    with pytest.raises(
        ValueError, match="must be one of auto, sequential, chunked, associative, kernel, plain; got 'parallel'"
    ):
        diagonal_scan(a, b, method="parallel")
    with pytest.raises(ValueError, match="at least one step"):
        diagonal_scan(a, b[:, :0])
    with pytest.raises(ValueError, match="same dtype"):
        diagonal_scan(a.astype(jnp.complex64), b)
