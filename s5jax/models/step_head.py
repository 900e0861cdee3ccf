"""The head with outputs at each step."""

from typing import Any

from flax import nnx
from jaxtyping import Array, Float

from s5jax.models.options import Options
from s5jax.models.sequences import Sequences

__all__ = ["StepHead"]


class StepHead(nnx.Linear):
    """A dense layer at each step; it has no state."""

    documents, per_step = 1, True

    def __init__(self, options: Options, outputs: int, *, rngs: nnx.Rngs):
        super().__init__(options.d_model, outputs, rngs=rngs)

    def fold(self, x: Any) -> Any:
        return x

    def read(
        self, x: Float[Array, "B L H"], sequences: Sequences, state: tuple[()] | None = None
    ) -> tuple[Float[Array, "B L outputs"], tuple[()] | None]:
        return self(x), state

    def init_state(self, batch: int) -> tuple[()]:
        return ()
