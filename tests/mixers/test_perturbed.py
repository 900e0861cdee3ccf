"""S5-PTD and S4-PTD: the mixers that start from HiPPO-LegS with a perturbation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dense import exponential
from numerics import relative_error

from s5jax.mixers import s4d, s5
from s5jax.ssm import hippo
from s5jax.ssm.ptd import perturbed_legs


def initial(layer, options, H=3):
    """Initial parameters in NumPy, B and C complex, from a key that is always the same."""
    params = {name: np.asarray(x) for name, x in layer.init(jax.random.key(0), H, options).items()}
    return {name: x @ [1, 1j] if name[0] in "BC" else x for name, x in params.items()}


def test_s5_ptd_is_s5_in_other_coordinates():
    """With the same key both draw the same B and C, and take them to their eigenbases."""
    n, J = 8, 2
    A, _, P = hippo.legs(n)
    result, drawn = perturbed_legs(n), []
    for name, V in (("normal", hippo.normal_part(A, P)[1]), ("ptd-conjugate", result.V)):
        params = initial(s5, s5.Options(state_size=n * J, blocks=J, init=name, conj_sym=False))
        basis = np.kron(np.eye(J), V)
        drawn.append((basis @ params["B"], params["C"] @ np.linalg.inv(basis)))
    for expected, actual in zip(*drawn, strict=True):
        assert relative_error(actual, expected) < 1e-5
    assert np.abs(drawn[1][0].imag).max() < 1e-5
    np.testing.assert_allclose(params["Lambda_re"] + 1j * params["Lambda_im"], np.tile(result.Lambda, J), rtol=1e-6)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_s5_ptd_has_the_parameters_of_s5(bidirectional):
    options = {"state_size": 16, "blocks": 2, "bidirectional": bidirectional}
    normal, ptd = (initial(s5, s5.Options(init=name, **options)) for name in ("normal", "ptd-conjugate"))
    assert jax.tree.map(np.shape, ptd) == jax.tree.map(np.shape, normal)
    Lambda = perturbed_legs(8).halves()[0]
    np.testing.assert_allclose(ptd["Lambda_re"] + 1j * ptd["Lambda_im"], np.tile(Lambda, 2), rtol=1e-6)


def test_s5_ptd_has_the_same_outputs_with_all_modes_as_with_half_of_them():
    J, H = 2, 3
    half, full = (
        s5.Options(state_size=8 * J, blocks=J, init="ptd-conjugate", conj_sym=conj_sym) for conj_sym in (True, False)
    )
    params, start = (s5.init(jax.random.key(0), H, options) for options in (half, full))

    def both(name, axis=0, sign=(1, 1)):
        """The stored modes of each block, and then their conjugates."""
        blocks = np.split(np.asarray(params[name]), J, axis)
        return jnp.asarray(np.concatenate([y for block in blocks for y in (block, np.float32(sign) * block)], axis))

    carried = {
        "Lambda_re": both("Lambda_re", sign=1),
        "Lambda_im": both("Lambda_im", sign=-1),
        "B": both("B", sign=(1, -1)),
        "C": both("C", 1, sign=(1, -1)),
        "D": params["D"],
        "log_step": both("log_step", sign=1),
    }
    for name in ("Lambda_re", "Lambda_im", "B"):
        np.testing.assert_allclose(carried[name], start[name], atol=1e-6)
    u = jnp.asarray(np.random.default_rng(0).normal(size=(1, 50, H)), jnp.float32)
    apply = jax.jit(s5.apply, static_argnums=2)
    assert relative_error(apply(carried, u, full)[0], apply(params, u, half)[0]) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("kappa", [0.0, 20.0])
def test_the_kernel_of_s4_ptd_is_that_of_the_dense_system(kappa):
    n, H, L = 16, 4, 100
    A, B, _ = hippo.legs(n)
    options = s4d.Options(state_size=n, init="ptd-conjugate", ptd_kappa=kappa)
    result, params = perturbed_legs(n, kappa), initial(s4d, options, H)
    V = result.V[:, : n // 2]
    C = np.linalg.solve(np.c_[V.real, V.imag].T, np.c_[params["C"].real, params["C"].imag].T).T
    assert C.std() == pytest.approx(1, rel=0.2)
    K = jax.jit(s4d.kernel, static_argnums=(1, 2))(s4d.init(jax.random.key(0), H, options), L, options)[0]
    for h, Delta in enumerate(np.exp(params["log_step"].astype(np.float64))[:, 0]):
        M = exponential(Delta * np.r_[np.c_[A + result.E, B], np.zeros((1, n + 1))])
        state, expected = M[:n, n], []
        for _ in range(L):
            expected.append(C[h] @ state)
            state = M[:n, :n] @ state
        assert relative_error(K[h], expected) < 1e-5


def test_s4_ptd_is_the_same_with_a_b_that_does_not_train():
    kept, fixed = (s4d.Options(state_size=8, init="ptd-conjugate", B_trained=trained) for trained in (True, False))
    params, less = (s4d.init(jax.random.key(0), 3, options) for options in (kept, fixed))
    assert params.keys() - less.keys() == {"B"}
    B = 2 * (initial(s4d, kept)["B"] @ perturbed_legs(8).V[:, :4].T).real
    np.testing.assert_allclose(B, np.tile(hippo.legs(8)[1], (3, 1)), rtol=1e-5)
    kernel = jax.jit(s4d.kernel, static_argnums=(1, 2))
    assert relative_error(kernel(less, 20, fixed), kernel(params, 20, kept)) < 1e-6


@pytest.mark.parametrize(
    ("layer", "options", "message"),
    [
        (s5, {"ptd_kappa": 6.0}, "ptd_kappa .* got 6"),
        (s5, {"init": "ptd-conjugate", "ptd_kappa": 0.5}, "ptd_kappa must be 0 .* at least 1: .*; got 0.5"),
        (s4d, {"ptd_kappa": 6.0}, "ptd_kappa .* got 6"),
        (s4d, {"init": "ptd-conjugate", "ptd_kappa": 0.5}, "ptd_kappa must be 0 .* at least 1: .*; got 0.5"),
    ],
)
def test_wrong_options_are_named(layer, options, message):
    with pytest.raises(ValueError, match=message):
        layer.Options(**options)
