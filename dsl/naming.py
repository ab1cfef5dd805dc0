"""Names of stored tensors: their paths from the model file's variables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluxc.compiler.errors import TraceError
from fluxc.module import Declared, Module, is_container, subtree, walk

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["candidates", "declared_names", "variable_names"]


def candidates(namespace: dict[str, Any]) -> list[tuple[str, Any]]:
    """The variables that hold modules, parameters, or containers of them, in order."""
    found = []
    for name, value in namespace.items():
        if name.startswith("__") or not is_container(value):
            continue
        if isinstance(value, Module | Declared) or any(True for _ in walk(value)):
            found.append((name, value))
    return found


def variable_names(namespace: dict[str, Any]) -> dict[int, str]:
    """The first variable of each module, by the module's identity; for paths in messages."""
    names: dict[int, str] = {}
    for name, value in candidates(namespace):
        names.setdefault(id(value), name)
        for path, part in subtree(value):
            if not isinstance(value, Module) and isinstance(part, Module):
                names.setdefault(id(part), f"{name}.{path}")
    return names


def declared_names(
    used: Iterable[Declared], called: Iterable[Module], namespace: dict[str, Any]
) -> dict[int, str]:
    """The name of each stored tensor, by its identity.

    Roots are the variables whose modules entries call; where there is one alone, paths start below
    it, else with the variable's name.  A module that stands inside another root is no root.
    Errors  TraceError for a parameter that no variable of the model file leads to.
    """
    known = candidates(namespace)
    ids = {id(m) for m in called}
    roots = [(name, value) for name, value in known if id(value) in ids]
    roots = _outermost(roots)
    paths = _paths(roots)
    for declared in used:
        if id(declared) not in paths:
            holders = [(n, v) for n, v in known if any(d is declared for _, d in walk(v))]
            if not holders:
                raise TraceError(
                    f"{declared!r} is used but no variable of the model file leads to it",
                    hint="make layers at the top of the file, or in a Module's __init__",
                )
            roots.append(_outermost(holders)[0])
            roots = _outermost(sorted(roots, key=lambda root: _place(known, root)))
            paths = _paths(roots)
    return paths


def _place(known: list[tuple[str, Any]], root: tuple[str, Any]) -> int:
    return next(i for i, (name, _) in enumerate(known) if name == root[0])


def _outermost(roots: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Each object once, without those that stand inside another."""
    inside = {id(part) for _, value in roots for _, part in subtree(value)}
    unique: dict[int, tuple[str, Any]] = {}
    for name, value in roots:
        if id(value) not in inside:
            unique.setdefault(id(value), (name, value))
    return list(unique.values())


def _paths(roots: list[tuple[str, Any]]) -> dict[int, str]:
    alone = len(roots) == 1 and isinstance(roots[0][1], Module)
    names: dict[int, str] = {}
    for root, value in roots:
        for path, declared in walk(value):
            parts = [] if alone else [root]
            names.setdefault(id(declared), ".".join([*parts, path] if path else parts))
    return names
