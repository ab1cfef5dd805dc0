"""Which group of a program depends on which, kept transitively while groups grow and merge."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Order"]


class Order:
    """Sets of groups are integers, one bit a group; a merged group keeps the bits of its parts."""

    def __init__(self) -> None:
        self.parent: list[int] = []
        self.mask: list[int] = []
        self.before: list[int] = []
        self.after: list[int] = []

    def new(self) -> int:
        g = len(self.parent)
        self.parent.append(g)
        self.mask.append(1 << g)
        self.before.append(0)
        self.after.append(0)
        return g

    def find(self, g: int) -> int:
        while self.parent[g] != g:
            g = self.parent[g]
        return g

    def _groups(self, bits: int) -> Iterator[int]:
        while bits:
            g = self.find((bits & -bits).bit_length() - 1)
            yield g
            bits &= ~self.mask[g]

    def depends(self, g: int, h: int) -> bool:
        """Whether `g` runs after `h`."""
        return bool(self.before[self.find(g)] & self.mask[self.find(h)])

    def depend(self, g: int, h: int) -> None:
        """Make `g` run after `h`."""
        g, h = self.find(g), self.find(h)
        assert g != h
        earlier = self.before[h] | self.mask[h]
        if not earlier & ~self.before[g]:
            return
        later = self.after[g] | self.mask[g]
        for x in self._groups(earlier):
            self.after[x] |= later
        for y in self._groups(later):
            self.before[y] |= earlier

    def can_depend(self, g: int, earlier: Iterable[int]) -> bool:
        """Whether `g` may run after all of `earlier`."""
        return not any(self.depends(h, g) for h in earlier)

    def can_merge(self, g: int, h: int) -> bool:
        """Whether nothing must run between `g` and `h`."""
        g, h = self.find(g), self.find(h)
        both = self.mask[g] | self.mask[h]
        return not (self.before[g] | self.before[h]) & (self.after[g] | self.after[h]) & ~both

    def merge(self, g: int, h: int) -> None:
        """Make `h` a part of `g`."""
        g, h = self.find(g), self.find(h)
        both = self.mask[g] | self.mask[h]
        earlier = (self.before[g] | self.before[h]) & ~both
        later = (self.after[g] | self.after[h]) & ~both
        self.parent[h] = g
        self.mask[g], self.before[g], self.after[g] = both, earlier, later
        for x in self._groups(earlier):
            self.after[x] |= later | both
        for y in self._groups(later):
            self.before[y] |= earlier | both
