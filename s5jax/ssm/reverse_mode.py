"""An error that says what to do where forward mode meets a gradient rule for reverse mode.

`jax.custom_vjp` alone says that it cannot be differentiated forwards, and not what else to call.
"""

from typing import Any, NoReturn

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Shaped


@jax.custom_jvp
def reverse_mode_only(x: Shaped[Array, "*shape"]) -> Shaped[Array, "*shape"]:
    """x; a TypeError for forward mode, as by `jax.jvp` or `jax.linearize`.

    Its tangent is a primitive that cannot be computed. Reverse mode transposes it, which leaves the identity.
    """
    return x


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise TypeError(
        "this way to compute a scan or convolution has a gradient rule for reverse mode only."
        ' For forward mode (jax.jvp, jax.linearize) take scan_method="plain"'
    )


tangent_p = Primitive("tangent_for_reverse_mode")
tangent_p.def_impl(_refuse)
tangent_p.def_abstract_eval(lambda tangent: tangent)
ad.deflinear2(tangent_p, lambda cotangent, _: [cotangent])
batching.primitive_batchers[tangent_p] = lambda tangents, axes: (tangent_p.bind(*tangents), *axes)
mlir.register_lowering(tangent_p, _refuse)
reverse_mode_only.defjvp(lambda primals, tangents: (*primals, tangent_p.bind(*tangents)))
