"""The published names of what a stack of blocks holds.

The blocks are one module, `encoder/layers`, whose arrays have an axis for the blocks in front. Where people and files
meet them, they are `encoder/layers_0/seq/B`, ..., as in the published S5 code.
"""

from typing import Any

import jax
import numpy as np

__all__ = ["per_layer", "stacked"]


def per_layer(tree: Any) -> Any:
    """A tree of parameters, or of what there is of each, with `layers_0`, `layers_1`, ... for every `layers`."""

    def split(node: Any) -> Any:
        if not _has(node, "layers"):
            return node
        depth = next((len(x) for x in jax.tree.leaves(node["layers"])), 0)
        layers = {f"layers_{i}": jax.tree.map(lambda x, i=i: x[i], node["layers"]) for i in range(depth)}
        others = {name: child for name, child in node.items() if name != "layers" or not depth}
        return others | layers

    return jax.tree.map(split, tree, is_leaf=lambda node: _has(node, "layers"))


def stacked(tree: Any) -> Any:
    """The inverse of `per_layer`, for arrays of NumPy."""

    def join(node: Any) -> Any:
        if not _has(node, "layers_0"):
            return node
        names = [f"layers_{i}" for i in range(sum(name.startswith("layers_") for name in node))]
        layers = jax.tree.map(lambda *x: np.stack(x), *(node[name] for name in names))
        return {name: child for name, child in node.items() if name not in names} | {"layers": layers}

    return jax.tree.map(join, tree, is_leaf=lambda node: _has(node, "layers_0"))


def _has(node: Any, name: str) -> bool:
    return isinstance(node, dict) and name in node
