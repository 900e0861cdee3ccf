"""Under a mesh each device computes the kernel and the Fourier transforms of its share of a batch."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everyday import variants
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numerics import relative_error

from s5jax.ssm import diagonal_system, fft_conv, scan
from s5jax.ssm.shares import by_shares

N, L, H, P = 8, 12, 3, 4


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def convolution(u, K):
    return fft_conv.convolve(u, K)


def fused_readout(b, C):
    a = jnp.asarray(0.6 * np.exp(1j * np.arange(P)), jnp.complex64)
    return diagonal_system.response(a, b, [jax.lax.complex(C[0], C[1])] * 2, method="kernel")


def all_states(b, a):
    return scan.states(a, b, jnp.zeros_like(b[:, 0]), reverse=True, method="kernel")


FUNCTIONS = {
    "convolution": (convolution, draw(N, L, H), draw(2, H, L, seed=1)),
    "readout": (fused_readout, draw(N, L, 2, P), draw(2, H, P, seed=1)),
    "states": (all_states, draw(N, L, 2, P), 0.4 * draw(1, 1, 2, P, seed=1)),
    "one multiplier a step": (all_states, draw(N, L, 2, P), 0.4 * draw(N, L, 2, P, seed=1)),
}


@variants(
    [("convolution", 4), ("readout", 4)],
    name=list(FUNCTIONS),
    devices=[2, 4, 8],
)
def test_shares_give_what_the_whole_gives(name, devices):
    """Values and gradients; those of what is whole on each device are sums over all shares."""
    function, x, given = FUNCTIONS[name]
    run = jax.jit(jax.value_and_grad(lambda x, given: jnp.sum(function(x, given) ** 2), argnums=(0, 1)))
    expected = run(x, given)
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))
    divided = NamedSharding(mesh, PartitionSpec("data"))
    with jax.set_mesh(mesh):
        x = jax.device_put(x, divided)
        given = jax.device_put(given, divided if len(given) == N else NamedSharding(mesh, PartitionSpec()))
        actual = run(x, given)
    jax.tree.map(lambda a, b: np.testing.assert_array_less(relative_error(a, b), 1e-5), actual, expected)


def test_each_device_transforms_its_share():
    u, K = draw(N, L, H), draw(2, H, L)
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    u = jax.device_put(u, NamedSharding(mesh, PartitionSpec("data")))
    with jax.set_mesh(mesh):
        text = jax.jit(convolution).lower(u, K).compile().as_text()
    batches = {int(found) for found in re.findall(rf"= [fc]\d+\[(\d+),{H},\d+\][^=]* fft\(", text)}
    assert batches == {N // 4}


def test_inside_a_shard_map_and_under_explicit_axes_nothing_is_divided_again():
    u, K = draw(N, L, H), draw(2, H, L)
    expected = convolution(u, K)
    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))
    specs = (PartitionSpec("data"), PartitionSpec())
    mapped = jax.jit(jax.shard_map(convolution, mesh=mesh, in_specs=specs, out_specs=PartitionSpec("data")))
    np.testing.assert_allclose(mapped(u, K), expected, rtol=1e-4, atol=1e-5)
    with jax.set_mesh(jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))):
        np.testing.assert_allclose(jax.jit(convolution)(u, K), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 3, 6])
def test_a_batch_that_cannot_be_divided_is_whole_on_each_device(batch):
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    seen = []
    with jax.set_mesh(mesh):
        x = jnp.arange(batch)
        y = by_shares(lambda x: seen.append(x.shape) or 2 * x, [x], batch)
    np.testing.assert_array_equal(y, 2 * np.arange(batch))
    assert seen == [(batch,)]
