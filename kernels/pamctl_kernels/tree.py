"""Pytrees of host arrays: nested dict, list and tuple, walked without jax."""

from collections.abc import Callable
from typing import Any


def map_tree(function: Callable[..., Any], tree: Any, *others: Any, path: str = "") -> Any:
    """`function(name, leaf, *leaves of the others)` at every leaf; ValueError where structures differ."""
    if type(tree) is dict:
        if any(type(other) is not dict or other.keys() != tree.keys() for other in others):
            raise ValueError(f"the trees have different keys at {path or 'the root'}")
        return {
            key: map_tree(function, tree[key], *(other[key] for other in others), path=f"{path}[{key!r}]")
            for key in tree
        }
    if type(tree) in (list, tuple):
        if any(type(other) is not type(tree) or len(other) != len(tree) for other in others):
            raise ValueError(f"the trees have different lengths at {path or 'the root'}")
        items = enumerate(zip(tree, *others, strict=True))
        return type(tree)(map_tree(function, *nodes, path=f"{path}[{i}]") for i, nodes in items)
    return function(path or "the array", tree, *others)


def leaves_of(tree: Any) -> list[tuple[str, Any]]:
    """The leaves of `tree` with their names, in its own order."""
    found: list[tuple[str, Any]] = []
    map_tree(lambda name, leaf: found.append((name, leaf)), tree)
    return found
