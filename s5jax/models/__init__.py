"""Flax NNX modules around the mixers: encoder, block, stack, head, and the model that they make."""
