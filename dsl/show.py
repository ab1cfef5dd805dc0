"""How modules print: one line per layer, with sizes and counts of parameters."""

from __future__ import annotations

from typing import Any

from fluxc.module import Declared, Module, Param, parts, walk
from fluxc.nn.checks import function_name

__all__ = ["show"]

COLUMN = 40


def show(module: Module) -> str:
    """The tree with the parameter count of each layer, and the totals below.

    A parameter that is reached on several ways counts where it is met first.
    """
    lines: list[tuple[str, str]] = []
    _tree("", module, 0, lines, set())
    total = _total(module)
    if len(lines) == 1:
        text, count = lines[0]
        return f"{text}  # {count}" if count else text
    lines[-1] = (lines[-1][0], total)
    width = max([COLUMN, *(len(text) for text, _ in lines)])
    return "\n".join(f"{text:<{width}}  # {note}" if note else text for text, note in lines)


def _tree(name: str, x: Any, depth: int, lines: list[tuple[str, str]], seen: set[int]) -> None:
    head = "  " * depth + (f"{name} = " if name and not name.isdigit() else "")
    comma = "," if depth else ""
    call = x.describe() if isinstance(x, Module) else None
    if call is not None or isinstance(x, Declared):
        text = call or f"{x.noun}({x.type})"
        lines.append((head + text + comma, _count(x, seen)))
        return
    if callable(x) and not isinstance(x, Module):
        lines.append((head + function_name(x) + comma, ""))
        return
    opening, closing = _brackets(x)
    inner = [(n, p) for n, p in _children(x) if not _is_empty(p)]
    if not inner:
        lines.append((head + opening + closing + comma, ""))
        return
    lines.append((head + opening, ""))
    for own, part in inner:
        _tree(own, part, depth + 1, lines, seen)
    lines.append(("  " * depth + closing + comma, ""))


def _children(x: Any) -> list[tuple[str, Any]]:
    return x.children() if isinstance(x, Module) else list(parts(x))


def _is_empty(x: Any) -> bool:
    """Whether it is a container without modules and parameters."""
    if callable(x) or isinstance(x, Module | Declared):
        return False
    return all(_is_empty(p) for _, p in parts(x))


def _brackets(x: Any) -> tuple[str, str]:
    if isinstance(x, Module):
        return f"{type(x).__name__}(", ")"
    if isinstance(x, dict):
        return "{", "}"
    return ("(", ")") if isinstance(x, tuple) else ("[", "]")


def _count(x: Any, seen: set[int]) -> str:
    new = [leaf for _, leaf in walk(x) if id(leaf) not in seen]
    seen |= {id(leaf) for leaf in new}
    trained = sum(_size(p) for p in new if isinstance(p, Param) and p.trainable)
    fixed = sum(_size(p) for p in new if not (isinstance(p, Param) and p.trainable))
    notes = [f"{trained:_} parameter{'s'[: trained > 1]}"] if trained else []
    if fixed:
        notes.append(f"{'plus ' if trained else ''}{fixed:_} non-trainable")
    return ", ".join(notes)


def _size(leaf: Declared) -> int:
    return int(leaf.size)  # type: ignore[arg-type]


def _total(module: Module) -> str:
    leaves = [leaf for _, leaf in walk(module)]
    trained = [p for p in leaves if isinstance(p, Param) and p.trainable]
    fixed = [p for p in leaves if not (isinstance(p, Param) and p.trainable)]
    size = sum(_size(p) * p.type.dtype.itemsize for p in leaves)
    count = sum(map(_size, trained))
    text = f"Total: {len(trained)} arrays, {count:_} parameters"
    if fixed:
        text += f", plus {len(fixed)} arrays, {sum(map(_size, fixed)):_} non-trainable"
    return f"{text}, {_bytes(size)}."


def _bytes(size: int) -> str:
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= scale:
            return f"{size / scale:.3f} {unit}"
    return f"{size} bytes"
