"""Edges of the mixers around S4: rates of 0 and below, large step sizes, constants, options that are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everyday import variants
from numerics import relative_error

from s5jax import mixers
from s5jax.mixers import dss, hope, liquid, s4d, s4d_ft, sgconv

TIMED = ("dss", "essm", "gss", "h3", "hope", "liquid", "lru", "s4", "s4d", "s4d_ft", "s5")
B, L, H = 2, 8, 4


def made(mixer, options):
    """Parameters and inputs."""
    params = jax.jit(lambda key: mixer.init(key, H, options, length=L))(jax.random.key(0))
    return params, jnp.asarray(np.random.default_rng(0).normal(size=(B, L, H)), jnp.float32)


@variants(["dss", "liquid"], name=TIMED)
def test_a_negative_rate_of_one_sequence_is_refused(name):
    mixer = mixers.find(name)
    params, x = made(mixer, mixer.Options())
    with pytest.raises(ValueError, match="rate must be finite and at least 0"):
        mixer.apply(params, x, mixer.Options(), rate=jnp.array([-1.0, 1.0]))


def test_a_negative_rate_of_dss_in_steps_is_refused():
    options = dss.Options(max_kernel_length=5)
    params, _ = made(dss, options)
    with pytest.raises(ValueError, match="rate must be finite and at least 0"):
        dss.discretize(params, options, rate=jnp.array([-1.0, 1.0]))


@pytest.mark.parametrize("mixer", [hope, s4d, s4d_ft])
@pytest.mark.parametrize("dt", [(1e-6, 1e-5), (50.0, 200.0)])
def test_step_sizes_through_softplus(mixer, dt):
    options = mixer.Options(dt_transform="softplus", dt_min=dt[0], dt_max=dt[1])
    params, _ = made(mixer, options)
    steps = np.asarray(mixer.time_step(params, options))
    assert (steps > 0.999 * dt[0]).all() and (steps < 1.001 * dt[1]).all()
    assert steps.std() > 0


@pytest.mark.parametrize("base", ["s4", "s4d"])
def test_liquid_where_no_time_passes(base):
    """y = D u, and what the state holds from before."""
    options = liquid.Options(base=base, state_size=4, init="legs", liquid_kernel="kb")
    params, x = made(liquid, options)

    def loss(params):
        y, _ = liquid.apply(params, x, options, rate=jnp.array([0.0, 1.0]))
        return jnp.sum(y**2), y

    gradients, y = jax.jit(jax.grad(loss, has_aux=True))(params)
    assert relative_error(y[0], np.asarray(params["D"]) * np.asarray(x[0])) < 1e-6
    assert all(np.isfinite(value).all() for value in gradients.values())


def test_hope_in_two_directions_where_no_time_passes():
    options = hope.Options(state_size=4, bidirectional=True)
    params, x = made(hope, options)

    def gradients(rate):
        return jax.jit(jax.grad(lambda p: jnp.sum(hope.apply(p, x, options, rate=rate)[0] ** 2)))(params)

    none, little = gradients(0.0), gradients(1e-7)
    for name, value in none.items():
        assert np.isfinite(value).all()
        assert np.linalg.norm(value - little[name]) < 1e-3 * np.linalg.norm(none["h"])


def test_time_steps_of_dss_are_in_the_unit_of_its_eigenvalues():
    options = dss.Options(state_size=2)
    params, _ = made(dss, options)
    params["log_step"] = params["log_step"] + jnp.array([[0.0, 0.7]])
    A_bar = dss.discretize(params, options)["A_bar"]
    expected = np.exp(np.asarray(dss.time_step(params, options)) * np.asarray(dss.eigenvalues(params, options)))
    assert relative_error(A_bar, np.broadcast_to(expected, A_bar.shape)) < 1e-5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: made(sgconv, sgconv.Options(kernel_dim=1, scales=12, decay_max=1000.0)), "decay_max 1000.0"),
        (lambda: hope.Options(readout="glu", mirror=False), "readout glu needs mirror=True"),
    ],
)
def test_options_that_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


REFUSED = {
    "hope": ("reset", "rate for each step", "state in two directions"),
    "liquid": ("rate for each step", "state in two directions"),
    "longconv": ("reset", "rate", "state in two directions"),
    "rtf": ("reset", "rate", "state in two directions"),
    "s4d_ft": ("reset", "rate for each step"),
    "sgconv": ("reset", "rate", "state in two directions"),
}
ARGUMENTS = {
    "reset": {"reset": np.zeros((B, L), bool)},
    "rate": {"rate": 2.0},
    "rate for each step": {"rate": np.ones((B, L), np.float32)},
}
MESSAGES = {
    "reset": "takes no reset: it expects one sequence per row",
    "rate": "takes no rate: it has no step size",
    "rate for each step": "takes one rate per sequence, not one per step",
    "state": "reads in both directions: it cannot start from a state",
}


@pytest.mark.parametrize(("name", "given"), [(name, given) for name, all_ in REFUSED.items() for given in all_])
def test_an_argument_that_a_mixer_cannot_use_is_refused_by_apply(name, given):
    mixer, (argument, _, two) = mixers.find(name), given.partition(" in ")
    options = mixer.Options(bidirectional=bool(two))
    params, x = made(mixer, options)
    if argument == "state":
        causal = mixer.Options()
        arguments = {"state": mixer.init_state(mixer.init(jax.random.key(0), H, causal, depth=1, length=L), causal, B)}
    else:
        arguments = {n: jnp.asarray(v) for n, v in ARGUMENTS[argument].items()}
    with pytest.raises(ValueError, match=f"{name} {MESSAGES[argument]}"):
        mixer.apply(params, x, options, **arguments)
