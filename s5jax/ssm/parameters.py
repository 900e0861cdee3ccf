"""Parameters and options of mixers: complex arrays stored as real ones, initial values, and checks."""

import dataclasses
import math
import numbers
from typing import Any, Literal, get_args, get_origin

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, PRNGKeyArray

FeedthroughInit = Literal["normal", "zero"]
_KINDS = {
    int: (numbers.Integral, "an integer"),
    float: (numbers.Real, "a finite number"),
    bool: (bool, "True or False"),
}


def pair(z: Complex[Array, "*shape"]) -> Float[Array, "*shape 2"]:
    """Complex to real, as stored: the real and the imaginary part on a trailing axis."""
    return jnp.stack([z.real, z.imag], -1)


def unpair(stored: Float[Array, "*shape 2"]) -> Complex[Array, "*shape"]:
    """The inverse of `pair`. ValueError for a type that has no complex counterpart."""
    if stored.dtype not in (jnp.float32, jnp.float64):
        raise ValueError(f"parameters must be float32 or float64, got {stored.dtype}; activations may be bfloat16")
    return jax.lax.complex(stored[..., 0], stored[..., 1])


def with_rank(x: Array, ndim: int) -> Array:
    """Adds leading axes of length 1 until x has `ndim` axes."""
    return jnp.expand_dims(x, tuple(range(ndim - x.ndim)))


def check_choices(options: Any) -> None:
    """Raises ValueError if a field of a dataclass has a value that its type does not allow, or is not finite."""
    for field in dataclasses.fields(options):
        allowed, value = get_args(field.type), getattr(options, field.name)
        if value is None and type(None) in allowed:
            continue
        of_type: Any = allowed[0] if type(None) in allowed else field.type
        kind, words = _KINDS.get(of_type, (object, ""))
        fits = isinstance(value, kind) and (kind is object or isinstance(value, bool) == (kind is bool))
        if not fits or (words and not -math.inf < value < math.inf):
            raise ValueError(f"{field.name} must be {words}, got {value!r}")
        if get_origin(field.type) is Literal and value not in allowed:
            raise ValueError(f"{field.name} must be one of {', '.join(map(str, allowed))}; got {value!r}")


def check_least(options: Any, least: int, *names: str) -> None:
    """Raises ValueError if one of these fields is less than `least`."""
    for name in names:
        if not getattr(options, name) >= least:
            raise ValueError(f"{name} must be at least {least}, got {getattr(options, name)}")


def check_between(options: Any, least: int, most: int, *names: str) -> None:
    """Raises ValueError if one of these fields is outside least..most."""
    for name in names:
        if not least <= getattr(options, name) <= most:
            raise ValueError(f"{name} must lie in {least}..{most}, got {getattr(options, name)}")


def check_share(options: Any, *names: str) -> None:
    """Raises ValueError if one of these fields is not in [0, 1)."""
    for name in names:
        if not 0 <= getattr(options, name) < 1:
            raise ValueError(f"{name} must lie in [0, 1), got {getattr(options, name)}")


def check_kappa(init: str, kappa: float) -> None:
    """Raises ValueError unless kappa is 0 or, with init=ptd-conjugate, at least 1."""
    if kappa != 0 and not (kappa >= 1 and init == "ptd-conjugate"):
        fault = "must be 0 (the default bound) or, with init=ptd-conjugate, at least 1: it bounds a condition number"
        raise ValueError(f"ptd_kappa {fault}; got {kappa}")


def check_step_sizes(dt_min: float, dt_max: float) -> None:
    """Raises ValueError unless 0 < dt_min <= dt_max <= 1e6."""
    if not 0 < dt_min <= dt_max <= 1e6:
        raise ValueError(f"dt_min and dt_max must satisfy 0 < dt_min <= dt_max <= 1e6, got {dt_min} and {dt_max}")


def log_step(key: PRNGKeyArray, shape: tuple[int, ...], dt_min: float, dt_max: float) -> Float[Array, "..."]:
    """Initial natural logs of the step sizes (time unit of A), uniform in [log dt_min, log dt_max). Float32."""
    return jax.random.uniform(key, shape, jnp.float32, np.log(dt_min), np.log(dt_max))


def init_feedthrough(key: PRNGKeyArray, width: int, kind: FeedthroughInit) -> Float[Array, " H"]:
    """The initial D (width,), float32: standard normal, or zero."""
    return jax.random.normal(key, (width,), jnp.float32) if kind == "normal" else jnp.zeros(width, jnp.float32)


def feedthrough(params: dict[str, Array], u: Float[Array, "*batch H"]) -> Float[Array, "*batch H"]:
    """D u."""
    return jnp.broadcast_to(params["D"], u.shape) * u
