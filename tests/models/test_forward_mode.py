"""Hessian-vector products of a whole model's loss, forward over reverse, against differences of its gradient."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from numerics import relative_error
from small_models import MIXERS, H, double_precision, split, values

from s5jax.models.model import Model
from s5jax.models.options import Options

L, B = 9, 3
STEP = 1e-5


def plain(name):
    module, options = MIXERS[name]
    known = {field.name for field in dataclasses.fields(options)}
    return module, dataclasses.replace(options, scan_method="plain") if "scan_method" in known else options


def model_of(pattern, remat, seed):
    depth = max(2, len(pattern))  # two mixers: one repetition; one mixer: two
    options = Options(depth=depth, d_model=H, pattern=pattern, remat=remat)
    return Model(options, {name: plain(name) for name in pattern}, 2, 3, length=L, rngs=nnx.Rngs(seed))


BOTH = ("double", "single")
CASES = [
    (("s5",), "full", False, ("double",)),
    *(
        pytest.param(*case, BOTH, marks=pytest.mark.slow)
        for case in [
            (("s5", "attention"), "pointwise", True),
            *itertools.product((("s5",), ("s4d",), ("s4",), ("lru",), ("attention",)), ("none", "full"), (False,)),
            (("s4",), "pointwise", True),
            (("s4d", "lru"), "pointwise", True),
            (("s5-two", "s4d-two", "attention-two"), "pointwise", True),
        ]
    ),
]


@pytest.mark.parametrize(("pattern", "remat", "seeds", "precisions"), CASES)
def test_hessian_vector_products(pattern, remat, seeds, precisions):
    """Padded sequences in training, of one seed or under `jax.vmap` over two."""
    models = [model_of(pattern, remat, seed) for seed in range(1 + seeds)]
    graphdef, _, stats = split(models[0])
    trees = [split(model)[1] for model in models]
    params = jax.tree.map(lambda *x: np.stack(x), *trees) if seeds else jax.tree.map(np.asarray, trees[0])
    rng = np.random.default_rng(0)
    along = jax.tree.map(lambda p: rng.normal(size=p.shape) * (0.1 + np.abs(p).mean()), params)

    def gradient(params, inputs):
        def loss(params):
            model = nnx.merge(graphdef, params, jax.tree.map(lambda x: x.astype(inputs.dtype), stats))
            return jnp.mean(jnp.sin(3 * model(inputs, jnp.array([L, 4, 7]), train=True)))

        return jax.grad(loss)(params)

    def product(params, along, inputs):
        return jax.jvp(lambda p: gradient(p, inputs), (params,), (along,))[1]

    if seeds:
        gradient_of, product_of = jax.vmap(gradient, (0, None)), jax.vmap(product, (0, 0, None))
    else:
        gradient_of, product_of = gradient, product
    inputs, products = np.asarray(values(B, L, 2)), []
    if "single" in precisions:
        single = jax.tree.map(lambda x: np.asarray(x, np.float32), (params, along))
        products.append((jax.jit(product_of)(*single, inputs), 1e-4))
    with double_precision():
        params, along, inputs = jax.tree.map(lambda x: np.asarray(x, np.float64), (params, along, inputs))
        moved = [jax.tree.map(lambda p, v, h=h: p + h * v, params, along) for h in (STEP, -STEP)]
        gradient_of = jax.jit(gradient_of)
        gradients = [jax.tree.map(np.asarray, gradient_of(p, inputs)) for p in moved]
        in_double = jax.tree.map(np.asarray, jax.jit(product_of)(params, along, inputs))
    differences = jax.tree.map(lambda a, b: (a - b) / (2 * STEP), *gradients)
    assert {x.dtype.name for x in jax.tree.leaves(in_double)} == {"float64"}
    for actual, tolerance in (*products, (in_double, 1e-6)):
        flat = [np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]) for tree in (actual, differences)]
        assert relative_error(*flat) < tolerance
    errors = jax.tree.map(relative_error, in_double, differences)
    assert max(jax.tree.leaves(errors)) < 1e-5, errors  # each parameter, though its part of the whole be small


def test_other_ways_to_scan_say_so():
    module, options = MIXERS["s5"]
    options = dataclasses.replace(options, scan_method="sequential")
    model = Model(Options(depth=1, d_model=H), {"s5": (module, options)}, 2, 3, rngs=nnx.Rngs(0))
    inputs = values(1, L, 2)
    with pytest.raises(TypeError, match='scan_method="plain"'):
        jax.jvp(model, (inputs,), (inputs,))
