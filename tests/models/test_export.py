"""Models under `jax.export`: any batch size everywhere, any length too, and states that pass through a file."""

import contextlib

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from everyday import variants
from flax import nnx
from jax import export
from numerics import relative_error
from small_models import MIXERS, build

from s5jax.mixers import s5

L = 20


@contextlib.contextmanager
def unchecked_shapes():
    """Annotations of shapes that broadcast do not understand symbolic sizes; users do not have them checked."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def passed_through_bytes(f, *shapes):
    with unchecked_shapes():
        return export.deserialize(export.export(jax.jit(f))(*shapes).serialize())


def draw(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@variants(
    [("s4", "sequence", "length"), ("s5", "step", "both")],
    mixer=list(MIXERS),
    head=["sequence", "step", "pair"],
    symbolic=["batch", "length", "both"],
)
def test_a_model_of_any_batch_size_and_length(mixer, head, symbolic):
    model, pair = build(mixer, head=head), (2,) * (head == "pair")
    B, T = export.symbolic_shape("B, T")
    batch, length = B if symbolic != "length" else 3, T if symbolic != "batch" else L
    inputs = jax.ShapeDtypeStruct((batch, *pair, length, 2), jnp.float32)
    lengths = jax.ShapeDtypeStruct((batch, *pair), jnp.int32)
    exported = passed_through_bytes(lambda x, n: model(x, n), inputs, lengths)
    sizes = {"batch": [(1, L), (3, L)], "length": [(3, 21), (3, 7)], "both": [(1, 21), (2, 5)]}[symbolic]
    if mixer == "dss":  # its kernel is a softmax over the 21 steps of training
        sizes = [(n, L) for n, _ in sizes]
    for n, t in sizes:
        x, valid = draw(n, *pair, t, 2), np.full((n, *pair), t - 2, np.int32)
        assert relative_error(exported.call(x, valid), nnx.jit(lambda m, *args: m(*args))(model, x, valid)) < 1e-4


@variants(["s5"], mixer=[name for name in MIXERS if not name.endswith("-two")])
def test_pieces_and_samples_of_any_batch_size(mixer):
    model = build(mixer, depth=2)
    start = jax.eval_shape(lambda: model.init_state(3, max_length=L))

    def states(batch):
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype), start)

    B, T = export.symbolic_shape("B, T", constraints=[f"T <= {L}"])  # attention's cache has L places
    prefill = passed_through_bytes(model.prefill, states(B), jax.ShapeDtypeStruct((B, T, 2), jnp.float32))
    (B,) = export.symbolic_shape("B")
    step = passed_through_bytes(model.step, states(B), jax.ShapeDtypeStruct((B, 2), jnp.float32))
    x, state = draw(2, L, 2), model.init_state(2, max_length=L)
    _, state = prefill.call(state, x[:, :13])
    for k in range(13, L):
        logits, state = step.call(state, x[:, k])
    assert relative_error(logits, nnx.jit(lambda m, x: m(x))(model, x)) < 1e-4


def test_methods_that_need_a_length_say_so():
    T, B = export.symbolic_shape("T, B")
    for options in (s5.Options(state_size=4, scan_method="chunked"), s5.Options(state_size=4, scan_method="kernel")):
        params = s5.init(jax.random.key(0), 2, options)
        with (
            unchecked_shapes(),
            pytest.raises(ValueError, match='a symbolic length needs the scan method "sequential"'),
        ):
            export.export(jax.jit(lambda x, o=options, p=params: s5.apply(p, x, o)[0]))(
                jax.ShapeDtypeStruct((1, T, 2), jnp.float32)
            )
    with unchecked_shapes(), pytest.raises(ValueError, match="a symbolic batch needs another scan method"):
        export.export(jax.jit(lambda x: s5.apply(params, x, options)[0]))(jax.ShapeDtypeStruct((B, 9, 2), jnp.float32))
