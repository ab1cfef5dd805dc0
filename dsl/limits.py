"""What `fx.export(..., memory=)` takes: bytes, and the sizes at which they must be enough."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fluxc.compiler.ir.entry import Limit

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

__all__ = ["memory_limit"]

_UNITS = {
    "": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30,
    "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9,
}  # fmt: skip
_FORM = '"64MiB", a number of bytes, or {"limit": "64MiB", "batch": 64}'


def memory_limit(memory: Any, fail: Callable[..., NoReturn]) -> Limit | None:
    """The limit that a user wrote; None for none.  `fail` raises what is wrong with it."""
    if memory is None:
        return None
    if not isinstance(memory, Mapping):
        return Limit(_bytes(memory, fail))
    if "limit" not in memory:
        fail("memory= lacks its limit", expected=_FORM, got=repr(memory))
    sizes = {str(name): size for name, size in memory.items() if name != "limit"}
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            fail(f"memory= gives {name} no size", expected="a whole number", got=repr(size))
    return Limit(_bytes(memory["limit"], fail), tuple(sorted(sizes.items())))


def _bytes(memory: Any, fail: Callable[..., NoReturn]) -> int:
    if isinstance(memory, int) and not isinstance(memory, bool) and memory >= 0:
        return memory
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(memory))
    if not isinstance(memory, str) or found is None or found[2] not in _UNITS:
        fail("memory= is no number of bytes", expected=_FORM, got=repr(memory))
    return int(float(found[1]) * _UNITS[found[2]])
