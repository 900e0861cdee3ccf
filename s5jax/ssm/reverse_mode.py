"""A helpful error for forward-mode differentiation of functions with a `jax.custom_vjp` rule.

JAX's own message says that forward mode is not supported, but not what to use instead (`scan_method="plain"`).
"""

from typing import Any, NoReturn

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Shaped


@jax.custom_jvp
def reverse_mode_only(x: Shaped[Array, "*shape"]) -> Shaped[Array, "*shape"]:
    """Returns x. Raises TypeError in forward mode, for example under `jax.jvp` or `jax.linearize`.

    The tangent is a primitive that cannot be evaluated, but can be transposed: reverse mode passes cotangents through.
    """
    return x


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise TypeError(
        "this scan or convolution has a gradient rule for reverse mode only;"
        ' for forward mode (jax.jvp, jax.linearize) use scan_method="plain"'
    )


tangent_p = Primitive("tangent_for_reverse_mode")
tangent_p.def_impl(_refuse)
tangent_p.def_abstract_eval(lambda tangent: tangent)
ad.deflinear2(tangent_p, lambda cotangent, _: [cotangent])
batching.primitive_batchers[tangent_p] = lambda tangents, axes: (tangent_p.bind(*tangents), *axes)
mlir.register_lowering(tangent_p, _refuse)
reverse_mode_only.defjvp(lambda primals, tangents: (*primals, tangent_p.bind(*tangents)))
