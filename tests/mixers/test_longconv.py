"""Long convolutions against the published code's recorded numbers, their dropout, and their initial parameters."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract.longconv import system
from everyday import variants
from flax import nnx
from numerics import load_case, relative_error
from small_models import quick_key, values

from s5jax.mixers import longconv
from s5jax.models.model import Model
from s5jax.models.options import Options


def recorded(case):
    meta, data = load_case(f"longconv_{case}")
    return data, longconv.Options(
        init=meta["weight_init"],
        lam=meta["lam"],
        smoothing=meta["ma_window_len"] or 0,
        bidirectional=meta["bidirectional"],
    )


def glu_of_gelu(y, W, b):
    """The published output layer, which is the block's where there is one channel."""
    a, gate = jnp.split(jax.nn.gelu(y, approximate=False) @ W.T + b, 2, axis=-1)
    return a * jax.nn.sigmoid(gate)


@variants(
    [("causal", False), ("smooth", True), ("bidirectional", True)],
    case=["causal", "smooth", "bidirectional"],
    double=[False, True],
)
def test_recorded_outputs_and_gradients(case, double):
    data, options = recorded(case)
    names = {"D": "D", "kernel": "kernel.kernel", "W": "output_linear.0.weight", "b": "output_linear.0.bias"}
    u, w, expected = (np.swapaxes(data[name], 1, 2) for name in ("u", "w", "y"))

    def weighted_sum(inputs, w):
        params = {name: inputs[name] for name in ("D", "kernel")}
        y, state = longconv.apply(params, inputs["u"], options)
        assert state is None
        with jax.numpy_rank_promotion("allow"):
            y = glu_of_gelu(y, inputs["W"], inputs["b"])
        return jnp.sum(y * w), y

    with jax.enable_x64(double):
        dtype = np.float64 if double else np.float32
        inputs = {"u": u, **{name: data["param"][published] for name, published in names.items()}}
        inputs, w = jax.tree.map(lambda x: jnp.asarray(x, dtype), (inputs, w))
        grad, y = jax.jit(jax.grad(weighted_sum, has_aux=True))(inputs, w)
    assert y.dtype == dtype
    assert relative_error(y, expected) < (1e-9 if double else 1e-5)
    assert relative_error(np.swapaxes(grad["u"], 1, 2), data["grad_u"]) < (1e-9 if double else 1e-4)
    for name, published in names.items():
        assert relative_error(grad[name], data["grad"][published]) < (1e-9 if double else 1e-4), name


def test_the_output_layer_of_several_channels_is_the_published_one():
    options = longconv.Options(channels=2, lam=0.001, bidirectional=True)
    params = longconv.init(jax.random.key(0), 3, options, length=8)
    x = values(2, 8, 3)
    y, _ = jax.jit(lambda params, x: longconv.apply(params, x, options))(params, x)
    (expected, other), _ = system(params, options).run_batch(np.float64(x))
    assert relative_error(y, np.stack([expected, other])) < 1e-5
    each = longconv.Options(lam=0.001, bidirectional=True)
    outputs = [
        longconv.apply({"kernel": params["kernel"][c::2], "D": params["D"][c : c + 1]}, x, each)[0] for c in (0, 1)
    ]
    with jax.numpy_rank_promotion("allow"):
        expected = glu_of_gelu(jnp.concatenate(outputs, -1), params["output_kernel"].T, params["output_bias"])
    assert relative_error(y, expected) < 1e-5


def test_a_sequence_shorter_than_the_kernel():
    """It uses the first taps. The published FFT of 2 L points of the whole kernel wraps round: tap 2 L - j reaches the
    input j steps later."""
    L, W, options = 5, 9, longconv.Options(lam=0.0)
    params = longconv.init(jax.random.key(0), 2, options, length=W)
    x = values(1, L, 2)
    y = np.asarray(longconv.apply(params, x, options)[0][0], np.float64)
    K, D, u = (np.float64(v) for v in (params["kernel"][0], params["D"][0], x[0]))
    expected = np.stack([sum(K[:, j] * u[k - j] for j in range(k + 1)) + D * u[k] for k in range(L)])
    assert relative_error(y, expected) < 1e-5
    spectrum = np.fft.rfft(K, 2 * L) * np.fft.rfft(u.T, 2 * L)
    published = np.fft.irfft(spectrum, 2 * L)[:, :L].T + D * u
    wrapped = np.stack([sum(K[:, 2 * L - j] * u[k + j] for j in range(2 * L - W + 1, L - k)) + 0 * D for k in range(L)])
    assert relative_error(y + wrapped, published) < 1e-5 < relative_error(y, published)


def test_dropout_of_taps():
    """A share of the taps, the same ones for all sequences of a batch, and the others grow; only with a key."""
    options = longconv.Options(lam=0.0, kernel_dropout=0.3)
    params = longconv.init(jax.random.key(0), 50, options, length=100) | {"D": jnp.zeros((1, 50))}
    x = jnp.zeros((2, 100, 50)).at[:, 0].set(1.0)  # the response is the kernel
    run = jax.jit(lambda key: longconv.apply(params, x, options, key=key)[0])
    y, kernel = np.asarray(run(jax.random.key(1))), np.asarray(params["kernel"][0]).T
    kept = np.abs(y[0]) > 1e-6
    assert np.mean(kept) == pytest.approx(0.7, abs=4 * (0.3 * 0.7 / 5000) ** 0.5 + 0.002)
    np.testing.assert_allclose(y[0], np.where(kept, kernel / 0.7, 0), atol=1e-6)
    np.testing.assert_allclose(y[0], y[1], atol=1e-6)
    assert relative_error(run(jax.random.key(2)), y) > 0.1
    np.testing.assert_allclose(longconv.apply(params, x, options)[0][0], kernel, atol=1e-6)


def test_dropout_of_the_output_layer_is_tied_over_time():
    options = longconv.Options(lam=0.0, channels=2)
    params = longconv.init(jax.random.key(0), 40, options, length=6)
    params |= {"output_kernel": jnp.eye(80), "output_bias": jnp.full(80, 50.0).at[:40].set(0.0)}  # y = g of channel 1
    x = values(300, 6, 40) + 1.0
    run = jax.jit(lambda key, rate: longconv.apply(params, x, options, key=key, dropout=rate)[0])
    y, whole = run(jax.random.key(1), 0.4), longconv.apply(params, x, options)[0]
    kept = np.asarray(y[:, :1] != 0)
    assert np.mean(kept) == pytest.approx(0.6, abs=0.02)
    np.testing.assert_allclose(y, np.where(kept, whole / 0.6, 0), atol=1e-5)


def test_training_drops_taps_where_the_dropout_of_the_model_is_zero():
    """By a key; without one, training is refused."""
    options = Options(depth=2, d_model=4, pattern=("longconv",), norm="layer", activation="none")
    mixer = longconv.Options(kernel_dropout=0.5, lam=0.0)
    model = Model(options, {"longconv": ("longconv", mixer)}, 2, 3, head="step", length=8, rngs=nnx.Rngs(0))
    x = values(2, 8, 2)
    assert relative_error(model(x, train=True, key=quick_key(0)), model(x)) > 1e-4
    with pytest.raises(ValueError, match="training with dropout needs a key"):
        model(x, train=True)


@variants([("double_exp", True)], kind=["random", "double_exp"], two=[False, True])
def test_initial_parameters(kind, two):
    W, H = 200, 50
    options = longconv.Options(init=kind, bidirectional=two, channels=2)
    params = longconv.init(jax.random.key(0), H, options, length=W)
    assert {name: x.shape for name, x in params.items()} == {
        "kernel": (4 if two else 2, H, W), "D": (2, H), "output_kernel": (2 * H, 2 * H), "output_bias": (2 * H,)
    }  # fmt: skip
    lag, h = np.arange(W), np.arange(H)[:, None]
    size = 0.002 if kind == "random" else 0.02 * np.exp(-(lag / W) * 25 ** (h / H))
    drawn = {"kernel": np.asarray(params["kernel"]) / size, "D": params["D"]}
    drawn["output_kernel"] = params["output_kernel"] * math.sqrt(3 * 2 * H)  # uniform of variance 1
    for name, values_ in drawn.items():
        n = values_.size
        assert np.mean(values_) == pytest.approx(0, abs=4 / math.sqrt(n)), name
        assert np.std(values_) == pytest.approx(1, rel=4 / math.sqrt(n)), name
    assert np.abs(params["output_bias"]).max() <= 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 0}, "channels must lie in 1..64, got 0"),
        ({"lam": -0.1}, "lam must be at least 0, got -0.1"),
        ({"smoothing": 4}, "smoothing must be 0 or an odd number of taps below 65536, got 4"),
        ({"kernel_dropout": 1.0}, r"kernel_dropout must lie in \[0, 1\), got 1.0"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        longconv.Options(**options)


def test_impossible_arguments():
    options = longconv.Options()
    params, x = longconv.init(jax.random.key(0), 2, options, length=4), jnp.ones((1, 4, 2))
    longer = "a sequence of 5 steps is longer than the kernel of longconv, the training length, 4"
    with pytest.raises(ValueError, match=longer):
        longconv.apply(params, jnp.ones((1, 5, 2)), options)
    with pytest.raises(ValueError, match=longer):
        longconv.kernel(params, 5, options)
    with pytest.raises(ValueError, match="longconv takes no rate: it has no step size"):
        longconv.apply(params, x, options, rate=2.0)
    with pytest.raises(ValueError, match="longconv takes no reset: it expects one sequence per row"):
        longconv.apply(params, x, options, reset=jnp.zeros((1, 4), bool))
    with pytest.raises(ValueError, match="longconv has an impulse response only with one channel"):
        longconv.kernel(params, 4, longconv.Options(channels=2))
