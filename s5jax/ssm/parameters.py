"""Parameters of mixers: flat dicts of real arrays, in which a complex array has a trailing axis (re, im)."""

import dataclasses
from typing import Any, Literal, get_args, get_origin

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, PRNGKeyArray

FeedthroughInit = Literal["normal", "zero"]


def pair(z: Complex[Array, "*shape"]) -> Float[Array, "*shape 2"]:
    """Complex to real, as stored: (...) to (..., 2), the real and the imaginary part."""
    return jnp.stack([z.real, z.imag], -1)


def unpair(stored: Float[Array, "*shape 2"]) -> Complex[Array, "*shape"]:
    """The inverse of `pair`: (..., 2) to complex (...)."""
    return jax.lax.complex(stored[..., 0], stored[..., 1])


def with_rank(x: Array, ndim: int) -> Array:
    """Adds leading axes of length 1 until x has `ndim` axes."""
    return jnp.expand_dims(x, tuple(range(ndim - x.ndim)))


def check_choices(options: Any) -> None:
    """Raises ValueError if a field of a dataclass, with a Literal type, has a value that the type does not allow."""
    for field in dataclasses.fields(options):
        allowed, value = get_args(field.type), getattr(options, field.name)
        if get_origin(field.type) is Literal and value not in allowed:
            raise ValueError(f"{field.name} must be one of {', '.join(map(str, allowed))}; got {value!r}")


def check_step_sizes(dt_min: float, dt_max: float) -> None:
    """Raises ValueError unless 0 < dt_min <= dt_max."""
    if not 0 < dt_min <= dt_max:
        raise ValueError(f"dt_min and dt_max must satisfy 0 < dt_min <= dt_max, got {dt_min} and {dt_max}")


def log_step(key: PRNGKeyArray, shape: tuple[int, ...], dt_min: float, dt_max: float) -> Float[Array, "..."]:
    """Initial natural logs of the step sizes, uniform in [log dt_min, log dt_max); dt in units of 1/A. Float32."""
    return jax.random.uniform(key, shape, jnp.float32, np.log(dt_min), np.log(dt_max))


def init_feedthrough(key: PRNGKeyArray, width: int, kind: FeedthroughInit) -> Float[Array, " H"]:
    """The initial D (width,), float32: standard normal, or zero."""
    return jax.random.normal(key, (width,), jnp.float32) if kind == "normal" else jnp.zeros(width, jnp.float32)


def feedthrough(params: dict[str, Array], u: Float[Array, "*batch H"]) -> Float[Array, "*batch H"]:
    """D u for inputs u (..., H)."""
    return jnp.broadcast_to(params["D"], u.shape) * u
