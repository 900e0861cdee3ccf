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


@pytest.fixture
def plain_annotations():
    """Without the checks of annotations that the tests add."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


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


WRONG = {
    "above": ({"lengths": [13, 3, 1]}, r"lengths must lie in 0\.\.12, got 13"),
    "below": ({"lengths": np.array([12, -1, 1])}, r"lengths must lie in 0\.\.12, got -1"),
    "floats": ({"lengths": np.ones(B)}, "lengths must be integers, got float32"),
    "one": ({"lengths": np.array([3])}, r"lengths must have the shape \(3,\), got \(1,\)"),
    "mask of a sequence": ({"mask": np.ones(L, bool)}, r"mask must have the shape \(3, 12\), got \(12,\)"),
    "mask of numbers": ({"mask": np.ones((B, L))}, "mask must be boolean, got float32"),
    "reset": ({"reset": np.ones((B, 2), bool)}, r"reset must have the shape \(3, 12\), got \(3, 2\)"),
}
WRONG_RATES = {
    "negative": (-1.0, "at least 0"),
    "nan": (np.nan, "finite"),
    "infinite": (np.ones((B, L)) * np.inf, "finite"),
    "shape": (np.ones(2), r"shape \(\), \(3,\) or \(3, 12\), got \(2,\)"),
}


@variants([("s5", "above"), ("attention", "mask of a sequence")], name=[*LINEAR, "attention"], case=list(WRONG))
def test_a_wrong_argument_of_a_mixer_is_named(name, case, plain_annotations):
    mixer, options, params, x = made(name)
    given, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        mixer.apply(params, x, options, **given)


@variants([("s5", "negative"), ("s4d", "infinite")], name=["s5", "lru", "s4d", "s4"], case=list(WRONG_RATES))
def test_a_wrong_rate_of_a_mixer_is_named(name, case, plain_annotations):
    rate, message = WRONG_RATES[case]
    mixer, options, params, x = made(name)
    with pytest.raises(ValueError, match=f"rate must .*{message}"):
        mixer.apply(params, x, options, rate=rate)
    if np.ndim(rate) == 0:
        with pytest.raises(ValueError, match="rate must be finite and at least 0"):
            mixer.discretize(params, options, rate=rate)
        with pytest.raises(ValueError, match="rate must be finite and at least 0"):
            mixer.kernel(params, L, options, rate=rate)


@variants(["s5", "s4d"], name=[*LINEAR, "attention"])
def test_what_a_mixer_cannot_know_is_nan(name):
    mixer, options, params, x = made(name)
    apply = compiled(mixer, options)
    y, _ = apply(params, x, lengths=jnp.array([L + 1, L, -1]))
    assert np.isnan(y[0]).all() and np.isfinite(y[1]).all() and np.isnan(y[2]).all()
    y, _ = apply(params, x, lengths=jnp.array([L + 1, L, L]), mask=jnp.arange(L)[None] < jnp.full((B, 1), 2))
    assert np.isnan(y[0]).all() and np.isfinite(y[1:]).all()
    if name != "attention":
        y, _ = apply(params, x, rate=jnp.array([1.0, -1.0, np.inf]))
        assert np.isfinite(y[0]).all() and np.isnan(y[1]).all() and np.isnan(y[2]).all()


@variants(["s5"], name=[*LINEAR, "attention"])
def test_lists_and_narrow_integers_are_lengths(name, plain_annotations):
    mixer, options, params, x = made(name)
    y, _ = mixer.apply(params, x, options, lengths=[3, 12, 1])
    expected, _ = mixer.apply(params, x, options, lengths=np.array([3, 12, 1], np.uint8))
    np.testing.assert_array_equal(y, expected)
