"""Lengths, missing samples, resets and step-size factors of a batch of sequences."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer

from s5jax.ssm.sequence import valid_steps

__all__ = ["Sequences"]


class Sequences(NamedTuple):
    """The arguments that all mixers share, explained in `s5jax.mixers`; `None`: the default."""

    lengths: Integer[Array, " B"] | None = None
    """Number of valid steps."""
    mask: Bool[Array, "B L"] | None = None
    """True where a sample is missing."""
    reset: Bool[Array, "B L"] | None = None
    """True where a new sequence starts."""
    rate: Float[Array, "..."] | float | None = None
    """Factor on the step size, (), (B,) or (B, L)."""

    def counted(self, L: int) -> Bool[Array, "B {L}"] | None:
        """True at samples that are valid and not missing; `None`: at all samples."""
        valid = None if self.lengths is None else valid_steps(self.lengths, L)
        if self.mask is None:
            return valid
        return ~self.mask if valid is None else valid & ~self.mask

    def starts(self, L: int) -> Bool[Array, "B {L}"] | None:
        """True at valid steps where a new sequence starts; `None`: nowhere."""
        if self.reset is None or self.lengths is None:
            return self.reset
        return self.reset & valid_steps(self.lengths, L)

    def counted_of_last(self, L: int) -> Bool[Array, "B {L}"] | None:
        """`counted`, restricted to the last sequence of each row."""
        counted, starts = self.counted(L), self.starts(L)
        if starts is None:
            return counted
        steps = jnp.arange(L)[None]
        last = steps >= jnp.max(jnp.where(starts, steps, 0), axis=1, keepdims=True)
        return last if counted is None else last & counted
