"""What mixers store: a flat dict of real arrays, a complex array with a trailing axis (re, im)."""

import dataclasses
from typing import Any, Literal, get_args, get_origin

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, PRNGKeyArray

FeedthroughInit = Literal["normal", "zero"]


def pair(z: Complex[Array, "*shape"]) -> Float[Array, "*shape 2"]:
    """A complex array as it is stored."""
    return jnp.stack([z.real, z.imag], -1)


def unpair(stored: Float[Array, "*shape 2"]) -> Complex[Array, "*shape"]:
    """A complex array from what is stored."""
    return jax.lax.complex(stored[..., 0], stored[..., 1])


def with_rank(x: Array, ndim: int) -> Array:
    """The array with axes of length 1 in front."""
    return jnp.expand_dims(x, tuple(range(ndim - x.ndim)))


def check_choices(options: Any) -> None:
    """Raises ValueError where a field of a dataclass is none of the values that its type, a Literal, allows."""
    for field in dataclasses.fields(options):
        allowed, value = get_args(field.type), getattr(options, field.name)
        if get_origin(field.type) is Literal and value not in allowed:
            raise ValueError(f"{field.name} must be one of {', '.join(map(str, allowed))}; got {value!r}")


def check_step_sizes(dt_min: float, dt_max: float) -> None:
    """Raises ValueError unless 0 < dt_min <= dt_max."""
    if not 0 < dt_min <= dt_max:
        raise ValueError(f"dt_min and dt_max must satisfy 0 < dt_min <= dt_max, got {dt_min} and {dt_max}")


def log_step(key: PRNGKeyArray, shape: tuple[int, ...], dt_min: float, dt_max: float) -> Float[Array, "..."]:
    """Initial log step sizes, uniform between log(dt_min) and log(dt_max)."""
    return jax.random.uniform(key, shape, jnp.float32, np.log(dt_min), np.log(dt_max))


def init_feedthrough(key: PRNGKeyArray, width: int, kind: FeedthroughInit) -> Float[Array, " H"]:
    """D: standard normal, or zero."""
    return jax.random.normal(key, (width,), jnp.float32) if kind == "normal" else jnp.zeros(width, jnp.float32)


def feedthrough(params: dict[str, Array], u: Float[Array, "*batch H"]) -> Float[Array, "*batch H"]:
    """D u."""
    return jnp.broadcast_to(params["D"], u.shape) * u
