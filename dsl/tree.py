"""Nested tuples, lists and dicts of tensors: taken apart into leaves and put together again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["leaves", "map_leaves", "structure"]


def leaves(tree: Any) -> list[Any]:
    """Whatever is no tuple, list or dict, in order."""
    if isinstance(tree, tuple | list):
        return [leaf for part in tree for leaf in leaves(part)]
    if isinstance(tree, dict):
        return [leaf for part in tree.values() for leaf in leaves(part)]
    return [tree]


def map_leaves(f: Callable[[Any], Any], tree: Any) -> Any:
    """The same nesting with f(leaf) for each leaf."""
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(map_leaves(f, part) for part in tree))
    if isinstance(tree, tuple | list):
        return type(tree)(map_leaves(f, part) for part in tree)
    if isinstance(tree, dict):
        return {key: map_leaves(f, part) for key, part in tree.items()}
    return f(tree)


def refill(tree: Any, values: Iterator[Any]) -> Any:
    """The same nesting with the given leaves."""
    return map_leaves(lambda _: next(values), tree)


def structure(tree: Any) -> Any:
    """The nesting as an `Entry` has it: "leaf", ("tuple" | "list", [...]), ("dict", {...})."""
    if isinstance(tree, tuple | list):
        return ("tuple" if isinstance(tree, tuple) else "list", [structure(p) for p in tree])
    if isinstance(tree, dict):
        return ("dict", {str(key): structure(part) for key, part in tree.items()})
    return "leaf"
