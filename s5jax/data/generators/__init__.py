"""Generators of examples, functions of a seed: trees of ListOps, images in the manner of Pathfinder."""
