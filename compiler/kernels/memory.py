"""Where temporaries lie in the arena: slots shared by what is never live at the same time.

A slot is as large as its largest tenant for every value of the symbols: a tenant joins only where
the ranges prove that it fits.  Offsets are therefore polynomials, and valid for all sizes at once.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
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
    from collections.abc import Hashable, Iterable, Iterator

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


class _Moments:
    """Which slots are taken at which steps: a tree over the steps, with a bit for each slot.

    `whole[i]` are taken at every step below node i, `some[i]` at one of them at least.
    """

    def __init__(self, steps: int) -> None:
        self.leaves = 1 << max(steps - 1, 0).bit_length()
        self.whole = [0] * (2 * self.leaves)
        self.some = [0] * (2 * self.leaves)

    def taken(self, first: int, last: int) -> int:
        """The slots that are taken at any step from `first` to `last`."""
        found = 0
        for node in self._cover(first, last):
            found |= self.some[node]
            for above in _above(node):
                found |= self.whole[above]
        return found

    def take(self, slot: int, first: int, last: int) -> None:
        for node in self._cover(first, last):
            self.whole[node] |= 1 << slot
            for above in (node, *_above(node)):
                self.some[above] |= 1 << slot

    def _cover(self, first: int, last: int) -> Iterator[int]:
        """The fewest nodes whose steps are those from `first` to `last`."""
        low, high = first + self.leaves, last + self.leaves + 1
        while low < high:
            if low & 1:
                yield low
                low += 1
            if high & 1:
                high -= 1
                yield high
            low, high = low >> 1, high >> 1


def _above(node: int) -> Iterator[int]:
    while node := node >> 1:
        yield node


def arrange(tenants: Iterable[Tenant]) -> tuple[dict[Any, Size], Size]:
    """An offset for every tenant's key, each a multiple of 64, and the bytes of the arena."""
    order = sorted(tenants, key=lambda t: (-_typical(t.bytes), t.first))
    moments = _Moments(max((t.last + 1 for t in order), default=0))
    slots: list[Size] = []
    homes: list[int] = []
    holds = functools.cache(is_at_least)  # few sizes, however many tenants
    for t in order:
        free = ~moments.taken(t.first, t.last)
        slot = next((i for i in _bits(free, len(slots)) if holds(slots[i], t.bytes)), len(slots))
        if slot == len(slots):
            slots.append(_aligned(t.bytes))
        moments.take(slot, t.first, t.last)
        homes.append(slot)
    begins: dict[int, Size] = {}
    end: Size = 0
    for slot in sorted(range(len(slots)), key=lambda i: isinstance(slots[i], Dim)):
        begins[slot] = end
        end = end + slots[slot]
    return {t.key: begins[slot] for t, slot in zip(order, homes, strict=True)}, end


def _bits(mask: int, count: int) -> Iterator[int]:
    """The places of the bits of `mask` among the lowest `count`."""
    mask &= (1 << count) - 1
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest


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
