"""Converts between our stacked parameters and the published names of layers.

Blocks at the same place of the pattern form one module, `encoder/layers/<place>`, whose arrays have a leading axis for
the repetitions of the pattern. In the published S5 code, block i is `encoder/layers_<i>`.
"""

from typing import Any

import jax
import numpy as np

__all__ = ["per_layer", "stacked"]


def per_layer(tree: Any) -> Any:
    """Replaces `layers` by `layers_0`, `layers_1`, ... in a tree of parameters or of arrays with their layout."""

    def split(node: Any) -> Any:
        if not _has(node, "layers"):
            return node
        places = [node["layers"][i] for i in sorted(node["layers"], key=int)]
        depth = sum(next((len(x) for x in jax.tree.leaves(place)), 0) for place in places)
        layers = {
            f"layers_{i}": jax.tree.map(lambda x, i=i: x[i // len(places)], places[i % len(places)])
            for i in range(depth)
        }
        return {name: child for name, child in node.items() if name != "layers"} | layers

    return jax.tree.map(split, tree, is_leaf=lambda node: _has(node, "layers"))


def stacked(tree: Any, places: int = 1) -> Any:
    """The inverse of `per_layer`, to NumPy arrays; `places` is the number of mixers in the pattern."""

    def join(node: Any) -> Any:
        if not _has(node, "layers_0"):
            return node
        names = [f"layers_{i}" for i in range(sum(name.startswith("layers_") for name in node))]
        layers = {
            place: jax.tree.map(lambda *x: np.stack(x), *(node[name] for name in names[place::places]))
            for place in range(places)
        }
        return {name: child for name, child in node.items() if name not in names} | {"layers": layers}

    return jax.tree.map(join, tree, is_leaf=lambda node: _has(node, "layers_0"))


def _has(node: Any, name: str) -> bool:
    return isinstance(node, dict) and name in node
