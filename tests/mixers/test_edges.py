"""Arguments at the edge of what the contract allows: shapes that broadcast, NaN, other precisions, wrong choices."""

import dataclasses

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from everyday import variants
from small_models import MIXERS, double_precision, values

from s5jax import mixers
from s5jax.mixers import lru, s4d, s5

B, L, H = 3, 12, 4
LINEAR = ["s5", "s5-two", "lru", "s4d", "s4d-two", "s4"]


def made(name, **changes):
    """A mixer, its options, its parameters and inputs."""
    module, options = MIXERS[name]
    module = mixers.find(module)
    options = type(options)(**{**vars(options), **changes})
    init = jax.jit(lambda key: module.init(key, H, options, depth=1, length=L))
    return module, options, init(jax.random.key(1)), values(B, L, H)


def compiled(mixer, options):
    return jax.jit(lambda params, x, **arguments: mixer.apply(params, x, options, **arguments))


@variants([("s4", (B, 1))], name=LINEAR, shape=[(1, L), (B, 1)])
def test_a_rate_and_a_reset_broadcast(name, shape):
    mixer, options, params, x = made(name)
    rate = np.random.default_rng(0).uniform(0.5, 2, shape).astype(np.float32)
    reset = np.random.default_rng(1).random(shape) < 0.3
    whole = {"rate": np.broadcast_to(rate, (B, L)), "reset": np.broadcast_to(reset, (B, L))}
    apply = compiled(mixer, options)
    y, _ = apply(params, x, rate=rate, reset=reset)
    np.testing.assert_array_equal(y, apply(params, x, **whole)[0])


@variants(
    [(s5, "chunked")],
    mixer=[s5, lru],
    method=["chunked", "associative", "plain"],
)
def test_every_way_to_scan_takes_resets(mixer, method):
    reset = (np.arange(L) % 5 == 0)[None]
    name = {s5: "s5", lru: "lru"}[mixer]
    _, options, params, x = made(name, scan_method=method)
    y, _ = compiled(mixer, options)(params, x, reset=reset)
    expected, _ = compiled(mixer, dataclasses.replace(options, scan_method="sequential"))(params, x, reset=reset)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


@variants(["lru", "s4"], name=["s5", "lru", "s4d", "s4"])
def test_a_reset_starts_anew_even_from_nan(name):
    mixer, options, params, x = made(name)
    start = np.asarray(mixer.init_state(params, options, B))
    reset, apply = np.zeros((B, L), bool), compiled(mixer, options)
    expected, end = apply(params, x, reset=reset, state=start)
    reset[:, 0] = True
    y, state = apply(params, x, reset=reset, state=np.full_like(start, np.nan))
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state, end, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["s5", "lru", "s4d", "s4"])
def test_inputs_of_double_precision_take_the_precision_of_the_parameters(name):
    mixer, options, params, x = made(name)
    with double_precision():
        wide, rate = jnp.asarray(x, jnp.float64), jnp.ones((B, L), jnp.float64)
        state = mixer.init_state(params, options, B)
        y, after = jax.eval_shape(lambda x: mixer.apply(params, x, options, state=state), wide)
        assert y.dtype == jnp.float32 and after.dtype == jnp.complex64
        jax.eval_shape(jax.grad(lambda p: mixer.apply(p, wide, options, rate=rate)[0].sum()), params)
        y, after = jax.eval_shape(
            lambda x: mixer.step(mixer.discretize(params, options), state, x, options), jnp.ones((B, H), jnp.float64)
        )
        assert y.dtype == jnp.float32 and after.dtype == jnp.complex64


@variants(["s4"], name=["s4", "s4d"])
def test_convolutions_say_what_allows_forward_mode(name):
    mixer, options, params, x = made(name)
    with pytest.raises(TypeError, match='scan_method="plain"'):
        jax.jit(lambda x: jax.jvp(lambda x: mixer.apply(params, x, options)[0], (x,), (x,))).lower(x)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (s4d.Options, {"discretization": "tustin"}),
        (s4d.Options, {"D_init": "normall"}),
        (s4d.Options, {"mode": "x"}),
        (s5.Options, {"C_init": "trunc"}),
        (lru.Options, {"scan_method": "plane"}),
        (type(MIXERS["s4"][1]), {"init": "hippo"}),
        (type(MIXERS["attention"][1]), {"positions": "sine"}),
        (type(MIXERS["attention"][1]), {"cache": "grow"}),
    ],
)
def test_a_choice_that_there_is_not(options, field, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # which would refuse it first, in tests alone
    ((name, value),) = field.items()
    with pytest.raises(ValueError, match=f"{name} must be one of .*; got '{value}'"):
        options(**field)


@pytest.mark.parametrize("init", ["legs", "real", "random"])
def test_what_imag_random_is_for(init):
    with pytest.raises(ValueError, match="imag_random"):
        s4d.Options(init=init, imag_random=True)
