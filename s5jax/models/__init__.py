"""Flax NNX modules around the mixers: encoder, block, stack, head, and the whole model."""
