"""S4D-FT against the published code's recorded numbers, and what its spectra mean."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everyday import variants
from numerics import load_case, relative_error

from s5jax.mixers import s4d, s4d_ft


def ours(recorded):
    """Our parameters from those recorded."""
    params = {name.removeprefix("layer.").removeprefix("kernel."): x for name, x in recorded.items() if "layer" in name}
    C = params.pop("C")
    names = ("C",) if len(C) == 1 else ("C1", "C2")
    renamed = {"log_step": params.pop("inv_dt"), "D": params.pop("D")[0], "s": params.pop("s")[0]}
    return {**params, **dict(zip(names, C, strict=True)), **renamed}


@variants(
    [("s4d_ft_bidirectional", False), ("s4d_ft_causal", True)],
    case=["s4d_ft_bidirectional", "s4d_ft_causal"],
    double=[False, True],
)
def test_recorded_outputs_and_gradients(case, double):
    """The layer, then exact GELU, a linear map to 2 H and its gate."""
    meta, data = load_case(case)
    options = s4d_ft.Options(
        state_size=2 * meta["d_state"],
        imag_scale=float(meta["freqscale"]),
        n_ssm=meta["n_ssm"],
        dt_transform=meta["dt_transform"],
        B_trained=False,
        bidirectional=meta["bidirectional"],
        freq_bias_length=meta["L"] if double else 0,  # the same at this length
    )

    def loss(recorded, x, w):
        y = jax.nn.gelu(s4d_ft.apply(ours(recorded), x, options)[0], approximate=False)
        z = jnp.einsum("blh,oh->blo", y, recorded["output_linear.0.weight"][..., 0])
        value, gate = jnp.split(z + recorded["output_linear.0.bias"][None, None], 2, axis=-1)
        y = value * jax.nn.sigmoid(gate)
        return jnp.sum(y * w), y

    with jax.enable_x64(double):
        dtype = np.float64 if double else np.float32
        args = jax.tree.map(lambda x: jnp.asarray(x, dtype), (data["param"], data["x"], data["w"]))
        (of_params, of_x), y = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(*args)
    assert y.dtype == dtype
    assert relative_error(y, data["y"]) < (1e-9 if double else 1e-5)
    assert relative_error(of_x, data["grad_x"]) < (1e-9 if double else 1e-4)
    for name, expected in data["grad"].items():
        assert relative_error(of_params[name], expected) < (1e-9 if double else 1e-4), name


def small(width=3, **options):
    """Options, parameters with a bias, and inputs."""
    options = s4d_ft.Options(state_size=8, **options)
    params = s4d_ft.init(jax.random.key(0), width, options)
    assert not params["s"].any()
    x = np.random.default_rng(0).normal(size=(1, 20, width)).astype(np.float32)
    return options, {**params, "s": jnp.array([0.0, 2.0, -3.0])}, jnp.asarray(x)


apply = jax.jit(s4d_ft.apply, static_argnums=2)


def test_without_a_bias_it_is_s4d():
    options, params, x = small()
    plain = s4d.Options(state_size=8)
    expected = np.asarray(jax.jit(s4d.apply, static_argnums=2)(params, x, plain)[0])
    y = np.asarray(apply(params, x, options)[0])
    assert relative_error(y[..., 0], expected[..., 0]) < 1e-6  # s = 0
    assert relative_error(y, expected) > 1e-3


@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_kernel_is_the_response_to_an_impulse_before_and_after_it(bidirectional):
    options, params, x = small(bidirectional=bidirectional, freq_bias_length=20)
    impulse = np.zeros_like(x)
    impulse[:, 8] = 1
    y = np.asarray(apply({**params, "D": jnp.zeros(3)}, impulse, options)[0][0]).T
    K = np.asarray(jax.jit(s4d_ft.kernel, static_argnums=(1, 2))(params, 20, options))
    assert relative_error(y[:, 8:], K[0, :, :12]) < 1e-5
    assert relative_error(y[:, 7::-1], K[1, :, :8]) < 1e-5
    assert np.abs(K[1, 1]).max() > 1e-3  # outputs before the input


def test_padding_matters_only_to_a_bias_of_the_batchs_length():
    lengths = np.array([20])
    for freq_bias_length, padding in ((0, "zeros"), (40, "exact")):
        options, params, x = small(freq_bias_length=freq_bias_length)
        assert s4d_ft.PADDING(options) == padding
        padded = jnp.pad(x, ((0, 0), (0, 15), (0, 0)))
        y, alone = apply(params, padded, options, lengths=lengths)[0][:, :20], apply(params, x, options)[0]
        assert (relative_error(y, np.asarray(alone)) < 1e-6) == (padding == "exact")


def test_what_cannot_be():
    with pytest.raises(ValueError, match="mode must be convolution"):
        s4d_ft.Options(mode="scan")
    with pytest.raises(ValueError, match="backward_skips_current True"):
        s4d_ft.Options(backward_skips_current=False)
    options, params, x = small(freq_bias_length=19)
    with pytest.raises(ValueError, match="freq_bias_length must be at least the length of the sequences, 20; got 19"):
        s4d_ft.apply(params, x, options)
    with pytest.raises(ValueError, match="both directions: it cannot start from a state"):
        s4d_ft.apply(params, x, options, state=jnp.zeros((1, 3, 4), jnp.complex64))
