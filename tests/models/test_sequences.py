"""Padding, missing samples, several sequences in a row and the time between samples, through whole models."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from numerics import relative_error
from small_models import build, differentiated, quick_key, split, values

from s5jax.models.recurrent import Pooled
from s5jax.ssm.sequence import Sequences

L = 19
CUTS = [(5, 7, 4), (1, 8, 9)]  # sequences in the two rows of a batch; the first row is padded
ENDS = [sum(cuts) for cuts in CUTS]


@functools.cache
def in_a_row(timed):
    """Two rows of three sequences, then the six alone, with missing samples and, where asked for, gaps between samples.
    What must not matter is NaN."""
    rng = np.random.default_rng(0)
    batch = {
        "inputs": rng.normal(size=(8, L, 2)).astype(np.float32),
        "mask": rng.random((8, L)) < 0.3,
        "rate": np.exp(rng.normal(size=(8, L))).astype(np.float32),
        "weights": rng.normal(size=(8, L, 3)).astype(np.float32),
    }
    lengths, reset = np.array([*ENDS, *(n for cuts in CUTS for n in cuts)]), np.zeros((8, L), bool)
    for i, cuts in enumerate(CUTS):
        for j, (start, n) in enumerate(zip(np.cumsum((0, *cuts[:-1])), cuts, strict=True)):
            reset[i, start] = j > 0
            for array in batch.values():
                array[2 + 3 * i + j, :n] = array[i, start : start + n]
    padding = np.arange(L)[None] >= lengths[:, None]
    batch["inputs"][padding | batch["mask"]] = np.nan
    batch["rate"][padding] = np.nan
    batch["weights"][padding] = 0
    reset[padding] = True  # nobody may look there
    if not timed:
        del batch["rate"]
    return {**batch, "lengths": lengths, "reset": reset}


@pytest.mark.parametrize(
    ("pattern", "timed"),
    [
        (("s5-two",), True),
        pytest.param(("s5-two", "lru"), True, marks=pytest.mark.slow),
        pytest.param(("attention", "s4d-two"), False, marks=pytest.mark.slow),
        pytest.param(("s5", "s4d-two", "s4d-scan"), True, marks=pytest.mark.slow),
        pytest.param(("attention-two", "s4"), False, marks=pytest.mark.slow),
    ],
)
def test_three_sequences_in_a_row_are_each_alone(pattern, timed):
    """Outputs at each step, statistics of the batch, and gradients; and the head `sequence` speaks of the last one."""
    model, batch, results = build(*pattern, head="step"), dict(in_a_row(timed)), []
    inputs, weights, lengths = (batch.pop(name) for name in ("inputs", "weights", "lengths"))
    gradients = differentiated(model, train=True)
    for taken in (np.arange(8) < 2, np.arange(8) >= 2):  # of the others nothing is read
        given = {**batch, "lengths": np.where(taken, lengths, 0)}
        results.append(gradients(split(model)[1], inputs, weights * taken[:, None, None], given))
    for part in ("stats", "params"):
        errors = jax.tree.map(relative_error, *(result[part] for result in results))
        assert max(jax.tree.leaves(errors)) < 1e-4, errors
    for part, tolerance in (("outputs", 1e-5), ("inputs", 1e-4)):
        row, each = (
            np.concatenate([result[part][i, : lengths[i]] for i in taken])
            for result, taken in zip(results, (range(2), range(2, 8)), strict=True)
        )
        assert relative_error(row, each) < tolerance

    outputs = nnx.jit(build(*pattern, head="sequence"))(inputs, lengths, **batch)
    assert relative_error(outputs[:2], outputs[jnp.array([4, 7])]) < 1e-5


@pytest.mark.parametrize(
    ("pattern", "pooling"),
    [
        (("lru",), "mean"),
        pytest.param(("s5", "lru"), "mean", marks=pytest.mark.slow),
        pytest.param(("s5", "lru"), "last", marks=pytest.mark.slow),
    ],
)
def test_three_sequences_in_a_row_sample_by_sample(pattern, pooling):
    model = build(*pattern, pooling=pooling)
    prefill, step = nnx.jit(type(model).prefill), nnx.jit(type(model).step)
    batch = in_a_row(True)
    arguments = {name: batch[name][:2] for name in ("inputs", "mask", "reset", "rate")}
    before, after = {k: x[:, :7] for k, x in arguments.items()}, {k: x[:, 7:] for k, x in arguments.items()}
    _, state = prefill(model, model.init_state(2), **before)
    read, end = prefill(model, state, **after, lengths=jnp.array([9, 9]))
    for k in range(9):
        outputs, state = step(model, state, **{name: x[:, k] for name, x in after.items()})
    assert relative_error(outputs, read) < 1e-5
    np.testing.assert_array_equal(state.head.total[:, -1], end.head.total[:, -1])
    errors = jax.tree.map(relative_error, state.mixers, end.mixers)
    assert max(jax.tree.leaves(errors)) < 1e-5, errors
    third = {name: batch[name][4:5] for name in ("inputs", "lengths", "mask", "rate")}
    assert (
        relative_error(read[:1], nnx.jit(type(model).__call__)(model, **third)) < 1e-5
    )  # the last sequence of the first row


@pytest.mark.parametrize(
    ("pattern", "timed"),
    [
        (("lru",), True),
        pytest.param(("attention", "s4d-two"), False, marks=pytest.mark.slow),
        pytest.param(("s5-two", "lru"), True, marks=pytest.mark.slow),
        pytest.param(("s4",), True, marks=pytest.mark.slow),
    ],
)
def test_nothing_depends_on_what_is_missing(pattern, timed):
    """Not a bit of outputs, statistics and gradients; those of what is missing are zero."""
    model = build(*pattern, dropout=0.1)
    arguments = {**in_a_row(timed), "key": quick_key(0)}
    inputs, _ = arguments.pop("inputs"), arguments.pop("weights")
    gradients = differentiated(model, train=True)
    spoiled = gradients(split(model)[1], inputs, values(8, 3), arguments)
    if timed:
        arguments["rate"] = np.where(np.isnan(arguments["rate"]), np.float32(3), arguments["rate"])
    clean = np.where(np.isnan(inputs), np.float32(5), inputs)
    clean = gradients(split(model)[1], clean, values(8, 3), arguments)
    jax.tree.map(np.testing.assert_array_equal, spoiled, clean)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(clean))
    absent = np.isnan(inputs)
    assert absent.any()
    assert not clean["inputs"][absent].any()
    assert clean["inputs"][~absent].all()


def test_missing_tokens():
    model, rng = build("s5", encoder="one_hot", input_size=5), np.random.default_rng(0)
    tokens, mask = rng.integers(0, 5, (3, L)).astype(np.int32), rng.random((3, L)) < 0.5
    run = jax.jit(lambda tokens, mask: model(tokens, mask=mask))
    expected = run(tokens, mask)
    np.testing.assert_array_equal(run(np.where(mask, -7, tokens).astype(np.int32), mask), expected)
    assert relative_error(run(tokens, np.zeros_like(mask)), expected) > 1e-3


@pytest.mark.parametrize("case", ["all", "missing and reset"])
def test_a_mean_over_a_million_samples_does_not_drift(case):
    steps, reset_at = 10**6, 300_000
    rng = np.random.default_rng(0)
    x = (1 + rng.normal(size=(steps, 2, 3))).astype(np.float32)
    mask, reset = None, None
    counted = np.ones((steps, 2), bool)
    if case != "all":
        mask, reset = rng.random((steps, 2)) < 0.3, np.zeros((steps, 2), bool)
        reset[reset_at, 0] = True
        counted = ~mask
        counted[:reset_at, 0] = False

    @jax.jit
    def run(x, mask, reset):
        def advance(state, sample):
            x, mask, reset = jax.tree.map(lambda a: a[:, None], sample)
            mean, state = state.read(x, Sequences(mask=mask, reset=reset), "mean")
            return state, mean

        nothing = Pooled(jnp.zeros((2, 4)), jnp.zeros((2, 4)))
        state, means = jax.lax.scan(advance, nothing, (x, mask, reset))
        return state, means[-1]

    state, mean = run(x, mask, reset)
    np.testing.assert_array_equal(state.total[:, -1], counted.sum(0))
    expected = np.where(counted[..., None], np.float64(x), 0).sum(0) / counted.sum(0)[:, None]
    assert relative_error(mean, expected) < 2e-7
    plain = np.cumsum(np.where(counted[..., None], x, np.float32(0)), 0, dtype=np.float32)[-1] / counted.sum(0)[:, None]
    assert relative_error(plain, expected) > 2e-6  # what would have become of a plain sum
