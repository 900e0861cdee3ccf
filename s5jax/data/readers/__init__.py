"""Readers of official files and of TFDS directories."""
