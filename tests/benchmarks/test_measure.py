"""What the benchmarks count in compiled programs, against what small ones do."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks import hlo, measure

SIZE = 2**16


def moved(function, *arguments):
    text = jax.jit(function).lower(*arguments).compile().as_text()
    return hlo.moved_bytes(text), text


def test_bytes_of_a_sum():
    x = jnp.ones(SIZE)
    assert moved(lambda x: jnp.sin(x) + 1, x)[0] == 2 * 4 * SIZE


def test_bytes_of_every_pass_of_a_loop():
    x = jnp.ones(SIZE)
    total, text = moved(lambda x: jax.lax.fori_loop(0, 10, lambda i, x: jnp.cos(x) * 2, x), x)
    assert hlo.count(text, "while") == 1
    assert 10 * 2 * 4 * SIZE <= total <= 12 * 2 * 4 * SIZE  # and a copy of x, for the loop to work on


def test_what_is_sliced_and_updated_counts_with_the_part():
    x = jnp.ones((64, SIZE // 64))

    def row_after_row(x):
        def step(i, y):
            row = jax.lax.dynamic_index_in_dim(x, i, keepdims=False)
            return jax.lax.dynamic_update_index_in_dim(y, 3 * row, i, 0)

        return jax.lax.fori_loop(0, 64, step, jnp.zeros_like(x))

    total, _ = moved(row_after_row, x)
    assert 2 * 4 * SIZE <= total <= 5 * 4 * SIZE  # 64 times as much if each pass counted the whole arrays


def test_operations_of_products():
    def function(a, b, c):
        return jax.lax.scan(lambda x, _: (x @ b, None), a, length=5)[0] @ c

    a, b, c = jnp.ones((2, 3)), jnp.ones((3, 3)), jnp.ones((3, 7), jnp.complex64)
    jaxpr = jax.make_jaxpr(lambda a, b, c: function(a, b, c.real).astype(c.dtype) @ c.T)(a, b, c).jaxpr
    assert measure.product_flops(jaxpr) == 5 * 2 * 2 * 3 * 3 + 2 * 2 * 3 * 7 + 8 * 2 * 7 * 3


def test_memory_and_turns():
    program = measure.compile_program(lambda x, y: (x + y, x.sum()), jnp.ones(SIZE), jnp.ones(SIZE), donate=True)
    assert program.memory - program.scratch == pytest.approx(2 * 4 * SIZE, rel=1e-3)  # the sum takes x's place
    order = []
    times = measure.alternate({name: lambda name=name: order.append(name) for name in "ab"}, 2)
    assert order == list("ababab") and set(times) == {"a", "b"} and min(times.values()) >= 0


def test_launches_with_every_pass_of_a_loop():
    x = jnp.ones(SIZE)
    text = jax.jit(lambda x: jax.lax.fori_loop(0, 10, lambda i, x: jnp.cos(x) * 2, x)).lower(x).compile().as_text()
    found = hlo.totals(text)
    assert found.passes == 10 and 10 <= sum(found.launches.values()) <= 32
    assert found.bytes == hlo.moved_bytes(text)
    once = hlo.totals(jax.jit(lambda x: jnp.sin(x) + 1).lower(x).compile().as_text())
    assert sum(once.launches.values()) == 1 and once.passes == 0
