"""State space models in JAX: pure-function cores, Flax NNX models, one config-driven training loop."""

__version__ = "0.1.0"
