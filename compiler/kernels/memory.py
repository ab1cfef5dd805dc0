"""Where temporaries lie in the arena: slots shared by what is never live at the same time.

A slot is as large as its largest tenant for every value of the symbols: a tenant joins only where
the ranges prove that it fits.  Offsets are therefore polynomials, and valid for all sizes at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fluxc.compiler.ir.dims import (
    Dim,
    ceildiv,
    evaluate_size,
    is_at_least,
    is_multiple_of,
    size_bounds,
    size_symbols,
)

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from fluxc.compiler.ir.dims import Size

__all__ = ["ALIGNMENT", "Tenant", "arrange"]

ALIGNMENT = 64
_TYPICAL = 64  # what an unbounded size is taken for when slots are compared


@dataclass(frozen=True, slots=True)
class Tenant:
    """A temporary: its bytes, and the first and last step at which its contents matter."""

    key: Hashable
    bytes: Size
    first: int
    last: int


@dataclass(slots=True)
class _Slot:
    bytes: Size
    tenants: list[Tenant] = field(default_factory=list)

    def takes(self, t: Tenant) -> bool:
        free = all(t.last < other.first or other.last < t.first for other in self.tenants)
        return free and is_at_least(self.bytes, t.bytes)


def arrange(tenants: Iterable[Tenant]) -> tuple[dict[Any, Size], Size]:
    """An offset for every tenant's key, each a multiple of 64, and the bytes of the arena."""
    slots: list[_Slot] = []
    for t in sorted(tenants, key=lambda t: (-_typical(t.bytes), t.first)):
        slot = next((s for s in slots if s.takes(t)), None)
        if slot is None:
            slot = _Slot(_aligned(t.bytes))
            slots.append(slot)
        slot.tenants.append(t)
    offsets: dict[Any, Size] = {}
    end: Size = 0
    for slot in sorted(slots, key=lambda s: isinstance(s.bytes, Dim)):
        offsets |= {t.key: end for t in slot.tenants}
        end = end + slot.bytes
    return offsets, end


def _aligned(size: Size) -> Size:
    if is_multiple_of(size, ALIGNMENT):
        return size
    return ceildiv(size, ALIGNMENT) * ALIGNMENT


def _typical(size: Size) -> int:
    values = {}
    for symbol in size_symbols(size):
        low, high = size_bounds(Dim((((symbol,), 1),)))
        values[symbol.name] = int(min(max(_TYPICAL, low), high))
    return evaluate_size(size, values)
