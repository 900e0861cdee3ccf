"""Flax NNX modules around the layers of `s5jax.ssm`."""
